"""The square around a head, as a face's camera gives it or as a network sees it, and the step from one to the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ops.curate import poses
from ops.curate.camera import CROP_FOCAL, angles, label_of
from ops.curate.crop import from_crop, quad_side, square_quad

VIEWS = ("front", "side", "back")


@dataclass(frozen=True)
class Square:
    """A head as both ways describe it: centre (2,) and side in pixels; lean in the picture and camera in degrees."""

    centre: np.ndarray
    side: float
    roll: float
    yaw: float
    pitch: float

    @property
    def quad(self) -> np.ndarray:
        """(4, 2) corners."""
        return square_quad(self.centre, self.side, np.deg2rad(self.roll))

    @property
    def down(self) -> np.ndarray:
        """(2,) unit vector from the crown to the chin in the picture."""
        lean = np.deg2rad(self.roll)
        return np.array([-np.sin(lean), np.cos(lean)])

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) camera-to-world in the picture, lean included."""
        yaw, pitch, roll = np.deg2rad([self.yaw, self.pitch, -self.roll]).tolist()
        return poses.on_sphere(yaw, pitch, roll=roll)[:3, :3]


@dataclass(frozen=True)
class Step:
    """The mean similarity from the network's squares to the true ones: a factor, and a shift down in sides.

    A mirrored picture must get the mirrored square, so there is no shift to the side and no turn.
    """

    scale: float = 1.0
    down: float = 0.0

    def __call__(self, square: Square) -> Square:
        shift = self.down * square.side * square.down
        return Square(square.centre + shift, square.side * self.scale, square.roll, square.yaw, square.pitch)


def mean_step(pairs: Iterable[tuple[Square, Square]]) -> Step:
    """The mean step from the first squares to the second, to a hundredth; none without pairs.

    Rounded, so that a few new pictures do not move the squares of all others, whose later labels then stand.
    """
    steps = [
        (np.log(true.side / seen.side), (true.centre - seen.centre) @ seen.down / seen.side) for seen, true in pairs
    ]
    if not steps:
        return Step()
    scale, down = np.mean(steps, axis=0)
    return Step(round(float(np.exp(scale)), 2), round(float(down), 2))


def square_of_face(quad: np.ndarray, camera: np.ndarray, distance: float) -> Square:
    """The head's square from a face's.

    Args:
        quad: (4, 2) FFHQ's square; camera: (25,) its label, at any distance; distance: the one measured.
    """
    pose, focal = camera[:16].reshape(4, 4).astype(np.float64), float(camera[16])
    eye = pose[:3, 3] / np.linalg.norm(pose[:3, 3])
    x, y, z = -distance * eye @ pose[:3, :3]
    centre = from_crop(np.array([x, y]) * focal / z + 0.5, quad)
    # Turn the camera straight to the head; what roll is left is how the head leans in FFHQ's square.
    towards = poses.look_at(eye, np.zeros(3))
    turned = pose.copy()
    turned[:3, :3] = _shortest(pose[:3, 2], -eye) @ pose[:3, :3]
    _, _, roll = angles(turned)
    yaw, pitch, _ = angles(towards)
    across = quad[3] - quad[0]
    lean = np.rad2deg(np.arctan2(across[1], across[0])) - roll
    return Square(centre, quad_side(quad) * poses.FFHQ_RADIUS / z, float(lean), yaw, pitch)


def _shortest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3, 3) the smallest rotation that takes unit vector a to b."""
    v, c = np.cross(a, b), float(a @ b)
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + c)


def camera_of(square: Square, scale: float) -> np.ndarray:
    """(25,) label of a square's crop: on the sphere of 2.7, looking at the head's centre, upright (eq. 8 and 9)."""
    yaw, pitch = np.deg2rad([square.yaw, square.pitch]).tolist()
    return label_of(poses.on_sphere(yaw, pitch), "fixed", CROP_FOCAL / scale)


def view_of(yaw: float) -> str:
    """front, side or back: 90 degrees each for front and back (WildHead.DatProc), both sides are one."""
    return VIEWS[int(abs(yaw) > 45) + int(abs(yaw) > 135)]
