"""Stage ``detect``: the face in each picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ops.curate.labelling import Sample, finish, keep, label_shards, reject
from ops.curate.sheets import draw_points, draw_polygon
from ops.perception.blazeface import Face, detect
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store import tables

SCHEMA = tables.schema(
    *(pa.field(name, pa.float32()) for name in ("x0", "y0", "x1", "y1", "score")),
    pa.field("faces", pa.int32()),
    pa.field("keypoints", pa.list_(pa.float32())),
)


class DetectParams(Params):
    min_score: float = Field(0.5, ge=0, le=1, description="of a face")  # mediapipe: min_score_thresh of face_detection
    max_overlap: float = Field(0.3, ge=0, le=1, description="of two faces")  # mediapipe: min_suppression_threshold
    # There is no way to keep all of them: tables have one row a picture, and its id names one head from here to the
    # shards. Pictures of groups can be cut into one a head before they are crawled. Unpublished: our choice
    several: Literal["reject", "largest"] = Field("reject", description="of several faces, keep none or one")
    several_share: float = Field(0.4, description="a second face counts from this share of the largest's area")  # ours


def find_faces(image: np.ndarray, weights: Path, params: DetectParams) -> list[Face]:
    """Faces, the largest first; the short-range network is asked where the full-range one sees none."""
    for name in ("blazeface_full_range", "blazeface_short_range"):
        faces = detect(image, weights, name, params.min_score, params.max_overlap)
        if faces:
            return sorted(faces, key=lambda face: -face.area)
    return []


def label(samples: Iterator[Sample], params: DetectParams, weights: Path) -> Iterable[dict[str, object]]:
    """One row a picture: the largest face, and how many there are."""
    for sample in samples:
        faces = find_faces(sample.decode(), weights, params)
        if not faces:
            yield reject(sample, "no_face", faces=0)
            continue
        face = faces[0]
        columns = dict(zip(("x0", "y0", "x1", "y1"), face.box.tolist()))
        columns |= {"score": face.score, "faces": len(faces), "keypoints": face.points.ravel().tolist()}
        rivals = sum(other.area >= params.several_share * face.area for other in faces[1:])
        if rivals and params.several == "reject":
            yield reject(sample, "several_faces", **columns)
        else:
            yield keep(sample, **columns)


@stage("detect", DetectParams)
def main(s: Stage[DetectParams], raw: Path, screened: Path, weights: Path, out: Path) -> None:
    """Find the face in each picture, as a box with six key points."""
    code = ["ops.perception.blazeface", "ops.perception.networks"]
    table = label_shards(s, raw, screened, partial(label, weights=weights), SCHEMA, weights=weights, code=code)

    def draw(image: np.ndarray, row: dict[str, object]) -> np.ndarray:
        x0, y0, x1, y1 = (row[name] for name in ("x0", "y0", "x1", "y1"))
        boxed = draw_polygon(image, np.array([[x0, y0], [x0, y1], [x1, y1], [x1, y0]], np.float32))
        return draw_points(boxed, np.array(row["keypoints"]).reshape(-1, 2))

    finish(s, table, raw, out, draw, lambda row: f"{row['score']:.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
