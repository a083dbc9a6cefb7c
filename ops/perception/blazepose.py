"""33 points of a person with BlazePose: a detector finds the body's frame, a second network the points in it.

Facts of the networks (mediapipe, modules/pose_detection and pose_landmark): the detector sees 224 x 224 pixels and has
two anchors at 28 x 28 and 14 x 14 cells and six at 7 x 7; its boxes are faces; of its four key points the first is the
middle of the hips and the second lies on the circle around the whole body. The landmarker's square is 1.25 times that
circle's box, turned so that the body stands upright.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from ops.perception.facemesh import Region
from ops.perception.networks import network, sigmoid

COUNT = 33
NAMES = ("left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow")  # the subject's sides
INDEX = dict(zip(NAMES, (7, 8, 11, 12, 13, 14), strict=True))
# Each point's mirror image: nose, eyes, ears and mouth, then pairs from the shoulders to the feet.
MIRROR = np.array([0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(i + 1 if i % 2 else i - 1 for i in range(11, COUNT))])
ROI_SCALE = 1.25  # mediapipe, pose_detection_to_roi
_GRIDS = ((28, 2), (14, 2), (7, 6))


@dataclass(frozen=True)
class Pose:
    """One person.

    Attributes:
        points: (33, 2) pixels of the picture.
        world: (33, 3) metres about the middle of the hips, in the camera's axes (x right, y down, z away).
        visibility: (33,) in [0, 1].
        score: that there is a person, in [0, 1].
    """

    points: np.ndarray
    world: np.ndarray
    visibility: np.ndarray
    score: float


@lru_cache
def _centres() -> np.ndarray:
    """(2254, 2) cell centres in units of the input's side."""
    grids = []
    for cells, anchors in _GRIDS:
        y, x = np.mgrid[:cells, :cells]
        grids.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2) + 0.5, anchors, axis=0) / cells)
    return np.concatenate(grids)


def find_body(
    image: np.ndarray, weights: Path, min_score: float, face: tuple[np.ndarray, float] | None = None
) -> Region | None:
    """The square around the likeliest person, turned upright; None where none scores ``min_score``.

    Args:
        image: (H, W, 3) uint8 RGB.
        weights: folder of the stage ``weights``.
        min_score: in [0, 1].
        face: centre (2,) and radius in pixels of where the person's face must be; anywhere if not given.
    """
    net = network("blazepose_detection", weights)
    height, width = image.shape[:2]
    side = max(height, width)
    offset = np.array([side - width, side - height]) / 2
    to_input = np.array([[1.0, 0, offset[0]], [0, 1, offset[1]]]) * net.side / side
    small = cv2.warpAffine(image, to_input, (net.side, net.side), flags=cv2.INTER_AREA)
    regressors, logits = sorted(net(small.astype(np.float32) / 127.5 - 1), key=lambda output: -output.shape[-1])
    scores = sigmoid(logits[:, 0])
    if face is not None:
        faces = (regressors[:, :2] / net.side + _centres()) * side - offset
        scores = np.where(np.hypot(*(faces - face[0]).T) <= face[1], scores, 0)
    best = int(scores.argmax())
    if scores[best] < min_score:
        return None
    points = (regressors[best, 4:8].reshape(2, 2) / net.side + _centres()[best]) * side - offset
    hips, rim = points
    along = rim - hips
    return Region(hips, 2 * float(np.hypot(*along)) * ROI_SCALE, float(np.arctan2(along[0], -along[1])))


def find_points(image: np.ndarray, region: Region, weights: Path) -> Pose:
    """The points of the person in a region.

    Args:
        image: (H, W, 3) uint8 RGB.
        region: of :func:`find_body`.
        weights: folder of the stage ``weights``.
    """
    net = network("blazepose_landmarks", weights)
    to_unit = np.array([[1 / net.side, 0, 0.5 / net.side], [0, 1 / net.side, 0.5 / net.side], [0, 0, 1]])
    matrix = region.matrix @ to_unit
    matrix[:, 2] -= 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(image, matrix, (net.side, net.side), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    outputs = {output.size: output for output in net(patch.astype(np.float32) / 255)}
    flat = outputs[195].reshape(39, 5)[:COUNT]
    world = outputs[117].reshape(39, 3)[:COUNT].astype(np.float64)
    points = flat[:, :2].astype(np.float64) / net.side @ region.matrix[:, :2].T + region.matrix[:, 2]
    turn = region.matrix[:, :2] / region.side
    world[:, :2] = world[:, :2] @ turn.T
    return Pose(points, world, sigmoid(flat[:, 3].astype(np.float64)), float(outputs[1].reshape(-1)[0]))


def find_points_twice(image: np.ndarray, region: Region, weights: Path) -> Pose:
    """The mean of what the picture and its mirror image show: the network takes left and right sides unlike."""
    width = image.shape[1]
    centre = np.array([width - region.centre[0], region.centre[1]])
    first = find_points(image, region, weights)
    other = find_points(np.ascontiguousarray(image[:, ::-1]), Region(centre, region.side, -region.angle), weights)
    return Pose(
        (first.points + (other.points * [-1, 1] + [width, 0])[MIRROR]) / 2,
        (first.world + (other.world * [-1, 1, 1])[MIRROR]) / 2,
        (first.visibility + other.visibility[MIRROR]) / 2,
        (first.score + other.score) / 2,
    )
