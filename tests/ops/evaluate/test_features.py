"""Features of sets of pictures: the resize rule, constant memory, and when the cache is used."""

import numpy as np
import pytest
from PIL import Image

from ops.evaluate.features import MobileNetFeatures, cached, load_features
from ops.runtime.errors import LineamentError

RNG = np.random.default_rng(0)


def noise(count: int, side: int = 40) -> list[np.ndarray]:
    return [RNG.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def backbone(weights):
    return load_features(weights, 64)


def test_pictures_are_filtered_when_they_shrink(backbone):
    checks = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    prepared = backbone.prepare([np.repeat(checks[..., None], 3, -1)])
    assert prepared.shape == (1, 3, 64, 64)
    assert (prepared - 0.5).abs().max() < 0.02


def test_features_come_in_batches_of_any_stream(backbone, monkeypatch):
    images = noise(5)
    whole = backbone.embed(images)
    monkeypatch.setattr(MobileNetFeatures, "batch", 2)
    assert np.allclose(backbone.embed(iter(images)), whole, atol=1e-5)
    assert whole.shape == (5, 1280)
    assert backbone.embed([]).shape == (0, 1280)


def test_levels_hold_both_kinds(backbone):
    images = noise(2)
    levels = backbone.levels(images)
    assert levels.shape == (2, 72 + 1280)
    assert np.array_equal(levels[:, 72:], backbone.embed(images))
    first = backbone.network.maps(backbone.prepare(images))[0].mean(dim=(2, 3))
    assert np.allclose(levels[:, :16], first, atol=1e-6)


def test_distances_of_pairs(backbone):
    a, b = noise(2), noise(2)
    assert (backbone.distances(a, a) == 0).all()
    assert (backbone.distances(a, b) > 0.1).all()


def test_the_cache_is_keyed_by_data_backbone_and_rule(backbone, weights, tmp_path):
    asked = []

    def images():
        asked.append(1)
        return [np.asarray(Image.new("RGB", (16, 16), (i * 40, 0, 0))) for i in range(3)]

    first = cached(tmp_path, backbone, "data", images)
    assert np.array_equal(cached(tmp_path, backbone, "data", images), first)
    assert len(asked) == 1
    cached(tmp_path, backbone, "other data", images)
    cached(tmp_path, load_features(weights, 32), "data", images)
    assert len(asked) == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(LineamentError, match="dvc repro weights"):
        MobileNetFeatures(tmp_path)
