"""Pairs of pictures against scikit-image and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import metrics

from ops.evaluate import pairwise
from ops.runtime.errors import LineamentError


def pictures(seed, height=40, width=33, noise=30):
    rng = np.random.default_rng(seed)
    base = np.linspace(0, 200, width)[None, :, None] + rng.integers(0, 20, (height, width, 3))
    other = base + rng.normal(0, noise, base.shape)
    return base.clip(0, 255).astype(np.uint8), other.clip(0, 255).astype(np.uint8)


@given(st.integers(0, 500), st.integers(11, 60), st.integers(11, 60), st.floats(0.5, 90))
@settings(max_examples=25, deadline=None)
def test_psnr_and_ssim_are_skimages(seed, height, width, noise):
    a, b = pictures(seed, height, width, noise)
    assert pairwise.psnr(a, b) == pytest.approx(metrics.peak_signal_noise_ratio(a, b), rel=1e-9)
    expected = metrics.structural_similarity(
        a, b, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert pairwise.ssim(a, b) == pytest.approx(expected, abs=1e-7)


def test_equal_pictures():
    a, b = pictures(0)
    assert pairwise.psnr(a, a) == math.inf
    assert pairwise.ssim(a, a) == pytest.approx(1)
    assert pairwise.l1(a, a) == 0
    assert pairwise.ssim(a, b) == pytest.approx(pairwise.ssim(b, a))


def test_l1_of_black_and_white():
    black = np.zeros((4, 4, 3), np.uint8)
    assert pairwise.l1(black, black + 255) == 1
    assert pairwise.l1(black + 255, black + 204) == pytest.approx(0.2)


def test_csim_and_key_points_by_hand():
    a = np.array([[1.0, 0], [0, 2]], np.float32)
    assert pairwise.csim(a, a * 5) == pytest.approx(1)
    assert pairwise.csim(a, np.array([[0, 1.0], [0, -1]])) == pytest.approx(-0.5)
    points = np.zeros((2, 3, 2))
    moved = points + np.array([3, 4])
    moved[1] = 0
    assert pairwise.average_keypoint_distance(points, moved) == pytest.approx(2.5)


def test_path_length_of_a_linear_generator_is_the_squared_distance_of_the_ends():
    rng = np.random.default_rng(0)
    a, b, matrix = rng.normal(size=(50, 6)), rng.normal(size=(50, 6)), rng.normal(size=(6, 9))
    expected = (((b - a) @ matrix) ** 2).sum(1).mean()
    found = pairwise.perceptual_path_length(lambda z: z @ matrix, a, b, spherical=False, trim=0)
    assert found == pytest.approx(expected, rel=1e-5)


def test_path_length_on_the_sphere_is_the_squared_angle():
    a, b = np.tile([[2.0, 0, 0]], (8, 1)), np.tile([[0, 2.0, 0]], (8, 1))
    found = pairwise.perceptual_path_length(lambda z: z / np.linalg.norm(z, axis=1, keepdims=True), a, b)
    assert found == pytest.approx((math.pi / 2) ** 2, rel=1e-4)
    assert pairwise.perceptual_path_length(lambda z: z, a, a) == pytest.approx(0, abs=1e-9)


def test_trimming_leaves_the_wild_ones_out():
    a, b = np.zeros((200, 1)), np.ones((200, 1))
    b[0] = 1e6
    assert pairwise.perceptual_path_length(lambda z: z, a, b, spherical=False) == pytest.approx(1, rel=1e-4)


def test_sizes_that_do_not_match_are_named():
    a, _ = pictures(0)
    for call in (pairwise.l1, pairwise.psnr, pairwise.ssim, pairwise.csim, pairwise.average_keypoint_distance):
        with pytest.raises(LineamentError, match=r"\(40, 33, 3\) and \(39, 33, 3\)"):
            call(a, a[:-1])
    with pytest.raises(LineamentError, match="SSIM needs pictures above 10 px, not 33 x 10"):
        pairwise.ssim(a[:10], a[:10])
