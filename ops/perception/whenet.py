"""How a head is turned, by a WHENet that the user supplies as ONNX (SphereHead App. 0.B: views from behind).

Facts of the network (Zhou and Gregson, 2020): 224 x 224 pixels, RGB, ImageNet's mean and deviation; three outputs, the
yaw's 120 classes of 3 degrees from -180 on, and the 66 of pitch and of roll from -99 on, whose mean by softmax is the
angle. Yaw and pitch are those of the nose, to the left and up in the picture; roll is clockwise.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from ops.curate.crop import crop_quad, square_quad
from ops.curate.poses import on_sphere, rotation_angle
from ops.perception.headpose import LOOKS, ZOOM, Head
from ops.perception.onnx import IMAGENET, onnx_network
from ops.runtime.errors import LineamentError

SIDE, BIN = 224, 3.0
CLASSES = (120, 66, 66)


def turned_head(image: np.ndarray, head: Head, path: Path, looks: int = LOOKS) -> Head:
    """A head with the angles that WHENet sees; where it is and how large stays as it was found.

    Each look stands upright with the head as the look before saw it, and is taken at its mirror image too, so that the
    label of the mirrored picture is the mirrored label.

    Args:
        image: (H, W, 3) uint8 RGB.
        head: as found.
        path: the ONNX file.
        looks: how often to look; all but the first take the lean out.

    Raises:
        LineamentError: no such network, or one of another interface.
    """
    for _ in range(looks):
        quad = square_quad(head.centre, head.side * ZOOM, np.deg2rad(head.roll))
        crop = crop_quad(image, quad, SIDE)
        plain, mirrored = angles(crop, path), angles(np.ascontiguousarray(crop[:, ::-1]), path) * [-1, 1, -1]
        # Yaw goes round: the mean of -179 and 179 is 180.
        yaw = np.rad2deg(np.angle(np.exp(1j * np.deg2rad([plain[0], mirrored[0]])).sum()))
        pitch, roll = (plain[1:] + mirrored[1:]) / 2
        apart = rotation_angle(_rotation(plain), _rotation(mirrored))
        across = quad[3] - quad[0]
        lean = float(np.rad2deg(np.arctan2(across[1], across[0])) + roll)
        head = replace(head, azimuth=float(yaw), elevation=float(-pitch), roll=lean, flip_error=apart)
    return head


def angles(crop: np.ndarray, path: Path) -> np.ndarray:
    """(3,) yaw, pitch and roll in degrees as WHENet has them, of a crop (224, 224, 3) uint8 RGB.

    Raises:
        LineamentError: the network has another interface.
    """
    outputs = onnx_network(path)(((crop / 255 - IMAGENET[0]) / IMAGENET[1]).transpose(2, 0, 1)[None])
    sizes = tuple(output.size for output in outputs)
    if sorted(sizes) != sorted(CLASSES) or sizes[0] != CLASSES[0]:
        raise LineamentError(
            f"{path}: gives {len(outputs)} outputs of {', '.join(map(str, sizes))} numbers, where WHENet gives "
            f"{', '.join(map(str, CLASSES))} (yaw, pitch, roll). Export it with these outputs in this order."
        )
    means = [float(softmax(output.ravel()) @ np.arange(output.size)) for output in outputs]
    return np.array([(mean - count / 2) * BIN for mean, count in zip(means, CLASSES, strict=True)])


def _rotation(seen: np.ndarray) -> np.ndarray:
    yaw, pitch, roll = np.deg2rad(seen).tolist()
    return on_sphere(yaw, -pitch, roll=-roll)[:3, :3]
