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
from ops.perception.facemesh import landmarks, region_of_face
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
    # BlazeFace takes some backs of heads for faces, none of them surely, and FaceMesh sees no face there. Of the
    # lessons' pictures these two drop 26 of 28 such backs, and 2 profiles. Unpublished: our choice
    sure_score: float = Field(0.7, ge=0, le=1, description="a face below is looked at again, by FaceMesh")
    min_look: float = Field(0.01, ge=0, le=1, description="what FaceMesh must say of it, that there is a face")
    # all: each becomes a sample of its own, with the picture's id and -h1, -h2 … behind. Unpublished: our choice
    several: Literal["reject", "largest", "all"] = Field("reject", description="of several faces, keep these")
    several_share: float = Field(0.4, description="a second face counts from this share of the largest's area")  # ours


def find_faces(image: np.ndarray, weights: Path, params: DetectParams) -> list[Face]:
    """Faces, the largest first; the short-range network is asked where the full-range one sees none."""

    def holds(face: Face) -> bool:
        return face.score >= params.sure_score or (
            landmarks(image, region_of_face(face.box, face.points), weights)[1] >= params.min_look
        )

    for name in ("blazeface_full_range", "blazeface_short_range"):
        faces = [f for f in detect(image, weights, name, params.min_score, params.max_overlap) if holds(f)]
        if faces:
            return sorted(faces, key=lambda face: -face.area)
    return []


def label(samples: Iterator[Sample], params: DetectParams, weights: Path) -> Iterable[dict[str, object]]:
    """One row a picture: the largest face, and how many there are; or one row a face, if all are to be kept."""
    for sample in samples:
        faces = find_faces(sample.decode(), weights, params)
        large = [face for face in faces if face.area >= params.several_share * faces[0].area]
        if not faces:
            yield reject(sample, "no_face", faces=0)
        elif len(large) > 1 and params.several == "all":
            for number, face in enumerate(large, start=1):
                yield keep(sample.head(number), **_columns(face, len(faces)))
        elif len(large) > 1 and params.several == "reject":
            yield reject(sample, "several_faces", **_columns(faces[0], len(faces)))
        else:
            yield keep(sample, **_columns(faces[0], len(faces)))


def _columns(face: Face, count: int) -> dict[str, object]:
    columns = dict(zip(("x0", "y0", "x1", "y1"), face.box.tolist()))
    return {**columns, "score": face.score, "faces": count, "keypoints": face.points.ravel().tolist()}


@stage("detect", DetectParams)
def main(s: Stage[DetectParams], raw: Path, screened: Path, weights: Path, out: Path) -> None:
    """Find the face in each picture, as a box with six key points."""
    code = ["ops.perception.blazeface", "ops.perception.facemesh", "ops.perception.networks"]
    look = partial(label, weights=weights)
    table = label_shards(s, raw, screened, look, SCHEMA, expands=True, weights=weights, code=code)

    def draw(image: np.ndarray, row: dict[str, object]) -> np.ndarray:
        x0, y0, x1, y1 = (row[name] for name in ("x0", "y0", "x1", "y1"))
        boxed = draw_polygon(image, np.array([[x0, y0], [x0, y1], [x1, y1], [x1, y0]], np.float32))
        return draw_points(boxed, np.array(row["keypoints"]).reshape(-1, 2))

    finish(s, table, raw, out, draw, lambda row: f"{row['score']:.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
