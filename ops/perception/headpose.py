"""Where a head is and how it is turned, seen from any side: look, then look closer.

Each look is through a square window; the next window is centred on the head that was found, upright with it and half
as large again, so that after a few looks the network sees what it knows best. Every look is taken twice, at the window
and at its mirror image, and the two answers are averaged: the label of a mirrored picture is the mirrored label, and
how far the two were apart says how sure the label is (SphereHead App. 0.B vets labels by flipping).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.headpose import HeadPose
from ops.curate.crop import crop_quad, square_quad
from ops.curate.poses import on_sphere, rotation_angle

ZOOM = 1.3  # side of a window by that of the head's square; unpublished: our choice
MIRROR = np.array([1, -1, 1, 1, -1, 1, 1, -1], np.float32)  # an answer times this is the mirrored window's
TOGETHER = 32  # windows and mirror images through the network at once: faster than two by two, and memory stays small
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
    """Find the head in a picture; see look_together."""
    return look_together([(image, start)], network, looks)[0]


def look_together(
    pictures: Sequence[tuple[np.ndarray, np.ndarray | None]], network: HeadPose, looks: int = LOOKS
) -> list[Head]:
    """Find one head in each of some pictures; together they take half the time that they take one by one.

    Args:
        pictures: (H, W, 3) uint8 RGB each, with the (4, 2) window of the first look; where that is None, squares over
            the whole picture, of which the one with the likeliest head counts.
        network: in evaluation mode.
        looks: how often to look.

    Returns:
        the head of each, wherever it is likeliest; ``presence`` says how likely.
    """
    starts = [first_windows(*image.shape[1::-1]) if start is None else [start] for image, start in pictures]
    images = [image for image, _ in pictures]
    first = iter(_see([(image, quad) for image, quads in zip(images, starts) for quad in quads], network))
    heads = [max((next(first) for _ in quads), key=lambda head: head.presence) for quads in starts]
    for _ in range(looks - 1):
        quads = [square_quad(head.centre, head.side * ZOOM, np.deg2rad(head.roll)) for head in heads]
        heads = _see(list(zip(images, quads)), network)
    return heads


def first_windows(width: int, height: int) -> list[np.ndarray]:
    """Squares for the first look: the whole picture, and where it is long, its upper (left, right) square too."""
    middle, short = np.array([width, height]) / 2, float(min(width, height))
    squares = [square_quad(middle, float(max(width, height)))]
    if height > 1.25 * width:
        squares.append(square_quad(np.array([width / 2, short / 2]), short))
    if width > 1.25 * height:
        squares += [square_quad(np.array([x, height / 2]), short) for x in (short / 2, width / 2, width - short / 2)]
    return squares


def _see(windows: list[tuple[np.ndarray, np.ndarray]], network: HeadPose) -> list[Head]:
    """One look through each window (picture, corners), and one through its mirror image."""
    crops = [crop_quad(image, quad, network.config.side) for image, quad in windows]
    pairs = np.stack([view for crop in crops for view in (crop, crop[:, ::-1])])
    with torch.inference_mode():
        some = torch.from_numpy(pairs).permute(0, 3, 1, 2).split(TOGETHER)
        answers = torch.cat([network(part.float() / 127.5 - 1) for part in some])
    seen = answers.double().numpy().reshape(len(windows), 2, 8) * np.stack([np.ones(8), MIRROR])
    return [_head(quad, pair) for (_, quad), pair in zip(windows, seen)]


def _head(quad: np.ndarray, seen: np.ndarray) -> Head:
    """What two answers (2, 8), the second one turned back from the mirror, say of a window."""
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
    _, _, _, _, sin, cos, elevation, roll = answer.tolist()
    return on_sphere(math.atan2(sin, cos), elevation, roll=-roll)[:3, :3]
