"""Head boxes with a YOLO network that the user supplies (SphereHead App. 0.B; WildHead.DatProc's is 640 x 480).

Both common layouts of the output are read: rows of (batch, class, score, x0, y0, x1, y1) from an export with its own
suppression, and rows of (x, y, width, height, objectness, class scores …) from one without.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ops.perception.onnx import onnx_network
from ops.runtime.errors import LineamentError

SIZE = (640, 480)  # WildHead.DatProc: what its network sees, width and height
MIN_SCORE, MAX_OVERLAP = 0.5, 0.5  # WildHead.DatProc
ENLARGED = 1.2  # WildHead.DatProc: the square around a box


def head_boxes(image: np.ndarray, path: Path, size: tuple[int, int] = SIZE) -> list[tuple[np.ndarray, float]]:
    """Heads in a picture, the largest first.

    Args:
        image: (H, W, 3) uint8 RGB.
        path: the ONNX file.
        size: width and height that the network takes.

    Returns:
        ((x0, y0, x1, y1) pixels, score) each.

    Raises:
        LineamentError: no such network, or an output in neither layout.
    """
    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    small = cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    left, top = (size[0] - small.shape[1]) // 2, (size[1] - small.shape[0]) // 2
    canvas = np.full((size[1], size[0], 3), 114, np.uint8)  # the grey of YOLO's letter box
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    (rows, *_) = onnx_network(path)(canvas.transpose(2, 0, 1)[None] / 255)
    boxes, scores = _boxes(rows.reshape(-1, rows.shape[-1]), path)
    boxes = (boxes - np.tile([left, top], 2)) / scale
    keep = cv2.dnn.NMSBoxes(
        [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in boxes.tolist()], scores.tolist(), MIN_SCORE, MAX_OVERLAP
    )
    found = [(boxes[i], float(scores[i])) for i in np.asarray(keep, int).ravel()]
    return sorted(found, key=lambda head: -float(np.prod(head[0][2:] - head[0][:2])))


def square_of_box(box: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (2,) and side of the square around a box."""
    return (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max()) * ENLARGED


def _boxes(rows: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    if rows.shape[1] == 7:
        return rows[:, 3:7].astype(np.float64), rows[:, 2].astype(np.float64)
    if rows.shape[1] < 5:
        raise LineamentError(f"{path}: its output has {rows.shape[1]} columns: neither layout of YOLO's head boxes.")
    classes = rows[:, 5:].max(1) if rows.shape[1] > 5 else 1.0
    middle, half = rows[:, :2].astype(np.float64), rows[:, 2:4].astype(np.float64) / 2
    return np.concatenate([middle - half, middle + half], axis=1), (rows[:, 4] * classes).astype(np.float64)
