"""What the stages that write training shards of single pictures have in common: a sample's square at its final size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ops.curate.anonymise import AnonymiseParams, anonymous
from ops.curate.crop import crop_quad
from ops.store import pictures
from ops.store.tables import picture_of
from ops.store.tar import PROVENANCE, Shard

CODE = ["ops.shards.crops", "ops.curate.crop", "ops.curate.anonymise"]


def read_picture(shard: Shard, key: str) -> np.ndarray:
    """The picture of a sample, or of which it is one of several heads, (H, W, 3) uint8 RGB, upright.

    Raises:
        PictureError: its bytes are no picture.
    """
    picture = picture_of(key)
    return pictures.decode(shard.read(picture, shard.original_field(picture)))


def read_provenance(shard: Shard, key: str) -> dict[str, Any]:
    """Where a sample's picture comes from; whom it shows is unknown of one of several heads."""
    said = json.loads(shard.read(picture_of(key), PROVENANCE))
    return said if picture_of(key) == key else {**said, "identity": None}


def cut_square(image: np.ndarray, row: dict[str, Any], size: int, params: AnonymiseParams) -> np.ndarray:
    """(size, size, 3) uint8: the square of a labelled row, anonymised where that is asked for.

    Args:
        image: the upright picture.
        row: ``id``, ``quad`` (8 values, pixels) and ``camera`` (25) of the crop.
        size: of the result.
        params: how faces are hidden.
    """
    crop = crop_quad(image, np.asarray(row["quad"], np.float64).reshape(4, 2), size)
    return anonymous(crop, row["camera"], params, row["id"])
