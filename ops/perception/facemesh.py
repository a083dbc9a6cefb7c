"""468 face landmarks with FaceMesh, in a region that turns with the head."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import cv2
import numpy as np

from ops.perception.networks import network, sigmoid

COUNT = 468
RIGHT_EYE = (33, 133)  # outer and inner corner of the subject's right eye
LEFT_EYE = (263, 362)
MOUTH = (61, 291)  # the subject's right and left corner
ROI_SCALE = 1.5  # mediapipe, modules/face_landmark: the region is the box, half as large again


@dataclass(frozen=True)
class Region:
    """A turned square in the picture: centre (x, y), side in pixels, angle in radians (x axis towards y)."""

    centre: np.ndarray
    side: float
    angle: float

    @property
    def matrix(self) -> np.ndarray:
        """(2, 3) affine map from the unit square to the picture."""
        c, s = np.cos(self.angle) * self.side, np.sin(self.angle) * self.side
        turn = np.array([[c, -s], [s, c]])
        return np.concatenate([turn, (self.centre - turn @ [0.5, 0.5])[:, None]], axis=1)


def region_of_face(box: np.ndarray, points: np.ndarray) -> Region:
    """The region to look at, from a detection's box and key points."""
    right, left = points[0], points[1]
    angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
    return Region((box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max()) * ROI_SCALE, angle)


def region_of_landmarks(points: np.ndarray) -> Region:
    """The region to look at, from landmarks (468, 2 or 3)."""
    flat = points[:, :2]
    eye = flat[LEFT_EYE[0]] - flat[RIGHT_EYE[0]]
    angle = float(np.arctan2(eye[1], eye[0]))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = flat @ turn.T
    low, high = upright.min(0), upright.max(0)
    return Region((low + high) / 2 @ turn, float((high - low).max()) * ROI_SCALE, angle)


@lru_cache(maxsize=1)
def canonical_points() -> np.ndarray:
    """(468, 3) where FaceMesh sees its points on the mean head, world units; read only."""
    text = resources.files("models.parametric").joinpath("facemesh_canonical.json").read_text(encoding="utf-8")
    points = np.array(json.loads(text), np.float64)
    points.flags.writeable = False
    return points


@lru_cache(maxsize=1)
def mirrored() -> np.ndarray:
    """(468,) index of each landmark's mirror image."""
    points = canonical_points()  # symmetric, so a point's pair is what is nearest to its mirror image
    return np.linalg.norm(points[:, None] - points * [-1, 1, 1], axis=-1).argmin(1)


def landmarks_twice(image: np.ndarray, region: Region, weights: Path) -> tuple[np.ndarray, float]:
    """The mean of what the picture and its mirror image show: their errors are partly each other's opposite."""
    width = image.shape[1]
    flipped = Region(np.array([width - region.centre[0], region.centre[1]]), region.side, -region.angle)
    points, score = landmarks(image, region, weights)
    other, other_score = landmarks(np.ascontiguousarray(image[:, ::-1]), flipped, weights)
    other = (other * np.array([-1, 1, 1], np.float32) + np.array([width, 0, 0], np.float32))[mirrored()]
    return (points + other) / 2, (score + other_score) / 2


def landmarks(image: np.ndarray, region: Region, weights: Path) -> tuple[np.ndarray, float]:
    """Landmarks of the face in a region.

    Args:
        image: (H, W, 3) uint8 RGB.
        region: where the face is.
        weights: folder of the stage ``weights``.

    Returns:
        (468, 3) float32: x, y in pixels of the picture, z in the same scale (smaller is nearer); and the probability
        that there is a face.
    """
    net = network("facemesh", weights)
    # Sample at the centres of the network's pixels.
    to_unit = np.array([[1 / net.side, 0, 0.5 / net.side], [0, 1 / net.side, 0.5 / net.side], [0, 0, 1]])
    matrix = region.matrix @ to_unit
    matrix[:, 2] -= 0.5
    shrink = region.side / net.side
    source = image
    if shrink > 2:  # a plain warp would skip pixels
        factor = 1 / shrink
        source = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        actual = np.array([source.shape[1] / image.shape[1], source.shape[0] / image.shape[0]])
        matrix = matrix * actual[:, None]
        matrix[:, 2] += 0.5 * actual - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(source, matrix, (net.side, net.side), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    outputs = sorted(net(patch.astype(np.float32) / 255), key=lambda output: -output.size)
    unit = outputs[0].reshape(COUNT, 3) / net.side
    flat = unit[:, :2] @ region.matrix[:, :2].T + region.matrix[:, 2]
    points = np.concatenate([flat, unit[:, 2:] * region.side], axis=1).astype(np.float32)
    return points, float(sigmoid(outputs[1].reshape(-1)[0]))
