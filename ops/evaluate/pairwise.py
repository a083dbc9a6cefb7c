"""One against one: PSNR, SSIM and mean difference of pictures; identity and key points; length of a latent path."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from ops.runtime.errors import LineamentError

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # Wang et al. 2004: an 11 x 11 Gaussian window
SSIM_K1, SSIM_K2 = 0.01, 0.03  # ditto


def l1(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two (H, W, 3) uint8 pictures, in grey levels over 255."""
    _same(a, b)
    return float(np.abs(a.astype(np.float64) - b).mean() / 255)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two (H, W, 3) uint8 pictures in dB; infinite for equal ones."""
    _same(a, b)
    error = float(((a.astype(np.float64) - b) ** 2).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of two (H, W, 3) uint8 pictures, mean over channels; 1 for equal ones.

    Gaussian window of sigma 1.5, population covariances; the margin where the window leaves the picture is left out.

    Raises:
        LineamentError: different sizes, or smaller than the window.
    """
    _same(a, b)
    if min(a.shape[:2]) <= 2 * SSIM_RADIUS:
        raise LineamentError(f"SSIM needs pictures above {2 * SSIM_RADIUS} px, not {a.shape[1]} x {a.shape[0]}.")
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (SSIM_K1 * 255) ** 2, (SSIM_K2 * 255) ** 2
    value = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    value /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(value[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS].mean())


def csim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine of paired (N, D) identity embeddings."""
    _same(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / np.maximum(scale, 1e-12)).mean())


def average_keypoint_distance(a: np.ndarray, b: np.ndarray) -> float:
    """AKD: mean Euclidean distance of paired (N, K, 2 or 3) key points, in their unit."""
    _same(a, b)
    return float(np.linalg.norm(a.astype(np.float64) - b, axis=-1).mean())


def perceptual_path_length(
    features: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    end: np.ndarray,
    seed: int = 0,
    epsilon: float = 1e-4,
    spherical: bool = True,
    trim: float = 0.01,
) -> float:
    """How far pictures move, in features, for a small step along a path between two codes (Karras et al. 2019, 4.1).

    Args:
        features: (n, Z) codes to (n, D) features of their pictures; the squared distance of features is the measure.
        start, end: (n, Z) ends of the paths.
        seed: of the place on each path.
        epsilon: length of the step, of a path of length 1.
        spherical: along the great circle (for normal codes), else straight (for intermediate ones).
        trim: share of the longest and of the shortest that is left out, 1 % in the public code.

    Returns:
        mean of the squared distances over epsilon squared.
    """
    _same(start, end)
    t = np.random.default_rng(seed).random((len(start), 1))
    path = _slerp if spherical else _lerp
    moved = features(path(start, end, t + epsilon)).astype(np.float64) - features(path(start, end, t))
    lengths = np.sort((moved**2).sum(1) / epsilon**2)
    cut = int(len(lengths) * trim)
    return float(lengths[cut : len(lengths) - cut].mean())


def _lerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    return a + t * (b - a)


def _slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Along the great circle between directions; the length goes linearly."""
    length_a, length_b = (np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    a, b = a / length_a, b / length_b
    angle = np.arccos(np.clip((a * b).sum(1, keepdims=True), -1, 1))
    sine = np.maximum(np.sin(angle), 1e-12)
    direction = np.where(angle < 1e-9, a, (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / sine)
    return direction * _lerp(length_a, length_b, t)


def _blur(image: np.ndarray) -> np.ndarray:
    size = 2 * SSIM_RADIUS + 1
    return cv2.GaussianBlur(image, (size, size), SSIM_SIGMA, borderType=cv2.BORDER_REFLECT)


def _same(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or not a.size:
        raise LineamentError(
            f"what is compared must have one size and not be empty; these are {a.shape} and {b.shape}."
        )
