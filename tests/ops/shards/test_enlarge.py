"""A user's super-resolution network makes small squares large; one that makes something else is refused."""

import numpy as np
import pytest
from pydantic import ValidationError

from ops.runtime.errors import LineamentError
from ops.shards.enlarge import EnlargeParams, enlarged
from tests.ops.perception.tiny_onnx import model, node

SMALL = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def network(path, side=16, bright=1.0):
    """Each pixel four times: a transposed convolution, a channel at a time."""
    weight = np.full((3, 1, 2, 2), bright, np.float32)
    up = node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], kernel_shape=[2, 2], group=3)
    shapes = {"x": (1, 3, side, side)}, {"y": (1, 3, 2 * side, 2 * side)}
    path.write_bytes(model([up], {"w": weight}, *shapes))
    return path


def test_the_network_makes_the_pixels(tmp_path):
    params = EnlargeParams(method="network", network=network(tmp_path / "up.onnx"))
    np.testing.assert_array_equal(enlarged(SMALL, 32, params), SMALL.repeat(2, 0).repeat(2, 1))
    dark = EnlargeParams(method="network", network=network(tmp_path / "dark.onnx", bright=0.5))
    np.testing.assert_allclose(enlarged(SMALL, 32, dark), SMALL.repeat(2, 0).repeat(2, 1) / 2, atol=0.51)


def test_its_own_size_is_kept_to_and_the_result_brought_to_the_size_asked_for(tmp_path):
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    params = EnlargeParams(method="network", network=network(tmp_path / "up.onnx", side=24), side=24)
    for size in (20, 48, 64):
        np.testing.assert_array_equal(enlarged(flat, size, params), np.full((size, size, 3), (200, 100, 50)))


def test_other_networks_and_missing_ones_are_refused(tmp_path):
    with pytest.raises(ValidationError, match="an ONNX file"):
        EnlargeParams(method="network")
    with pytest.raises(LineamentError, match="no such network"):
        enlarged(SMALL, 32, EnlargeParams(method="network", network=tmp_path / "none.onnx"))
    mean = tmp_path / "mean.onnx"
    pool = node("GlobalAveragePool", ["x"], ["y"])
    mean.write_bytes(model([pool], {}, {"x": (1, 3, 16, 16)}, {"y": (1, 3, 1, 1)}))
    with pytest.raises(LineamentError, match="whole number of times as large"):
        enlarged(SMALL, 32, EnlargeParams(method="network", network=mean))
