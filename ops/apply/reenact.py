"""An avatar that does what a driver does: its expression, and its head's motion or a camera that stands still."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ops.apply.cameras import orbit
from ops.apply.driver import Driver, read_driver
from ops.apply.pictures import Film
from ops.apply.reenact_portrait import beside
from ops.apply.saved_avatars import load_avatar
from ops.runtime.progress import Reporter
from ops.store.clips import decode_clip
from ops.store.sound import lay_sound

LEAST = 256  # pixels a side of a video's picture: small networks' ones are enlarged


def reenact(arguments: argparse.Namespace) -> int:
    """``lineament reenact``: a video of an avatar with a driver's expressions."""
    avatar = load_avatar(arguments.avatar, arguments.prior, arguments.device, priors=arguments.priors)
    driver = read_driver(arguments.driver, arguments.weights)
    cameras = cameras_of(driver, arguments.camera, arguments.azimuth, arguments.elevation)
    shown = _frames(arguments.driver, driver) if driver.frames is not None and not arguments.alone else None
    with Film(arguments.out, arguments.rate or driver.rate) as film:
        for n in Reporter("reenact").progress(range(len(driver)), unit="frame"):
            picture = avatar.picture(torch.from_numpy(driver.expressions[n : n + 1]), cameras[n : n + 1])
            side = max(LEAST, picture.shape[0])
            picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)
            film.add(picture if shown is None else beside(next(shown), picture))
    words = ""
    if driver.frames is not None:
        silent = lay_sound(arguments.driver, arguments.out, driver.frames[0] / driver.rate)
        words = f", without sound: {silent}" if silent else ", with sound"
    print(f"{arguments.out}: {len(driver)} frames{words}")
    return 0


def cameras_of(driver: Driver, camera: str, azimuth: float = 0.0, elevation: float = 0.0) -> Tensor:
    """(F, 25) cameras: the driver's (``free``: the head moves as the driver's does), or one that stands (``fixed``).

    A driver without cameras always gets one that stands.
    """
    if camera == "free" and driver.cameras is not None:
        return torch.from_numpy(driver.cameras)
    if camera == "free":
        print("mind: the driver says nothing of its head's motion; the camera stands still")
    return orbit(azimuth, elevation).expand(len(driver), -1)


def _frames(clip: Path, driver: Driver) -> Iterator[np.ndarray]:
    """The driver's own pictures, in order."""
    assert driver.frames is not None
    wanted = set(driver.frames)
    return (image for n, image in enumerate(decode_clip(clip.read_bytes())) if n in wanted)
