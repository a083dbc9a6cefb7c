"""dlib's embedding as a network here: dlib itself says what is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.dlibface import DlibFace, _add
from ops.evaluate.dlibfile import read_network
from ops.runtime.errors import LineamentError
from ops.runtime.weights import require


@pytest.fixture(scope="module")
def network() -> DlibFace:
    return read_network(require("dlib_128d"))


def test_its_numbers_are_dlibs(network: DlibFace) -> None:
    import dlib

    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)) for n in (4, 12, 150)]
    faces = [np.array(picture.resize((150, 150), Image.Resampling.BILINEAR)) for picture in noise]
    theirs = np.array(dlib.face_recognition_model_v1(str(require("dlib_128d"))).compute_face_descriptor(faces))
    with torch.inference_mode():
        ours = network(torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(theirs[0] - theirs[1]).max() > 0.01


def test_maps_of_other_sizes_are_continued_by_zeros() -> None:
    a, b = torch.ones(1, 2, 3, 3), torch.ones(1, 1, 2, 4)
    total = _add(a, b)
    assert total.shape == (1, 2, 3, 4)
    assert total[0, 0].tolist() == [[2, 2, 2, 1], [2, 2, 2, 1], [1, 1, 1, 0]]
    assert total[0, 1].tolist() == [[1, 1, 1, 0]] * 3


def test_what_is_wrong_is_said(network: DlibFace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes .N, 3, 150, 150."):
        network(torch.zeros(1, 3, 128, 128))
    with pytest.raises(ValueError, match="0 convolutions and 0 gains, not 29"):
        DlibFace.from_parameters([], [], torch.zeros(1))
    whole = require("dlib_128d").read_bytes()
    for content in (whole[:100_000], whole[:-100_000], b"con_4", whole.replace(b"\x01\x05con_4", b"\x01\x05con_5")):
        (tmp_path / "net.dat").write_bytes(content)
        with pytest.raises(LineamentError, match="net.dat: not dlib's face embedding, or damaged"):
            read_network(tmp_path / "net.dat")
