"""Contact sheets and histograms: what a person wants to see of a step."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

TILE = 120
CAPTION = 16
BACKGROUND = 250


def contact_sheet(
    images: Sequence[np.ndarray], captions: Sequence[str] | None = None, columns: int = 8, tile: int = TILE
) -> np.ndarray:
    """Pictures of any size in a grid, each with a caption below.

    Args:
        images: (H, W, 3) uint8 RGB each.
        captions: as many words, cut where they do not fit.
        columns: of the grid.
        tile: side of a picture in the grid, pixels.

    Returns:
        (rows * (tile + 16), columns * tile, 3) uint8.
    """
    captions = captions or [""] * len(images)
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    sheet = np.full((rows * (tile + CAPTION), columns * tile, 3), BACKGROUND, np.uint8)
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        top, left = number // columns * (tile + CAPTION), number % columns * tile
        scale = (tile - 4) / max(image.shape[:2])
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        y, x = top + (tile - size[1]) // 2, left + (tile - size[0]) // 2
        sheet[y : y + size[1], x : x + size[0]] = small
        cell = np.ascontiguousarray(sheet[top + tile : top + tile + CAPTION, left : left + tile])
        cv2.putText(cell, caption[:20], (3, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.32, (40, 40, 40), 1, cv2.LINE_AA)
        sheet[top + tile : top + tile + CAPTION, left : left + tile] = cell
    return sheet


def draw_points(image: np.ndarray, points: np.ndarray, colour: tuple[int, int, int] = (0, 255, 120)) -> np.ndarray:
    """A copy of the picture with (P, 2) points marked."""
    canvas = image.copy()
    radius = max(1, round(max(image.shape[:2]) / 300))
    for x, y in np.rint(points).astype(int).tolist():
        cv2.circle(canvas, (x, y), radius, colour, -1, cv2.LINE_AA)
    return canvas


def draw_polygon(image: np.ndarray, corners: np.ndarray, colour: tuple[int, int, int] = (255, 80, 40)) -> np.ndarray:
    """A copy of the picture with the closed line through (P, 2) corners."""
    canvas = image.copy()
    width = max(1, round(max(image.shape[:2]) / 200))
    cv2.polylines(canvas, [np.rint(corners).astype(np.int32)], True, colour, width, cv2.LINE_AA)
    return canvas
