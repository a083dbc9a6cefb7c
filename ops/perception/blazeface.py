"""Face detection with BlazeFace: boxes and six key points.

Facts of the networks (mediapipe, modules/face_detection): the full-range one sees 192 x 192 pixels and has one anchor
at each of 48 x 48 cells; the short-range one sees 128 x 128 and has two anchors at 16 x 16 cells and six at 8 x 8.
Anchors have no size; box and points are offsets in input pixels from the cell's centre. Scores are logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from ops.perception.networks import network, sigmoid

POINTS = ("right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear")  # the subject's right and left
_GRIDS = {"blazeface_full_range": ((48, 1),), "blazeface_short_range": ((16, 2), (8, 6))}


@dataclass(frozen=True)
class Face:
    """One face, in pixels of the picture.

    Attributes:
        box: (x0, y0, x1, y1).
        points: (6, 2) key points, see POINTS.
        score: in [0, 1].
    """

    box: np.ndarray
    points: np.ndarray
    score: float

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return float(np.prod(np.maximum(self.box[2:] - self.box[:2], 0)))


@lru_cache
def _centres(name: str) -> np.ndarray:
    """(A, 2) cell centres in units of the input's side."""
    grids = []
    for cells, anchors in _GRIDS[name]:
        y, x = np.mgrid[:cells, :cells]
        grids.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2) + 0.5, anchors, axis=0) / cells)
    return np.concatenate(grids).astype(np.float32)


def detect(image: np.ndarray, weights: Path, name: str, min_score: float, max_overlap: float) -> list[Face]:
    """Faces in a picture, the highest score first.

    Args:
        image: (H, W, 3) uint8 RGB.
        weights: folder of the stage ``weights``.
        name: ``blazeface_full_range`` or ``blazeface_short_range``.
        min_score: faces below are dropped.
        max_overlap: of two boxes that overlap more (intersection over union), the better one stays.
    """
    net = network(name, weights)
    height, width = image.shape[:2]
    side = max(height, width)
    scale = net.side / side
    small = cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    square = np.zeros((net.side, net.side, 3), np.float32)
    top, left = (net.side - small.shape[0]) // 2, (net.side - small.shape[1]) // 2
    square[top : top + small.shape[0], left : left + small.shape[1]] = small / 127.5 - 1
    regressors, logits = sorted(net(square), key=lambda output: -output.shape[-1])
    scores = sigmoid(logits[:, 0])
    chosen = np.flatnonzero(scores >= min_score)
    if not len(chosen):
        return []
    values = regressors[chosen].reshape(len(chosen), 8, 2) / net.side
    centres = _centres(name)[chosen]
    middle, size = values[:, 0] + centres, values[:, 1]
    points = values[:, 2:] + centres[:, None]
    boxes = np.stack([middle - size / 2, middle + size / 2], axis=1)
    offset = np.array([left, top], np.float32)
    boxes, points = ((v * net.side - offset) / scale for v in (boxes, points))
    faces = []
    for index in _best(boxes.reshape(-1, 4), scores[chosen], max_overlap):
        faces.append(Face(boxes[index].reshape(4), points[index], float(scores[chosen][index])))
    return faces


def _best(boxes: np.ndarray, scores: np.ndarray, max_overlap: float) -> list[int]:
    """Non-maximum suppression: indices of the boxes that stay, best first."""
    left = np.argsort(-scores, kind="stable")
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    stay = []
    while len(left):
        best, left = left[0], left[1:]
        stay.append(int(best))
        inner = np.minimum(boxes[left, 2:], boxes[best, 2:]) - np.maximum(boxes[left, :2], boxes[best, :2])
        shared = np.prod(np.maximum(inner, 0), axis=1)
        left = left[shared <= max_overlap * (area[left] + area[best] - shared)]
    return stay
