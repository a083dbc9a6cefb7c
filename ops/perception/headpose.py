"""Where a head is and how it is turned, seen from any side: look, then look closer.

Each look is through a square window; the next window is centred on the head that was found, upright with it and half
as large again, so that after a few looks the network sees what it knows best. Every look is taken twice, at the window
and at its mirror image, and the two answers are averaged: the label of a mirrored picture is the mirrored label, and
how far the two were apart says how sure the label is (SphereHead App. 0.B vets labels by flipping).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from models.camera import pose_on_sphere
from models.headpose import HeadPose
from ops.curate.crop import crop_quad, square_quad

ZOOM = 1.3  # side of a window by that of the head's square; unpublished: our choice
MIRROR = np.array([1, -1, 1, 1, -1, 1, 1, -1], np.float32)  # an answer times this is the mirrored window's
LOOKS = 4  # the first and three to de-roll, as WildHead.DatProc has them


@dataclass(frozen=True)
class Head:
    """A head in a picture.

    Attributes:
        centre: (2,) pixels; side: of its square, pixels; roll: degrees it leans clockwise.
        azimuth, elevation: of the camera about the head, degrees.
        presence: probability that there is a head.
        flip_error: degrees between the last look's rotation and that of its mirror image.
    """

    centre: np.ndarray
    side: float
    roll: float
    azimuth: float
    elevation: float
    presence: float
    flip_error: float

    @property
    def quad(self) -> np.ndarray:
        """(4, 2) corners of the square that stands upright with the head."""
        return square_quad(self.centre, self.side, np.deg2rad(self.roll))


def look(image: np.ndarray, network: HeadPose, start: np.ndarray | None = None, looks: int = LOOKS) -> Head:
    """Find the head in a picture.

    Args:
        image: (H, W, 3) uint8 RGB.
        network: in evaluation mode.
        start: (4, 2) window of the first look; squares over the whole picture if not given, of which the one with the
            likeliest head counts.
        looks: how often to look.

    Returns:
        the head, wherever it is likeliest; ``presence`` says how likely.
    """
    quads = [start] if start is not None else first_windows(*image.shape[1::-1])
    head = max((_see(image, network, quad) for quad in quads), key=lambda h: h.presence)
    for _ in range(looks - 1):
        head = _see(image, network, square_quad(head.centre, head.side * ZOOM, np.deg2rad(head.roll)))
    return head


def first_windows(width: int, height: int) -> list[np.ndarray]:
    """Squares for the first look: the whole picture, and where it is long, its upper (left, right) square too."""
    middle, short = np.array([width, height]) / 2, float(min(width, height))
    squares = [square_quad(middle, float(max(width, height)))]
    if height > 1.25 * width:
        squares.append(square_quad(np.array([width / 2, short / 2]), short))
    if width > 1.25 * height:
        squares += [square_quad(np.array([x, height / 2]), short) for x in (short / 2, width / 2, width - short / 2)]
    return squares


def _see(image: np.ndarray, network: HeadPose, quad: np.ndarray) -> Head:
    """One look through a window, and one through its mirror image."""
    crop = crop_quad(image, quad, network.config.side)
    pair = torch.from_numpy(np.stack([crop, crop[:, ::-1]])).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        answers = network(pair)
    seen = answers.double().numpy() * np.stack([np.ones(8), MIRROR])
    presence, x, y, size, sin, cos, elevation, roll = seen.mean(0)
    across, down = quad[3] - quad[0], quad[1] - quad[0]
    side = float(np.hypot(*across))
    return Head(
        centre=quad.mean(0) + x * across + y * down,
        side=side * float(np.exp(np.clip(size, -2.5, 1.0))),
        roll=float(np.rad2deg(roll + np.arctan2(across[1], across[0]))),
        azimuth=float(np.rad2deg(np.arctan2(sin, cos))),
        elevation=float(np.rad2deg(np.clip(elevation, -np.pi / 2, np.pi / 2))),
        presence=float(1 / (1 + np.exp(-presence))),
        flip_error=rotation_angle(*(_rotation(answer) for answer in seen)),
    )


def _rotation(answer: np.ndarray) -> np.ndarray:
    _, _, _, _, sin, cos, elevation, roll = torch.from_numpy(answer)
    return pose_on_sphere(torch.atan2(sin, cos), elevation, roll=-roll)[:3, :3].numpy()


def rotation_angle(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees between two (3, 3) rotations."""
    return float(np.rad2deg(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1))))
