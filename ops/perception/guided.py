"""A map drawn along a picture's borders: the guided filter of He, Sun and Tang (PAMI 2013), its fast form (2015).

About each pixel the map is taken for a linear function of the picture's colours, so it turns where they turn. The
functions are found at the map's own, coarser resolution and applied at the picture's.
"""

from __future__ import annotations

import cv2
import numpy as np

from ops.store import pictures


def guided(values: np.ndarray, picture: np.ndarray, reach: float, flat: float) -> np.ndarray:
    """Maps, redrawn along the borders of a picture.

    Args:
        values: (K, s, s) float32 of the same square as the picture.
        picture: (S, S, 3) uint8 RGB, S at least s.
        reach: half a window's side by the square's.
        flat: variance of colours in [0, 1] below which a window counts as flat, so that a map is smoothed there.

    Returns:
        (K, S, S) float32.
    """
    side = values.shape[-1]
    size = 2 * max(1, round(reach * side)) + 1

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (size, size))

    colours = pictures.resize(picture, side).astype(np.float32) / 255
    middle = mean(colours)
    spread = np.empty((side, side, 3, 3), np.float32)
    for i in range(3):
        spread[..., i, :] = mean(colours * colours[..., i : i + 1]) - middle * middle[..., i : i + 1]
    levels = [mean(value) for value in values]
    together = [mean(colours * v[..., None]) - middle * level[..., None] for v, level in zip(values, levels)]
    slopes = np.linalg.solve(spread + flat * np.eye(3, dtype=np.float32), np.stack(together, -1))
    guide, result = picture.astype(np.float32) / 255, []
    for number, level in enumerate(levels):
        slope = np.ascontiguousarray(slopes[..., number])
        line = np.dstack([slope, level - (slope * middle).sum(-1)])
        line = cv2.resize(mean(line), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        result.append(np.einsum("ijk,ijk->ij", line[..., :3], guide) + line[..., 3])
    return np.stack(result)
