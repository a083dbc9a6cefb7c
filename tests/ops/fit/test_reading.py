"""The reading of the codes off landmarks: it ignores how a face stands, and finds what was hidden in it."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ops.fit.calibrate import taught
from ops.fit.reading import MOST, Reading, features, learn, reading
from ops.fit.target import target
from ops.perception.facemesh import canonical_points, mirrored


def placed(points, rng):
    """(N, 468, 3) faces, head frame, as FaceMesh would tell them: turned, scaled, moved, y down and z away."""
    turn = Rotation.from_rotvec(rng.normal(0, 0.3, (len(points), 3))).as_matrix()
    size, shift = rng.uniform(50, 300, (len(points), 1, 1)), rng.normal(200, 50, (len(points), 1, 3))
    return (points @ turn.transpose(0, 2, 1)) * [1, -1, -1] * size + shift


@pytest.fixture(scope="module")
def crowd():
    """Pictures of 40 people: noisy landmarks and their codes."""
    rng = np.random.default_rng(0)
    face = target().face
    people = np.repeat(np.arange(40), 6)
    identity = rng.normal(size=(40, 80))[people]
    expression = rng.random((240, 52)) ** 6
    points = face.points(torch.from_numpy(identity), torch.from_numpy(expression)).numpy()
    noisy = points + rng.normal(0, 0.003, points.shape)
    codes, mirror = taught([{"identity_code": i, "expression": e} for i, e in zip(identity, expression)])
    return placed(noisy, rng), codes, people, mirror


def test_features_do_not_know_where_a_face_stands(crowd):
    rng = np.random.default_rng(1)
    some = np.repeat(canonical_points()[None] + rng.normal(0, 0.01, (1, 468, 3)), 5, axis=0)
    seen = features(placed(some, rng))
    np.testing.assert_allclose(seen, np.broadcast_to(seen[:1], seen.shape), atol=1e-9)
    np.testing.assert_allclose(features(canonical_points()[None] * [1, -1, -1] * 7 + 3), 0, atol=1e-9)


def test_codes_are_found_and_the_spread_tells_how_well(crowd):
    points, codes, people, mirror = crowd
    found = learn(points, codes, people, mirror)
    read = found.codes(points)
    jaw = 80 + target().model.expression_names.index("jawOpen")
    assert np.corrcoef(read[:, jaw], codes[:, jaw])[0, 1] > 0.9
    assert found.spread[jaw] < 0.6 * codes[:, jaw].std()
    assert found.spread[0] < 0.8  # the largest component of the identity
    assert 0.8 < found.spread[79] < 1.3  # the smallest moves nothing


def test_a_mirror_image_reads_as_the_other_side(crowd):
    points, codes, people, mirror = crowd
    found = learn(points, codes, people, mirror)
    other = (points * [-1, 1, 1])[:, mirrored()]
    names = list(target().model.expression_names)
    left, right = 80 + names.index("eyeBlinkLeft"), 80 + names.index("eyeBlinkRight")
    here, there = found.codes(points), found.codes(other)
    np.testing.assert_allclose(here[:, left], there[:, right], atol=1e-6)
    np.testing.assert_allclose(here[:, :80], there[:, :80], atol=1e-6)


def test_a_reading_survives_its_file_and_keeps_within_bounds(crowd, tmp_path, monkeypatch):
    points, codes, people, mirror = crowd
    found = learn(points, codes, people, mirror)
    found.save(tmp_path / "reading.safetensors")
    monkeypatch.setattr("ops.fit.reading.READING", tmp_path / "reading.safetensors")
    reading.cache_clear()
    again = reading()
    reading.cache_clear()
    assert isinstance(again, Reading)
    np.testing.assert_allclose(again.codes(points), found.codes(points), atol=0.05)
    wild = points.copy()
    wild[0] += np.random.default_rng(3).normal(0, 100, wild[0].shape)
    wild[1, 5] = np.nan
    prior = again.prior(wild[:3])
    assert prior.identity.abs().max() <= MOST
    assert ((prior.expression >= 0) & (prior.expression <= 1)).all()
    assert not prior.identity[1].any()  # nothing is read off nothing
    assert (prior.expression_spread > 0).all()
