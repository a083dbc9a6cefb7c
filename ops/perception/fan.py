"""68 face landmarks with the networks of face-alignment (2DFAN4, 3DFAN4), for users who have their weights.

The architecture comes from the package ``face-alignment``, the weights from the user; the crop and the reading of the
heat maps follow Bulat and Tzimiropoulos: 256 pixels in, 68 maps of 64 out, their peaks moved a quarter towards the
higher neighbour.
"""

from __future__ import annotations

import pickle
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ops.curate.crop import crop_quad, from_crop, square_quad
from ops.runtime.errors import LineamentError
from ops.runtime.weights import require

COUNT = 68
SIDE, MAP = 256, 64
RISE = 0.12  # face-alignment: the crop's centre lies above the box's by this share of its height
AROUND = 200 / 195 * 2  # face-alignment: side of the crop by the box's
FACE_BY_BLAZE = (
    1.2  # BlazeFace's box ends at the brows, where face-alignment's own detector takes in the forehead; ours
)


@lru_cache(maxsize=2)
def fan(name: str) -> nn.Module:
    """The registered network ``fan_2d`` or ``fan_3d``, loaded once a process.

    Raises:
        LineamentError: the weights are not there, or are none of this architecture.
    """
    return load_fan(require(name))


def load_fan(path: Path) -> nn.Module:
    """A network of face-alignment's class from a file of tensors; as many modules as the file holds."""
    from face_alignment.models import FAN

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        modules = len({m[1] for key in state if (m := re.match(r"m(\d+)\.", key))})
        network = FAN(modules)
        network.load_state_dict(state)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, TypeError, AttributeError) as error:
        text = str(error).splitlines()[0]
        raise LineamentError(f"{path}: not the weights of a face-alignment network ({text}).") from None
    return network.eval()


def fan_landmarks(image: np.ndarray, box: np.ndarray, network: nn.Module) -> tuple[np.ndarray, float]:
    """Landmarks of a detected face.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) BlazeFace's, pixels.
        network: (1, 3, 256, 256) in [0, 1] to a list of heat maps (1, 68, 64, 64), the last of which counts.

    Returns:
        (68, 3) float32 pixels, z 0; and the mean height of the maps' peaks, in [0, 1].
    """
    high = box[3] - box[1]
    side = float((box[2:] - box[:2]).mean()) * AROUND * FACE_BY_BLAZE
    quad = square_quad((box[:2] + box[2:]) / 2 - [0, RISE * high], side)
    crop = torch.from_numpy(crop_quad(image, quad, SIDE)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        maps = network(crop)[-1][0].numpy()
    places, peaks = read_maps(maps)
    points = from_crop(places, quad)
    return np.concatenate([points, np.zeros((COUNT, 1))], axis=1).astype(np.float32), float(np.clip(peaks, 0, 1).mean())


def read_maps(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(68, S, S) heat maps to (68, 2) crop coordinates (u, v) in [0, 1] and (68,) heights of the peaks."""
    count, side, _ = maps.shape
    best = maps.reshape(count, -1).argmax(1)
    y, x = np.divmod(best, side)
    number = np.arange(count)
    places = np.stack([x, y], axis=1).astype(np.float64)
    inner = (x > 0) & (x < side - 1) & (y > 0) & (y < side - 1)
    n, xi, yi = number[inner], x[inner], y[inner]
    slope = np.stack([maps[n, yi, xi + 1] - maps[n, yi, xi - 1], maps[n, yi + 1, xi] - maps[n, yi - 1, xi]], axis=1)
    places[inner] += 0.25 * np.sign(slope)
    return (places + 0.5) / side, maps[number, y, x]
