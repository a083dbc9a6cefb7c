"""Camera poses of single pictures in numpy: what labelling needs of models.camera, without torch.

Torch takes longer to load than a label table to make, and its calls cost more than the arithmetic of one pose. Frames,
angles and labels are those of models.camera, to which tests hold these functions.
"""

from __future__ import annotations

import math

import numpy as np

FFHQ_FOCAL, FFHQ_RADIUS = 2985.29 / 700, 2.7  # as in models.camera


def intrinsics(focal: float) -> np.ndarray:
    """(3, 3) normalised intrinsics of a focal length in units of the picture's side."""
    return np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])


def look_at(origin: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """(4, 4) camera-to-world at ``origin`` (3,), looking at ``target`` (3,), up in the picture being y.

    Straight above or below the target, world +z takes the part of "up". ``roll``: radians, clockwise about the axis.
    """
    forward = _unit(np.asarray(target, np.float64) - origin)
    up = np.array([0.0, 0.0, 1.0] if abs(forward[1]) > 1 - 1e-6 else [0.0, 1.0, 0.0])
    right = _unit(_cross(forward, up))
    down = _cross(forward, right)
    cos, sin = math.cos(roll), math.sin(roll)
    pose = np.eye(4)
    pose[:3] = np.stack([cos * right + sin * down, cos * down - sin * right, forward, origin], axis=1)
    return pose


def on_sphere(azimuth: float, elevation: float, radius: float = FFHQ_RADIUS, roll: float = 0.0) -> np.ndarray:
    """(4, 4) camera-to-world on the sphere about the origin, looking at it; angles in radians."""
    away = [math.cos(elevation) * math.sin(azimuth), math.sin(elevation), math.cos(elevation) * math.cos(azimuth)]
    return look_at(radius * np.array(away), np.zeros(3), roll)


def pack(pose: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(25,) label of a (4, 4) pose and (3, 3) intrinsics.

    Raises:
        ValueError: the pose is no rotation and shift, or a number is not finite.
    """
    rotation = pose[:3, :3]
    label = np.concatenate([pose.ravel(), matrix.ravel()])
    rigid = np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-3 and np.linalg.det(rotation) > 0
    if not (np.isfinite(label).all() and rigid and np.abs(pose[3] - [0, 0, 0, 1]).max() < 1e-3):
        raise ValueError(f"a camera's pose should be a rotation and a shift, not {pose.tolist()}")
    return label


def project(label: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(P, 2) places (u, v) of world points (P, 3) in the picture of a label (25,), [0, 1] inside it."""
    pose, matrix = label[:16].reshape(4, 4).astype(np.float64), label[16:].reshape(3, 3)
    seen = (points - pose[:3, 3]) @ pose[:3, :3]
    return (seen / seen[:, 2:] @ matrix.T)[:, :2]


def rotation_angle(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees between two (3, 3) rotations."""
    return math.degrees(math.acos(min(max((np.trace(a.T @ b) - 1) / 2, -1.0), 1.0)))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / math.sqrt(vector @ vector)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """np.cross is ten times as slow for two vectors."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
