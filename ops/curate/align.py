"""Stage ``align``: the upright square around each face, by the rule of FFHQ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field

from ops.curate.crop import outside_share, quad_side
from ops.curate.labelling import Sample, finish, keep, label_shards, reject
from ops.curate.sheets import draw_polygon
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store import tables
from ops.store.pictures import upright_size

SCHEMA = tables.schema(pa.field("quad", pa.list_(pa.float32())), pa.field("crop_size", pa.float32()))
# FaceMesh's points at the six of each eye and the two mouth corners that FFHQ's rule uses of the 68.
EYE_RIGHT = (33, 160, 158, 133, 153, 144)  # of the subject, on the left of the picture
EYE_LEFT = (362, 385, 387, 263, 373, 380)
MOUTH_RIGHT, MOUTH_LEFT = 61, 291
IBUG = 68  # points of face-alignment's networks: eyes from 36 and 42 on, mouth corners 48 and 54


class AlignParams(Params):
    scale: float = Field(1.0, gt=0, description="of FFHQ's square; 0.815 is EG3D's tighter crop")  # NVlabs/ffhq-dataset
    min_crop: float = Field(64.0, description="side of the square in pixels")  # unpublished: our choice
    max_outside: float = Field(0.35, ge=0, le=1, description="share outside the picture")  # unpublished: our choice


def ffhq_quad(points: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """FFHQ's square from landmarks (NVlabs/ffhq-dataset: eyes x 2.0, eyes to mouth x 1.8, centre + 0.1).

    Args:
        points: (468 or 68, 2 or more), pixels.
        scale: makes the square larger or smaller about its centre.

    Returns:
        (4, 2) corners: top-left, bottom-left, bottom-right, top-right.
    """
    flat = points[:, :2].astype(np.float64)
    if len(flat) == IBUG:
        right, left, mouth = flat[36:42].mean(0), flat[42:48].mean(0), flat[[48, 54]].mean(0)
    else:
        right, left = flat[list(EYE_RIGHT)].mean(0), flat[list(EYE_LEFT)].mean(0)
        mouth = flat[[MOUTH_RIGHT, MOUTH_LEFT]].mean(0)
    eyes = (right + left) / 2
    across, down = left - right, mouth - eyes
    x = across + np.array([down[1], -down[0]])  # the mean of both directions: a face may be turned away
    x /= np.hypot(*x)
    x *= max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8) * scale
    y = np.array([-x[1], x[0]])
    centre = eyes + down * 0.1
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def label(samples: Iterator[Sample], params: AlignParams) -> Iterable[dict[str, object]]:
    """One row a face: its square."""
    for sample in samples:
        quad = ffhq_quad(np.array(sample.row["points"]).reshape(-1, 3), params.scale)
        side = quad_side(quad)
        columns = {"quad": quad.ravel().tolist(), "crop_size": side}
        width, height = upright_size(sample.data)
        if side < params.min_crop:
            yield reject(sample, "crop_too_small", **columns)
        elif outside_share(quad, width, height) > params.max_outside:
            yield reject(sample, "too_far_outside", **columns)
        else:
            yield keep(sample, **columns)


@stage("align", AlignParams)
def main(s: Stage[AlignParams], raw: Path, landmarks: Path, out: Path) -> None:
    """Place the upright square around each face, by FFHQ's rule."""
    table = label_shards(s, raw, landmarks, label, SCHEMA, code=["ops.curate.crop"])
    finish(
        s,
        table,
        raw,
        out,
        lambda image, row: draw_polygon(image, np.array(row["quad"]).reshape(4, 2)),
        lambda row: f"{row['crop_size']:.0f} px",
    )


if __name__ == "__main__":
    raise SystemExit(main())
