"""Screening: measures against independent ones, and duplicates against all pairs."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.curate.duplicates import near_pairs, originals, perceptual_hash
from ops.curate.screen import measure, svd_ratio


@pytest.mark.parametrize("shape", [(96, 128), (128, 96), (100, 100), (8, 50)])
def test_the_share_of_singular_values_is_numpys(shape):
    grey = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    singular = np.linalg.svd(grey.astype(np.float64), compute_uv=False)
    assert svd_ratio(grey) == pytest.approx(singular[:10].sum() / singular.sum(), abs=1e-6)


def test_a_flat_picture_is_all_blur():
    assert svd_ratio(np.zeros((64, 64), np.uint8)) == 1
    assert svd_ratio(np.full((64, 64), 90, np.uint8)) == pytest.approx(1, abs=1e-5)


def test_blur_raises_the_ratio_and_lowers_the_laplacian(astronaut):
    steps = [measure(astronaut if s == 0 else cv2.GaussianBlur(astronaut, (0, 0), s), 512) for s in (0, 1, 3, 8)]
    ratios, laplacians = ([step[name] for step in steps] for name in ("svd_ratio", "laplacian"))
    assert ratios == sorted(ratios)
    assert laplacians == sorted(laplacians, reverse=True)


def test_a_re_encoded_picture_keeps_its_hash_and_another_does_not(astronaut):
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    again = cv2.imdecode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)
    smaller = cv2.resize(grey, (300, 300), interpolation=cv2.INTER_AREA)
    mirrored = np.ascontiguousarray(grey[:, ::-1])
    base = perceptual_hash(grey)
    assert (base ^ perceptual_hash(again)).bit_count() <= 4
    assert (base ^ perceptual_hash(smaller)).bit_count() <= 4
    assert (base ^ perceptual_hash(mirrored)).bit_count() > 16


HASHES = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 255), min_size=2, max_size=40, unique=True)


@settings(max_examples=60, deadline=None)
@given(HASHES, st.integers(0, 9))
def test_near_pairs_are_all_pairs_that_are_near(values, distance):
    expected = {(i, j) for j in range(len(values)) for i in range(j) if (values[i] ^ values[j]).bit_count() <= distance}
    found = near_pairs(np.array(values, np.uint64), distance)
    assert {tuple(pair) for pair in found.tolist()} == expected
    assert len(found) == len(expected)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=30), st.integers(0, 2))
def test_a_repetition_repeats_the_first_near_original(values, distance):
    expected: list[int] = []
    for j, value in enumerate(values):
        same = [i for i in range(j) if values[i] == value]
        near = [i for i in range(j) if expected[i] < 0 and (values[i] ^ value).bit_count() <= distance]
        expected.append(-1 if not near else expected[same[0]] if same and expected[same[0]] >= 0 else near[0])
    result = originals(np.array(values, np.uint64), distance).tolist()
    assert [r < 0 for r in result] == [e < 0 for e in expected]
    assert all(
        r < 0 or (result[r] < 0 and (values[r] ^ values[j]).bit_count() <= distance) for j, r in enumerate(result)
    )


def test_clips_are_left_to_those_who_label_clips():
    from ops.curate.labelling import Sample
    from ops.curate.screen import ScreenParams, screen
    from ops.store.clips import encode_clip
    from ops.store.pictures import sniff

    data = encode_clip([np.zeros((64, 64, 3), np.uint8)] * 2, 25)
    assert sniff(data) == "mp4"
    assert sniff(b"\0\0\0\x18ftypheic") == "bin"  # a picture in the same container
    (row,) = screen(iter([Sample("a", sniff(data), data, {})]), ScreenParams())
    assert (row["kept"], row["reason"]) == (False, "clip")
