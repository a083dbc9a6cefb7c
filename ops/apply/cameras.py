"""Cameras that look at a head: orbits, turntables, and paths through key frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from models import camera
from ops.curate.camera import CROP_FOCAL
from ops.runtime.errors import LineamentError


def orbit(azimuth: float, elevation: float = 0.0, radius: float = camera.FFHQ_RADIUS, roll: float = 0.0) -> Tensor:
    """(1, 25) label of a camera that looks at the head's centre.

    Args:
        azimuth: degrees, 0 in front, positive on the subject's left.
        elevation: degrees above the horizon.
        radius: world units; 2.7 is that of the data.
        roll: degrees.
    """
    turn, rise, twist = (torch.tensor([math.radians(value)]) for value in (azimuth, elevation, roll))
    return camera.pack_label(camera.pose_on_sphere(turn, rise, radius, roll=twist), camera.intrinsics(CROP_FOCAL))


def turntable(frames: int, elevation: float = 0.0, radius: float = camera.FFHQ_RADIUS) -> Tensor:
    """(frames, 25): once around the head, from the front towards the subject's left; the last frame leads to the first.

    Raises:
        LineamentError: fewer than one frame.
    """
    if frames < 1:
        raise LineamentError(f"a turntable needs at least 1 frame, not {frames}.")
    return torch.cat([orbit(360 * i / frames, elevation, radius) for i in range(frames)])


def swing(frames: int, degrees: float, elevation: float = 0.0, radius: float = camera.FFHQ_RADIUS) -> Tensor:
    """(frames, 25): from the front to the subject's left, to the right and back; the last frame leads to the first.

    Raises:
        LineamentError: fewer than one frame.
    """
    if frames < 1:
        raise LineamentError(f"a video needs at least 1 frame, not {frames}.")
    turns = [degrees * math.sin(2 * math.pi * i / frames) for i in range(frames)]
    return torch.cat([orbit(turn, elevation, radius) for turn in turns])


@dataclass(frozen=True)
class Key:
    """A camera at a frame: angles in degrees, radius in world units."""

    frame: int
    azimuth: float
    elevation: float = 0.0
    radius: float = camera.FFHQ_RADIUS


def key_of(text: str) -> Key:
    """``FRAME:AZIMUTH[,ELEVATION[,RADIUS]]``, e.g. ``30:90,10``.

    Raises:
        LineamentError: it is written otherwise.
    """
    frame, _, rest = text.partition(":")
    try:
        values = [float(word) for word in rest.split(",")]
        if not 1 <= len(values) <= 3 or int(frame) < 0:
            raise ValueError
        key = Key(int(frame), *values)
    except ValueError:
        raise LineamentError(f"'{text}' is no key frame; write FRAME:AZIMUTH[,ELEVATION[,RADIUS]].") from None
    if not key.radius > 0:
        raise LineamentError(f"'{text}': the radius must be positive.")
    return key


def path(keys: Sequence[Key]) -> Tensor:
    """(last frame + 1, 25): a smooth path through key frames that overshoots none; azimuths may pass 360.

    Raises:
        LineamentError: fewer than two keys, or frames that do not grow.
    """
    frames = [key.frame for key in keys]
    if len(keys) < 2 or frames[0] != 0 or any(b <= a for a, b in pairwise(frames)):
        raise LineamentError("a path needs two key frames or more, the first at frame 0, each later than the last.")
    values = np.array([[key.azimuth, key.elevation, key.radius] for key in keys])
    smooth = PchipInterpolator(frames, values)(np.arange(frames[-1] + 1))
    return torch.cat([orbit(*row) for row in smooth.tolist()])
