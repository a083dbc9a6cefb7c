"""Stage ``fit_body``: the body's shape and its six joints, from pose landmarks and the person's outline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor

from models import camera as geometry
from models.parametric.base import JOINTS
from ops.curate.crop import crop_quad, from_crop, quad_side, to_crop
from ops.curate.labelling import Sample, finish, keep, label_shards, reject
from ops.curate.sheets import draw_points
from ops.fit.overlay import draw_mesh
from ops.fit.torso import POINTS, Seen, Solution, Terms, body_camera, posed_vertices, skeleton, solve
from ops.perception.blazepose import INDEX, Pose, find_body, find_points_twice
from ops.perception.selfie import person_mask
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store import tables

SCHEMA = tables.schema(
    *(pa.field(name, pa.list_(pa.float32())) for name in ("shape", "pose", "camera", "points", "visibility")),
    pa.field("residual", pa.float32()),
    pa.field("converged", pa.bool_()),
)
WINDOW = np.array([-0.9, -0.6, 2.8])  # left, top, side in crop sides: head to chest, arms included
MASK_SIDE = 128  # of the outline's map over the window
LOOK = 256  # the mask network's own resolution
DRAWN = 240


class FitBodyParams(Params):
    """All unpublished: our choice, by the studio's truth."""

    batch: int = Field(16, ge=1, description="bodies at once")
    min_score: float = Field(0.3, ge=0, le=1, description="of the person detector")
    min_visibility: float = Field(0.3, ge=0, le=1, description="of the better of the two shoulders")
    shoulder: float = Field(0.25, gt=0, description="standard deviation of a shoulder, crop sides")
    elbow: float = Field(0.25, gt=0, description="standard deviation of an elbow, crop sides")
    direction: float = Field(0.70, gt=0, description="standard deviation of the shoulders' 3-D direction")
    outline: float = Field(0.04, gt=0, description="standard deviation of the outline, crop sides")
    outlier: float = Field(3.0, gt=0, description="in standard deviations: a measurement pulls no harder")
    max_steps: int = Field(25, ge=1, description="of Levenberg and Marquardt")
    max_residual: float = Field(40.0, gt=0, description="of the shoulders, per cent of the crop's side")
    max_code: float = Field(4.0, gt=0, description="standard deviations of the shape; beyond, it is no body")

    @property
    def terms(self) -> Terms:
        """As the energy wants them."""
        return Terms(self.shoulder, self.elbow, self.direction, self.outline, self.outlier)


@dataclass(frozen=True)
class Look:
    """What one picture shows, in crop coordinates; see :class:`ops.fit.torso.Seen`."""

    points: np.ndarray
    visibility: np.ndarray
    direction: np.ndarray
    outside: np.ndarray


def look(image: np.ndarray, quad: np.ndarray, weights: Path, min_score: float) -> Look | None:
    """Measure a picture; None where no person has its face in the crop.

    Args:
        image: (H, W, 3) uint8.
        quad: (4, 2) the crop's corners.
        weights: folder of the stage ``weights``.
        min_score: of the person detector.
    """
    window, far = window_quad(quad), np.array(image.shape[1::-1])
    low = np.clip(np.floor(window.min(0)), 0, far - 1).astype(int)
    high = np.maximum(np.clip(np.ceil(window.max(0)), 0, far).astype(int), low + 1)
    part = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
    region = find_body(part, weights, min_score, face=(quad.mean(0) - low, quad_side(quad) / 2))
    if region is None:
        return None
    pose: Pose = find_points_twice(part, region, weights)
    places = pose.points + low
    chosen = [INDEX[name] for name in POINTS]
    across = quad[3] - quad[0]
    roll = np.arctan2(across[1], across[0])  # the crop's own turn, which its camera does not know of
    line = pose.world[INDEX["left_shoulder"]] - pose.world[INDEX["right_shoulder"]]
    c, s = np.cos(roll), np.sin(roll)
    line = np.array([c * line[0] + s * line[1], -s * line[0] + c * line[1], line[2]])
    inside = ((places >= 0) & (places < far)).all(1)  # beyond the edges it only guesses
    return Look(
        to_crop(places[chosen], quad),
        (pose.visibility * inside)[chosen],
        line / max(float(np.linalg.norm(line)), 1e-9),
        outside_distance(image, quad, weights),
    )


def window_quad(quad: np.ndarray) -> np.ndarray:
    """(4, 2) corners of WINDOW in pixels of the picture."""
    left, top, side = WINDOW
    return from_crop(np.array([[left, top], [left, top + side], [left + side, top + side], [left + side, top]]), quad)


def outside_distance(image: np.ndarray, quad: np.ndarray, weights: Path) -> np.ndarray:
    """(MASK_SIDE, MASK_SIDE) distance to the person in WINDOW, crop sides; 0 within, and beyond the picture's edges."""
    wide = window_quad(quad)
    mask = person_mask(crop_quad(image, wide, LOOK), weights, MASK_SIDE)
    across = np.arange(MASK_SIDE) + 0.5
    centres = np.stack(np.meshgrid(across, across), axis=-1) / MASK_SIDE * WINDOW[2] + WINDOW[:2]
    pixels = from_crop(centres, quad)
    known = ((pixels >= 0) & (pixels < image.shape[1::-1])).all(-1)
    away = (mask < 128) & known
    if not (mask >= 128).any():
        return np.zeros((MASK_SIDE, MASK_SIDE))
    distance = cv2.distanceTransform((mask < 128).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(away, distance * WINDOW[2] / MASK_SIDE, 0)


def fit_bodies(looks: Sequence[Look], cameras: np.ndarray, params: FitBodyParams) -> Solution:
    """Fit N measured bodies with their crops' cameras (N, 25)."""

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(one, name) for one in looks])).double()

    seen = Seen(
        torch.from_numpy(cameras).double(),
        stack("points"),
        stack("visibility"),
        stack("direction"),
        stack("outside"),
        torch.from_numpy(WINDOW),
    )
    return solve(seen, params.terms, params.max_steps)


