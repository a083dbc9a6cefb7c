"""Multi-view strips: one object a row, one angle a column, as Figures 4 to 6 of the AamNCE paper."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

HEADER = 26  # pixels above the columns for the angles


def strip(images: np.ndarray, angles: Sequence[float], tile: int = 128, gap: int = 2) -> np.ndarray:
    """Objects in rows, angles in columns with their degrees above, on white.

    Args:
        images: (N, A, H, H, 3) uint8.
        angles: A degrees.
        tile: side of each picture in the strip.
        gap: white pixels between them.

    Returns:
        (HEADER + N tiles, A tiles, 3) uint8.
    """
    rows, columns = images.shape[:2]
    step = tile + gap
    sheet = np.full((HEADER + rows * step - gap, columns * step - gap, 3), 255, np.uint8)
    shrinks = images.shape[2] > tile
    for row in range(rows):
        for column in range(columns):
            way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            picture = cv2.resize(images[row, column], (tile, tile), interpolation=way)
            top, left = HEADER + row * step, column * step
            sheet[top : top + tile, left : left + tile] = picture
    for column, angle in enumerate(angles):
        text = f"{angle:+g}" if angle else "0"
        (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        place = (column * step + (tile - width) // 2, HEADER - 8)
        cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (60, 60, 60), 1, cv2.LINE_AA)
    return sheet
