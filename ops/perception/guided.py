"""A map drawn along a picture's borders: the guided filter of He, Sun and Tang (PAMI 2013), its fast form (2015).

About each pixel the map is taken for a linear function of the picture's colours, so it turns where they turn. The
functions are found at the map's own, coarser resolution and applied at the picture's.
"""

from __future__ import annotations

import cv2
import numpy as np

from ops.store import pictures


def guided(values: np.ndarray, picture: np.ndarray, reach: float, flat: float) -> np.ndarray:
    """A map, redrawn along the borders of a picture.

    Args:
        values: (s, s) float32 of the same square as the picture.
        picture: (S, S, 3) uint8 RGB, S at least s.
        reach: half a window's side by the square's.
        flat: variance of colours in [0, 1] below which a window counts as flat, so that the map is smoothed there.

    Returns:
        (S, S) float32.
    """
    size = 2 * max(1, round(reach * len(values))) + 1

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (size, size))

    colours = pictures.resize(picture, len(values)).astype(np.float32) / 255
    middle, level = mean(colours), mean(values)
    spread = np.empty((*values.shape, 3, 3), np.float32)
    for i in range(3):
        spread[..., i, :] = mean(colours * colours[..., i : i + 1]) - middle * middle[..., i : i + 1]
    together = mean(colours * values[..., None]) - middle * level[..., None]
    slope = np.linalg.solve(spread + flat * np.eye(3, dtype=np.float32), together[..., None])[..., 0]
    start = level - (slope * middle).sum(-1)
    slope, start = (cv2.resize(mean(x), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR) for x in (slope, start))
    return (slope * (picture.astype(np.float32) / 255)).sum(-1) + start
