"""Cutting a turned square out of a picture, without aliasing, and points along with it.

A quad is (4, 2): the corners top-left, bottom-left, bottom-right, top-right in pixels of the upright picture, in FFHQ's
order; pixel (i, j) covers [j, j+1) x [i, i+1). Crop coordinates (u, v) run over [0, 1]. All quads here are squares, so
the map is a similarity.
"""

from __future__ import annotations

import cv2
import numpy as np


def quad_side(quad: np.ndarray) -> float:
    """The side of the square in pixels."""
    return float(np.hypot(*(quad[3] - quad[0])))


def square_quad(centre: np.ndarray, side: float, angle: float = 0.0) -> np.ndarray:
    """(4, 2) corners of a square, turned clockwise by ``angle`` radians as seen in the picture."""
    c, s = np.cos(angle) * side / 2, np.sin(angle) * side / 2
    x, y = np.array([c, s]), np.array([-s, c])
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def to_crop(points: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """(..., 2) picture pixels to crop coordinates (u, v), [0, 1] inside the crop."""
    matrix = np.stack([quad[3] - quad[0], quad[1] - quad[0]], axis=1)
    return (points - quad[0]) @ np.linalg.inv(matrix).T


def from_crop(points: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """(..., 2) crop coordinates to picture pixels; the inverse of to_crop."""
    matrix = np.stack([quad[3] - quad[0], quad[1] - quad[0]], axis=1)
    return points @ matrix.T + quad[0]


def outside_share(quad: np.ndarray, width: int, height: int) -> float:
    """The share of the crop that lies outside the picture, in [0, 1]."""
    grid = (np.mgrid[:32, :32].reshape(2, -1).T + 0.5) / 32
    x, y = from_crop(grid[:, ::-1], quad).T
    return float(np.mean((x < 0) | (y < 0) | (x >= width) | (y >= height)))


def crop_quad(image: np.ndarray, quad: np.ndarray, size: int) -> np.ndarray:
    """The square ``quad`` of a picture as (size, size, 3).

    Shrinking first averages whole areas, so nothing aliases; outside the picture its edge pixels continue.

    Args:
        image: (H, W, 3) uint8.
        quad: (4, 2) corners, see the module.
        size: of the result.
    """
    shrink = quad_side(quad) / size
    low = np.floor(quad.min(0) - 2 * max(shrink, 1)).astype(int)
    high = np.ceil(quad.max(0) + 2 * max(shrink, 1)).astype(int)
    low = np.minimum(np.maximum(low, 0), np.array(image.shape[1::-1]) - 1)
    high = np.maximum(np.minimum(high, image.shape[1::-1]), low + 1)
    part = image[low[1] : high[1], low[0] : high[0]]
    corners = quad - low
    if shrink > 1.5:
        width, height = (max(1, round(n / shrink)) for n in part.shape[1::-1])
        corners = corners * [width / part.shape[1], height / part.shape[0]]
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    step = np.stack([corners[3] - corners[0], corners[1] - corners[0]], axis=1) / size
    start = corners[0] + step @ [0.5, 0.5] - 0.5  # OpenCV puts pixel centres at whole numbers
    matrix = np.concatenate([step, start[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
