"""Deep3DFaceRecon of a user's own file: what it reads off a face, in the coefficients of BFM 2009.

Facts of its input (sicxu/Deep3DFaceRecon_pytorch): RGB in [0, 1], 224 pixels a side; the square is centred on the
standard face's origin and 102 pixels wide a decimetre, both found by least squares from five points, never turned.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from models.deep3d import FIVE, SCALE, SIDE, Deep3DFaceRecon, Reading
from ops.curate.crop import crop_quad, square_quad
from ops.evaluate.identity import read_tensors
from ops.perception.facemesh import LEFT_EYE, MOUTH, RIGHT_EYE
from ops.runtime.errors import LineamentError
from ops.runtime.weights import locate, require

NAME = "deep3dfacerecon"
AUTHORS = "epoch_20.pth"  # the authors' own checkpoint, taken where the registered file is not there
_NOSE = 1  # FaceMesh's tip of the nose


def weights_file() -> Path:
    """The user's file: ``deep3dfacerecon.safetensors``, or the authors' ``epoch_20.pth`` beside it.

    Raises:
        LineamentError: there is neither; says where it is published and what does without it.
    """
    own = locate(NAME)
    return own.with_name(AUTHORS) if not own.is_file() and own.with_name(AUTHORS).is_file() else require(NAME)


@lru_cache(maxsize=1)
def deep3d(path: Path) -> Deep3DFaceRecon:
    """The network with the weights of a file, once a process.

    Raises:
        LineamentError: the file is damaged, holds more than tensors, or is of another network.
    """
    try:
        return Deep3DFaceRecon.from_state(read_tensors(path))
    except ValueError as error:
        raise LineamentError(f"{path}: {error}.") from None


def five_of(points: np.ndarray) -> np.ndarray:
    """(5, 2) eyes (picture's left, right), nose, mouth's corners (left, right) from FaceMesh's (468, 2 or more)."""
    flat = points[:, :2]
    eyes = [flat[list(corners)].mean(0) for corners in (RIGHT_EYE, LEFT_EYE)]
    return np.stack([*eyes, flat[_NOSE], *flat[list(MOUTH)]])


def square_of(five: np.ndarray) -> np.ndarray:
    """(4, 2) corners of the aligned square in pixels of the picture, see :mod:`ops.curate.crop`.

    Args:
        five: (5, 2) pixels, in the order of :func:`five_of`.

    Raises:
        LineamentError: the five points lie on one another.
    """
    standard = np.concatenate([np.array(FIVE), np.ones((5, 1))], axis=1)
    affine, *_ = np.linalg.lstsq(standard, five.astype(np.float64), rcond=None)
    scale = np.linalg.norm(affine[:3], axis=0).mean()  # pixels a decimetre
    if not scale > 0:
        raise LineamentError("a face's five points lie on one another: it cannot be aligned.")
    return square_quad(affine[3], SIDE * scale / SCALE)


@torch.inference_mode()
def read_face(image: np.ndarray, five: np.ndarray, network: Deep3DFaceRecon) -> Reading:
    """What the network reads off one face of a picture (H, W, 3) uint8 RGB, given its five points."""
    crop = crop_quad(image, square_of(five), SIDE)
    return network(torch.from_numpy(crop).permute(2, 0, 1)[None] / 255)
