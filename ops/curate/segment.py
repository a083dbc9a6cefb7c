"""Stage ``segment``: which pixels of each crop are the person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ops.curate.crop import crop_quad
from ops.curate.labelling import FILES, Sample, finish, keep, label_shards, reject
from ops.perception.selfie import person_mask
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.runtime.weights import require
from ops.store import pictures, tables
from ops.store.tar import Shard, shard_paths

SCHEMA = tables.schema(pa.field("mask_ratio", pa.float32()))
LOOK = 256  # the network's own resolution


class SegmentParams(Params):
    resolution: int = Field(256, ge=16, description="side of the masks in pixels")  # paper (a): crops of 256
    # SphereHead App. 0.B takes DeepLabV3's; it is the user's
    mask: Literal["selfie", "deeplabv3"] = Field("selfie", description="the network that finds the person")
    mask_side: int = Field(512, ge=16, description="that deeplabv3 sees")  # SphereHead: pictures of 512
    min_ratio: float = Field(0.3, ge=0, le=1, description="share of person in the crop")  # SphereHead App. 0.B


def label(samples: Iterator[Sample], params: SegmentParams, weights: Path) -> Iterable[dict[str, object]]:
    """One row and one mask a crop."""
    for sample in samples:
        image, quad = sample.decode(), np.array(sample.row["quad"]).reshape(4, 2)
        if params.mask == "deeplabv3":
            from ops.perception import deeplab  # the user's: not loaded where it is not asked for

            crop = crop_quad(image, quad, params.mask_side)
            mask = deeplab.person_mask(crop, require("deeplabv3"), params.mask_side, params.resolution)
        else:
            mask = person_mask(crop_quad(image, quad, LOOK), weights, params.resolution)
        ratio = float(mask.mean() / 255)
        columns = {"mask_ratio": ratio, FILES: {"png": pictures.encode_png(mask)}}
        if ratio < params.min_ratio:
            yield reject(sample, "little_person", **columns)
        else:
            yield keep(sample, **columns)


@stage("segment", SegmentParams)
def main(
    s: Stage[SegmentParams], raw: Path, cameras: Path, aligned: Path, weights: Path, masks: Path, out: Path
) -> None:
    """Say which pixels of each crop are the person."""
    table = label_shards(
        s,
        raw,
        cameras,
        partial(label, weights=weights),
        SCHEMA,
        joined=[aligned],
        files=masks,
        weights=weights,
        code=["ops.curate.crop", "ops.perception.selfie", "ops.perception.deeplab", "ops.perception.networks"],
    )
    found = {key: shard for shard in map(Shard, shard_paths(masks)) for key in shard.keys}

    def draw(image: np.ndarray, row: dict[str, object]) -> np.ndarray:
        key = str(row["id"])
        crop = crop_quad(image, np.array(row["quad"]).reshape(4, 2), LOOK)
        mask = pictures.resize(pictures.decode_grey(found[key].read(key, "png")), LOOK)[..., None] / 255
        return np.rint(crop * (0.25 + 0.75 * mask) + np.array([0, 90, 160]) * 0.75 * (1 - mask)).astype(np.uint8)

    finish(s, table, raw, out, draw, lambda row: f"{100 * row['mask_ratio']:.0f} %", [aligned])


if __name__ == "__main__":
    raise SystemExit(main())
