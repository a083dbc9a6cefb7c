"""Stage ``landmarks``: 468 points of each face by FaceMesh, or 68 by face-alignment's networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ops.curate.labelling import Sample, finish, keep, label_shards, reject
from ops.curate.sheets import draw_points
from ops.perception.facemesh import landmarks, landmarks_twice, region_of_face, region_of_landmarks
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store import tables

SCHEMA = tables.schema(pa.field("points", pa.list_(pa.float32())), pa.field("score", pa.float32()))


class LandmarksParams(Params):
    # mediapipe asks for 0.5, to follow a face; of the studio's people, 4 in 5 of those whose camera comes out wrong by
    # more than 15 degrees score below 0.95, and of those seen from the front 1 in 50. Unpublished: our choice
    min_score: float = Field(0.95, ge=0, le=1, description="that there is a face")
    # fan_3d is the papers' (PanoHead, SphereHead); its weights are the user's. The fits want FaceMesh's 468 points.
    backend: Literal["facemesh", "fan_2d", "fan_3d"] = "facemesh"
    min_peak: float = Field(
        0.2, ge=0, le=1, description="mean height of the heat maps, fan_2d and fan_3d"
    )  # our choice
    refinements: int = Field(1, ge=0, description="looks again, at the region of the last landmarks")  # our choice


def find_landmarks(
    image: np.ndarray, box: np.ndarray, keypoints: np.ndarray, weights: Path, refinements: int
) -> tuple[np.ndarray, float]:
    """(468, 3) landmarks and their score for a detected face: box (4,), key points (6, 2), pixels.

    The last look is at the region and its mirror image.
    """
    points, score = landmarks(image, region_of_face(box, keypoints), weights)
    for look in range(refinements):
        find = landmarks_twice if look == refinements - 1 else landmarks
        points, score = find(image, region_of_landmarks(points), weights)
    return points, score


def label(samples: Iterator[Sample], params: LandmarksParams, weights: Path) -> Iterable[dict[str, object]]:
    """One row a face."""
    for sample in samples:
        row = sample.row
        box = np.array([row["x0"], row["y0"], row["x1"], row["y1"]])
        keypoints = np.array(row["keypoints"]).reshape(-1, 2)
        if params.backend == "facemesh":
            points, score = find_landmarks(sample.decode(), box, keypoints, weights, params.refinements)
            least = params.min_score
        else:
            from ops.perception.fan import fan, fan_landmarks  # takes torch, which is slow to load

            points, score = fan_landmarks(sample.decode(), box, fan(params.backend))
            least = params.min_peak
        columns = {"points": points.ravel().tolist(), "score": score}
        if score < least:
            yield reject(sample, "low_landmark_score", **columns)
        else:
            yield keep(sample, **columns)


@stage("landmarks", LandmarksParams)
def main(s: Stage[LandmarksParams], raw: Path, detected: Path, weights: Path, out: Path) -> None:
    """Find 468 points of each face, or 68."""
    code = ["ops.perception.facemesh", "ops.perception.fan", "ops.perception.networks"]
    table = label_shards(s, raw, detected, partial(label, weights=weights), SCHEMA, weights=weights, code=code)
    finish(
        s,
        table,
        raw,
        out,
        lambda image, row: draw_points(image, np.array(row["points"]).reshape(-1, 3)[:, :2]),
        lambda row: f"{row['score']:.2f}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
