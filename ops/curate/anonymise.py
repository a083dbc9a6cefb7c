"""Faces made unknowable before pictures leave the house: pixelated, blurred, or another person's.

Off by default. SphereHead swapped the faces of its own crawl's front views (App. 0.B); a swap network is not shipped,
but one that the user supplies as ONNX is used: two pictures of its side in, the target's crop and a source face, one
out, all RGB in [0, 1] (the interface of public one-shot swaps whose identity encoder is part of the graph).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from pydantic import Field, model_validator

from models import camera as geometry
from ops.curate.crop import crop_quad, square_quad
from ops.curate.detect import DetectParams, find_faces
from ops.perception.facemesh import canonical_points
from ops.perception.onnx import onnx_network
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.weights import EMBEDDED
from ops.store import pictures

SEEN_TO = 110.0  # degrees of azimuth up to which something of the face is in the picture; unpublished: our choice


class AnonymiseParams(Params):
    """How faces are hidden; unpublished: our choice, but for the swap."""

    method: Literal["none", "pixelate", "blur", "swap"] = "none"
    cells: int = Field(default=8, ge=2, le=32, description="mosaic cells across a face")
    margin: float = Field(default=1.3, ge=1, description="of the hidden part by the face's box")
    network: Path | None = Field(default=None, description="ONNX file of the swap")
    donors: Path | None = Field(default=None, description="folder of pictures whose faces are put in their place")
    side: int = Field(default=256, ge=32, description="of the pictures that the swap takes")

    @model_validator(mode="after")
    def _complete(self) -> AnonymiseParams:
        if self.method == "swap" and (self.network is None or self.donors is None):
            raise ValueError("method swap needs network, an ONNX file, and donors, a folder of faces")
        return self


def anonymous(crop: np.ndarray, camera: np.ndarray, params: AnonymiseParams, key: str) -> np.ndarray:
    """A crop with the face of its head hidden, where the camera sees it, and every other face that is detected.

    Args:
        crop: (S, S, 3) uint8; camera: (25,) its label; key: of the sample.
    """
    if params.method == "none":
        return crop
    side = crop.shape[0]
    boxes = []
    label = torch.tensor(np.asarray(camera), dtype=torch.float64)[None]
    azimuth, _, _ = geometry.spherical_angles(geometry.unpack_label(label)[0])
    if abs(float(torch.rad2deg(azimuth))) < SEEN_TO:
        uv, _ = geometry.project(label, torch.tensor(canonical_points())[None])
        points = uv[0].numpy() * side
        boxes.append(np.concatenate([points.min(0), points.max(0)]))
    doubtful_too = DetectParams.model_validate({"sure_score": 0})  # hiding what is none harms nobody
    boxes += [face.box for face in find_faces(crop, EMBEDDED, doubtful_too)]
    return hide_faces(crop, boxes, params, key)


def hide_faces(image: np.ndarray, boxes: Sequence[np.ndarray], params: AnonymiseParams, key: str) -> np.ndarray:
    """A copy of a picture with its faces hidden.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (x0, y0, x1, y1) of each face, pixels.
        params: how.
        key: decides which donor; the same sample always gets the same.

    Raises:
        LineamentError: the swap's network or donors cannot be used.
    """
    result = image.copy()
    if params.method == "none":
        return result
    for box in boxes:
        centre = (box[:2] + box[2:]) / 2
        side = float((box[2:] - box[:2]).max()) * params.margin
        side = max(side, 4.0)
        if params.method == "swap":
            quad = square_quad(centre, side * 1.5)
            crop = crop_quad(image, quad, params.side)
            hidden = _swapped(crop, params, key)
        else:
            quad = square_quad(centre, side)
            size = max(2 * params.cells, round(side))
            crop = crop_quad(image, quad, size)
            hidden = _mosaic(crop, params.cells) if params.method == "pixelate" else _blurred(crop, params.cells)
        _paste(result, hidden, quad)
    return result


def _mosaic(crop: np.ndarray, cells: int) -> np.ndarray:
    small = cv2.resize(crop, (cells, cells), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, crop.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def _blurred(crop: np.ndarray, cells: int) -> np.ndarray:
    return cv2.GaussianBlur(crop, (0, 0), crop.shape[0] / cells)


def _swapped(crop: np.ndarray, params: AnonymiseParams, key: str) -> np.ndarray:
    assert params.network is not None
    assert params.donors is not None
    donors = sorted(path for path in params.donors.glob("*") if path.is_file())
    if not donors:
        raise LineamentError(f"{params.donors}: there is no donor's picture in it; a swap needs at least one.")
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % len(donors)
    donor = pictures.decode(donors[number].read_bytes())
    height, width = donor.shape[:2]
    square = square_quad(np.array([width, height]) / 2, float(min(width, height)))
    pair = [p.transpose(2, 0, 1)[None] / 255 for p in (crop, crop_quad(donor, square, params.side))]
    (out, *_) = onnx_network(params.network)(*pair, names=("target", "source"))
    if out.shape != (1, 3, params.side, params.side):
        raise LineamentError(
            f"{params.network}: gave {out.shape}, where (1, 3, {params.side}, {params.side}) is wanted."
        )
    return np.rint(np.clip(out[0].transpose(1, 2, 0), 0, 1) * 255).astype(np.uint8)


def _paste(image: np.ndarray, crop: np.ndarray, quad: np.ndarray) -> None:
    """Lay a square's new pixels over an ellipse in it, its border soft, in place."""
    size = crop.shape[0]
    step = np.stack([quad[3] - quad[0], quad[1] - quad[0]], axis=1) / size
    matrix = np.concatenate([step, (quad[0] + step @ [0.5, 0.5] - 0.5)[:, None]], axis=1)
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    soft = np.clip((1 - np.hypot(x, y)) * 12 + 0.5, 0, 1).astype(np.float32)
    where = image.shape[1::-1]
    mask = cv2.warpAffine(soft, matrix, where, flags=cv2.INTER_LINEAR)[..., None]
    over = cv2.warpAffine(crop, matrix, where, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image[:] = np.rint(over * mask + image * (1 - mask)).astype(np.uint8)
