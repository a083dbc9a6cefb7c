"""Detectors of artefacts: limits from one half, alarms from the other, rates of heads seen from all sides."""

import numpy as np
import pytest

from ops.evaluate import artefacts
from ops.evaluate.artefacts import DETECTORS, Facts, alarms, angles, calibrate, judge, mirrored_score
from ops.evaluate.heads_views import RealHeads, azimuths_of, bin_of, chosen_numbers, in_view, mask_facts, sharpness
from ops.runtime.errors import LineamentError

D = 6


def real(count: int = 200, seed: int = 0, **changes: np.ndarray) -> RealHeads:
    """Heads around the circle, similar to one another; true back views seldom look like faces."""
    rng = np.random.default_rng(seed)
    azimuths = rng.uniform(-180, 180, count)
    values = {
        "features": np.ones((count, D)) + rng.normal(0, 0.1, (count, D)),
        "low": np.zeros((count, 72)),
        "cameras": np.zeros((count, 25)),
        "azimuths": azimuths,
        "true_azimuths": np.full(count, np.nan),
        "identities": np.full(count, ""),
        "face_scores": np.where(np.abs(azimuths) > 90, rng.uniform(0, 0.7, count), 0.95),
        "sharpness": rng.uniform(20, 40, count),
        "coverage": rng.uniform(0.4, 0.8, count),
        "pieces": np.zeros(count),
    }
    return RealHeads(**{**values, **changes})


def good(objects: int = 3, views: int = 8) -> Facts:
    count = objects * views
    azimuths = np.tile(np.arange(views) * 360 / views - 180, objects)
    scores = np.where(np.abs(azimuths) > 90, 0.1, 0.95)
    return Facts(azimuths, scores, np.full(count, 30.0), np.full(count, 0.6), np.zeros(count), np.ones((count, D)))


def changed(facts: Facts, **parts: tuple[int, object]) -> Facts:
    """The facts with one entry of each named array replaced."""
    values = {name: getattr(facts, name).copy() for name in Facts.__dataclass_fields__}
    for name, (place, value) in parts.items():
        values[name][place] = value
    return Facts(**values)


def test_good_heads_pass_and_each_fault_is_found():
    calibrated = calibrate(real())
    assert judge(good(), 3, calibrated)["high_quality_rate"] == 1
    far = np.eye(D)[0] * 5
    for name, fault in (
        ("face_behind", {"face_scores": (8, 0.99)}),  # view 0 of head 1 looks from behind
        ("pieces", {"pieces": (9, 0.2)}),
        ("cover", {"coverage": (10, 0.05)}),
        ("cover", {"coverage": (10, 0.99)}),
        ("dull", {"sharpness": (11, 2.0)}),
        ("unlike", {"features": (12, far)}),
    ):
        found = judge(changed(good(), **fault), 3, calibrated)
        assert found["by_detector"] == {d: pytest.approx((d == name) / 3) for d in DETECTORS}
        assert found["high_quality_rate"] == pytest.approx(2 / 3)
    behind = judge(changed(good(), face_scores=(8, 0.99)), 3, calibrated)
    assert behind["fake_face_rate"] == pytest.approx(1 / behind["back_views"])
    assert behind["heads_with_fake_face"] == pytest.approx(1 / 3)
    assert behind["back_views"] == 9  # -180, -135 and 135 of each head


def test_a_face_in_front_is_no_fake():
    assert not alarms(good(), calibrate(real()).limits, np.ones((1, D)))["face_behind"].any()


def test_what_a_network_without_mask_cannot_show_raises_no_alarm():
    calibrated = calibrate(real())
    facts = good()
    blind = Facts(**{**facts.__dict__, "coverage": facts.coverage * np.nan, "pieces": facts.pieces * np.nan})
    assert judge(blind, 3, calibrated)["high_quality_rate"] == 1
    without = calibrate(real(coverage=np.full(200, np.nan), pieces=np.full(200, np.nan)))
    assert without.limits.as_dict()["least_cover"] is None
    assert not alarms(changed(good(), coverage=(0, 0.01)), without.limits, without.near)["cover"].any()


def test_false_alarms_are_those_of_the_other_half():
    """Every second back view (those that limits are not drawn from) looks like a face: all of them are false alarms."""
    sample = real()
    scores, back = sample.face_scores.copy(), np.abs(sample.azimuths) > 120
    scores[back] = np.where(np.arange(200) % 2 == 0, 0.2, 0.9)[back]
    calibrated = calibrate(real(face_scores=scores))
    assert calibrated.false_alarms["face_behind"] == 1
    assert calibrated.limits.least_face == 0.5
    assert calibrated.any_alarm >= back[1::2].mean()
    assert calibrated.samples == (100, int(back[1::2].sum()))


def test_truth_outdoes_labels():
    """Front pictures labelled as back views are no false alarms where the truth is known."""
    sample = real()
    wrong = np.where(np.abs(sample.azimuths) < 30, 180.0, sample.azimuths)
    assert calibrate(real(azimuths=wrong)).false_alarms["face_behind"] > 0.2 or (
        calibrate(real(azimuths=wrong)).limits.least_face > 0.9
    )
    known = calibrate(real(azimuths=wrong, true_azimuths=sample.azimuths))
    assert known.limits == calibrate(sample).limits
    assert known.false_alarms == calibrate(sample).false_alarms


def test_too_few_pictures_are_refused():
    with pytest.raises(LineamentError, match="10 real pictures cannot calibrate"):
        calibrate(real(10))


def test_mirrored_features_are_noticed():
    rng = np.random.default_rng(0)
    front, flipped = rng.normal(size=(2, 5, 40))
    found = mirrored_score(flipped + 0.1 * rng.normal(size=(5, 40)), front, flipped)
    assert found["score"] > 0.98
    assert abs(found["front_alone"]) < 0.4
    assert found["heads"] == 5


def test_angles_do_not_see_length():
    assert angles(np.eye(2) * 7, np.eye(2)) == pytest.approx(1 - np.eye(2))


def test_views_and_bins():
    azimuths = np.array([0, 59, -61, 119, -121, 180, -180, 340])
    assert in_view(azimuths, "front").tolist() == [True, True, False, False, False, False, False, True]
    assert in_view(azimuths, "back").tolist() == [False, False, False, False, True, True, True, False]
    assert bin_of(np.array([0, 22, 23, -22, -23, 180, -180, 359])).tolist() == [0, 0, 1, 0, 7, 4, 4, 0]
    cameras = np.zeros((2, 25))
    cameras[0, [3, 11]] = 0, 2.7
    cameras[1, [3, 11]] = 2.7, 0
    assert azimuths_of(cameras).tolist() == [0, 90]
    assert chosen_numbers(5, 0) == [0, 1, 2, 3, 4]
    assert chosen_numbers(9, 3) == [0, 4, 8]


def test_facts_of_masks_and_pictures():
    mask = np.zeros((10, 10), bool)
    assert mask_facts(mask) == (0, 0)
    mask[:5, :5] = True
    mask[8:, 8:] = True
    coverage, pieces = mask_facts(mask)
    assert (coverage, pieces) == pytest.approx((0.29, 4 / 29))
    assert np.isnan(mask_facts(None)).all()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert sharpness(noise) > 50 > sharpness(np.full_like(noise, 9)) == 0
    assert artefacts.MARGIN > 1
