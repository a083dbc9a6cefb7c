"""Stage ``fit_face``: identity, expression and pose of each face, from its landmarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from ops.curate.camera import CROP_FOCAL
from ops.curate.crop import crop_quad, to_crop
from ops.curate.labelling import Sample, finish, keep, label_shards, reject
from ops.fit.energy import Terms
from ops.fit.overlay import overlay
from ops.fit.photometric import refine
from ops.fit.reading import reading
from ops.fit.solver import Solution, fit
from ops.fit.target import camera_of, interocular, motion_of, pose_of, target
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store import tables

CODE_MODULES = tuple(
    f"ops.fit.{name}" for name in ("calibrate", "energy", "linear", "photometric", "reading", "solver", "target")
)
FIELDS = (
    *(pa.field(name, pa.list_(pa.float32())) for name in ("identity", "expression", "pose", "camera")),
    pa.field("residual", pa.float32()),
    pa.field("converged", pa.bool_()),
)
SCHEMA = tables.schema(*FIELDS)
DRAWN = 240  # pixels of a preview's crop


class FitParams(Params):
    """The energy's weights; all unpublished: our choice, by the studio's truth."""

    noise: float = Field(0.006, gt=0, description="standard deviation of a landmark, crop sides")
    correlated: float = Field(40.0, ge=1, description="landmarks that err as one")
    outlier: float = Field(4.0, gt=0, description="in noise: there a landmark's pull is a quarter")
    expression: float = Field(0.3, gt=0, description="standard deviation of an expression unit")
    wall: float = Field(20.0, ge=0, description="stiffness of the expression's bounds")
    max_steps: int = Field(20, ge=1, description="of Levenberg and Marquardt, a round")
    max_residual: float = Field(4.0, gt=0, description="per cent of the outer eye distance")
    max_identity: float = Field(4.0, gt=0, description="standard deviations; beyond, it is no face of the model")

    @property
    def terms(self) -> Terms:
        """As the energy wants them."""
        return Terms(self.noise, self.correlated, self.outlier, self.expression, self.wall)


class FitFaceParams(FitParams):
    batch: int = Field(16, ge=1, description="faces at once")  # unpublished: our choice
    # Shading of one skin colour under smooth light; off unless asked for: landmarks alone are 20 times as fast
    photometric: float = Field(0.0, ge=0, description="weight of the photometric term, in landmarks")
    photometric_side: int = Field(96, ge=16, description="pixels of the crop that it looks at")  # our choice
    photometric_steps: int = Field(30, ge=1, description="of Adam")  # unpublished: our choice


def columns_of(solution: Solution, focal: float) -> list[dict[str, Any]]:
    """A table row's columns for each of N solved faces."""
    state = solution.state
    eyes = interocular(target().face, state, focal)
    values = {
        "identity": state.identity.tolist(),
        "expression": state.expression.tolist(),
        "pose": pose_of(state).tolist(),
        "camera": camera_of(state, focal).tolist(),
        "residual": (100 * solution.residual / eyes).tolist(),
        "converged": solution.converged.tolist(),
    }
    return [dict(zip(values, row)) for row in zip(*values.values())]


def why_not(columns: dict[str, Any], params: FitParams) -> str | None:
    """The reason why a fit is not kept, or None."""
    if not columns["converged"]:
        return "not_converged"
    if columns["pose"][5] <= 0:
        return "behind_the_camera"
    if not columns["residual"] <= params.max_residual:
        return "large_residual"
    if np.abs(columns["identity"]).max() > params.max_identity:
        return "unlikely_identity"
    return None


def fit_crops(
    rows: Sequence[dict[str, Any]], params: FitFaceParams, crops: Sequence[np.ndarray] | None = None
) -> list[dict[str, Any]]:
    """Fit faces whose rows hold ``points``, ``quad``, ``camera`` and ``distance``; a table row's columns each.

    ``crops`` (S, S, 3) uint8 are the squares' pictures; with them the photometric term refines the fit.
    """
    found, raw = [], []
    for row in rows:
        points = np.array(row["points"], np.float64).reshape(-1, 3)
        if len(points) != 468:
            raise LineamentError("fits need FaceMesh's 468 points: set landmarks.backend to facemesh.")
        raw.append(points)
        found.append(to_crop(points[:, :2], np.array(row["quad"], np.float64).reshape(4, 2)))
    cameras = np.array([row["camera"] for row in rows])
    rotation, translation = motion_of(cameras, np.array([row["distance"] for row in rows]))
    focal = float(cameras[0, 16]) if np.isfinite(cameras[0, 16]) else CROP_FOCAL
    goal = target()
    weights = goal.weights.expand(len(rows), -1)
    observed = torch.from_numpy(np.stack(found))
    prior = reading().prior(np.stack(raw))
    solution = fit(
        goal.face,
        observed,
        rotation,
        translation,
        focal,
        params.terms,
        weights=weights,
        prior=prior,
        max_steps=params.max_steps,
    )
    if crops is not None:
        pixels = torch.from_numpy(np.stack(crops)).float() / 255
        weight, steps = params.photometric, params.photometric_steps
        solution = refine(goal, solution, observed, pixels, focal, params.terms, weight, steps, prior)
    return columns_of(solution, focal)


def label(samples: Iterator[Sample], params: FitFaceParams) -> Iterable[dict[str, object]]:
    """One row a face."""
    while some := list(islice(samples, params.batch)):
        crops = [_crop(sample, params.photometric_side) for sample in some] if params.photometric else None
        for sample, columns in zip(some, fit_crops([sample.row for sample in some], params, crops), strict=True):
            reason = why_not(columns, params)
            yield keep(sample, **columns) if reason is None else reject(sample, reason, **columns)


def _crop(sample: Sample, side: int) -> np.ndarray:
    return crop_quad(sample.decode(), np.array(sample.row["quad"], np.float64).reshape(4, 2), side)


@stage("fit_face", FitFaceParams)
def main(s: Stage[FitFaceParams], raw: Path, cameras: Path, aligned: Path, landmarks: Path, out: Path) -> None:
    """Fit the face model to the landmarks of each face."""
    code = ["ops.curate.crop", "models.parametric.person_basis", *CODE_MODULES]
    labelled = label_shards(s, raw, cameras, label, SCHEMA, joined=[aligned, landmarks], code=code)

    def draw(image: np.ndarray, row: dict[str, Any]) -> np.ndarray:
        crop = crop_quad(image, np.array(row["quad"]).reshape(4, 2), DRAWN)
        return overlay(crop, target().model, row["identity"], row["expression"], row["camera"])

    finish(s, labelled, raw, out, draw, lambda row: f"{row['residual']:.1f} %", [aligned])
    table = tables.read(out, [*tables.NAMES, "converged", "residual"])
    if len(table):
        s.metrics(
            {
                "converged": int(np.sum(table.column("converged").to_numpy(zero_copy_only=False))),
                "median_residual": round(float(np.median(table.column("residual").to_numpy())), 3),
            }
        )


if __name__ == "__main__":
    raise SystemExit(main())