def columns_of(looks: Sequence[Look], cameras: np.ndarray, solution: Solution) -> list[dict[str, Any]]:
    """A table row's columns for each fitted body."""
    shape, pose = solution.code.shape.float(), solution.code.pose.float()
    camera = body_camera(skeleton()[0], torch.from_numpy(cameras).float(), shape, pose)
    values = {
        "shape": shape.tolist(),
        "pose": pose.flatten(1).tolist(),
        "camera": camera.tolist(),
        "points": [one.points.ravel().tolist() for one in looks],
        "visibility": [one.visibility.tolist() for one in looks],
        "residual": (100 * solution.residual).tolist(),
        "converged": solution.converged.tolist(),
    }
    return [dict(zip(values, row)) for row in zip(*values.values())]


def why_not(columns: dict[str, Any], params: FitBodyParams) -> str | None:
    """The reason why a fit is not kept, or None."""
    if max(columns["visibility"][:2]) < params.min_visibility:
        return "shoulders_unseen"
    if not columns["converged"]:
        return "not_converged"
    if not columns["residual"] <= params.max_residual:
        return "large_residual"
    if np.abs(columns["shape"]).max() > params.max_code:
        return "unlikely_shape"
    return None


def label(samples: Iterator[Sample], params: FitBodyParams, weights: Path) -> Iterable[dict[str, object]]:
    """One row a person."""
    while some := list(islice(samples, params.batch)):
        quads = [np.array(sample.row["quad"], np.float64).reshape(4, 2) for sample in some]
        looks = [
            look(sample.decode(), quad, weights, params.min_score) for sample, quad in zip(some, quads, strict=True)
        ]
        chosen = [number for number, one in enumerate(looks) if one is not None]
        found = [one for one in looks if one is not None]
        cameras = np.array([some[number].row["camera"] for number in chosen], np.float64)
        rows = columns_of(found, cameras, fit_bodies(found, cameras, params)) if found else []
        fitted = dict(zip(chosen, rows, strict=True))
        for number, sample in enumerate(some):
            if number not in fitted:
                yield reject(sample, "no_person", converged=False)
                continue
            reason = why_not(fitted[number], params)
            yield keep(sample, **fitted[number]) if reason is None else reject(sample, reason, **fitted[number])


@stage("fit_body", FitBodyParams)
def main(
    s: Stage[FitBodyParams], raw: Path, previous: Path, cameras: Path, aligned: Path, weights: Path, out: Path
) -> None:
    """Fit the body's shape and six joints to the pose landmarks and the outline of each person."""
    code = [f"ops.{name}" for name in ("curate.crop", "fit.torso", "fit.solver", "perception.blazepose")]
    code += ["ops.perception.selfie", "models.camera", "models.parametric.person", "models.parametric.person_basis"]
    work = partial(label, weights=weights)
    labelled = label_shards(s, raw, previous, work, SCHEMA, joined=[cameras, aligned], weights=weights, code=code)

    keys = tables.ids(cameras)

    def draw(image: np.ndarray, row: dict[str, Any]) -> np.ndarray:
        (crop,) = tables.take(cameras, tables.places(pa.array([row["id"]]), keys))
        return overlay(image, np.array(row["quad"]).reshape(4, 2), np.array(crop["camera"]), row)

    finish(s, labelled, raw, out, draw, lambda row: f"{row['residual']:.1f} %", [aligned])
    table = tables.read(out, [*tables.NAMES, "converged", "residual"])
    fitted = table.filter(table.column("converged"))
    s.metrics({"converged": len(fitted)})
    if len(fitted):
        s.metrics({"median_residual": round(float(np.median(fitted.column("residual").to_numpy())), 3)})


def overlay(image: np.ndarray, quad: np.ndarray, camera: np.ndarray, row: dict[str, Any]) -> np.ndarray:
    """The picture about a person with the fitted body over it, and the key points that were seen."""
    wide = window_quad(quad)
    left, top, side = WINDOW
    pose, k = geometry.unpack_label(torch.from_numpy(camera).float()[None])
    k = k.clone()
    k[:, 0, 2], k[:, 1, 2] = k[:, 0, 2] - left, k[:, 1, 2] - top
    k[:, :2] /= side
    model = skeleton()[0]
    shape = torch.tensor(row["shape"])[None]
    posed = posed_vertices(model, shape, torch.tensor(row["pose"]).view(1, len(JOINTS), 3))
    canvas = crop_quad(image, wide, DRAWN)
    drawn = draw_mesh(canvas, posed, model.triangles, geometry.pack_label(pose, k))
    points = (np.array(row["points"]).reshape(-1, 2) - WINDOW[:2]) / side * DRAWN
    return draw_points(drawn, points[np.array(row["visibility"]) > 0.5], (255, 80, 40))


if __name__ == "__main__":
    raise SystemExit(main())
