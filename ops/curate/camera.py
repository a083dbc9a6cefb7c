"""Stage ``camera``: the 25-value camera label of each aligned crop, from its landmarks.

The canonical head's 468 points are known in the project's world; with one focal length for all crops the pose that
projects them onto the crop's landmarks is found by least squares (PnP, Levenberg-Marquardt). FFHQ's square is wider
than the crop that EG3D's labels belong to, so its focal length is shorter by as much: the head then stands at EG3D's
radius of 2.7 and fills the unit box as EG3D's heads do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from ops.curate import poses, review
from ops.curate.crop import from_crop, quad_side, to_crop
from ops.curate.labelling import Sample, finish, keep, label_shards, reject
from ops.curate.sheets import draw_points
from ops.perception.facemesh import canonical_points
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.runtime.weights import require
from ops.store import tables

SCHEMA = tables.schema(
    pa.field("camera", pa.list_(pa.float32())),
    *(pa.field(name, pa.float32()) for name in ("yaw", "pitch", "roll", "residual", "distance")),
)
EYE_CORNERS = (33, 263)  # the outer ones: the residual is in per cent of their distance
CROP_FOCAL = poses.FFHQ_FOCAL / 1.229  # FFHQ's square is 1.229 times as wide as EG3D's crop of the same face


class CameraParams(Params):
    focal: float = Field(CROP_FOCAL, gt=0.0, description="units of the crop's side")  # measured on the mean head
    # SphereHead App. 0.B takes 3DDFA_V2's rotation; the file is the user's, and landmarks then say where the face is
    rotation: Literal["landmarks", "tddfa_v2"] = Field("landmarks", description="what says how the face is turned")
    radius: Literal["fixed", "measured"] = "fixed"  # EG3D 'orig' mode renormalises the distance to 2.7
    # SphereHead App. 0.B allows 90, with 3DDFA_V2; of FaceMesh, labels beyond 60 are wrong by 10 degrees and more
    max_yaw: float = Field(60.0, description="degrees")
    max_pitch: float = Field(80.0, description="degrees")  # SphereHead App. 0.B
    max_roll: float = Field(50.0, description="degrees")  # SphereHead App. 0.B
    max_residual: float = Field(15.0, description="per cent of the outer eye distance")  # unpublished: our choice


# FaceMesh's points at those of the 68 that have a certain place on it, from 17 on (brows, nose, eyes, mouth); the jaw's
# follow the outline in 2D, so that only the chin's, the first here, is of use.
CHIN, INNER = 8, 17
JAW = (234, 454)  # before the ears, where the 68 begin and end
_NOSE = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 98, 97, 2, 326, 327)  # after the brows
_EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
_MOUTH = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87)
OF_68 = dict(zip((CHIN, *range(INNER, 68)), (152, *_NOSE, *_EYES, *_MOUTH)))  # number of the 68: number of the 468
EYE_CORNERS_68 = (list(OF_68).index(36), list(OF_68).index(45))


def solve_camera(crop_points: np.ndarray, focal: float = CROP_FOCAL) -> tuple[np.ndarray, float]:
    """The pose that projects the canonical points onto those found.

    Args:
        crop_points: (468, 2), or (68, 2) by face-alignment's networks, crop coordinates in [0, 1].
        focal: in units of the crop's side.

    Returns:
        (4, 4) camera-to-world, and the root mean square distance in per cent of the outer eye distance.
    """
    world, found, corners = _pairs(crop_points)
    start_turn, _ = cv2.Rodrigues(np.diag([1.0, -1.0, -1.0]))  # a camera right in front
    start_shift = np.array([[0.0], [0.0], [poses.FFHQ_RADIUS]])
    _, turn, shift = cv2.solvePnP(
        world, found, poses.intrinsics(focal), None, start_turn, start_shift, True, cv2.SOLVEPNP_ITERATIVE
    )
    rotation, _ = cv2.Rodrigues(turn)
    return _pose(rotation.T, shift.ravel()), _residual(world @ rotation.T + shift.ravel(), found, focal, corners)


def place_camera(crop_points: np.ndarray, rotation: np.ndarray, focal: float = CROP_FOCAL) -> tuple[np.ndarray, float]:
    """The pose of a known rotation that projects the canonical points best onto those found: linear least squares.

    Args:
        crop_points: as for solve_camera.
        rotation: (3, 3) camera-to-world.
        focal: in units of the crop's side.

    Returns:
        as solve_camera.
    """
    world, found, corners = _pairs(crop_points)
    turned, rays = world @ rotation, (found - 0.5) / focal  # seen along its ray: p.xy + t.xy = ray (p.z + t.z)
    zero, one = np.zeros(len(found)), np.ones(len(found))
    matrix = np.concatenate([np.stack([one, zero, -rays[:, 0]], 1), np.stack([zero, one, -rays[:, 1]], 1)])
    wanted = (rays * turned[:, 2:] - turned[:, :2]).T.ravel()
    shift = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    return _pose(rotation, shift), _residual(turned + shift, found, focal, corners)


def _pairs(crop_points: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Canonical points, the found ones of the same places, and which of them are the outer eye corners."""
    world, found = canonical_points(), crop_points.astype(np.float64)
    if len(found) == 68:
        return world[list(OF_68.values())], found[list(OF_68)], EYE_CORNERS_68
    return world, found, EYE_CORNERS


def _pose(rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(4, 4) camera-to-world from its rotation and where the camera sees the world's origin."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ shift
    return pose


def _residual(seen: np.ndarray, found: np.ndarray, focal: float, corners: tuple[int, int]) -> float:
    """Root mean square distance of (N, 3) points in the camera's axes from those found, % of the outer eye distance."""
    projected = focal * seen[:, :2] / seen[:, 2:] + 0.5
    eyes = np.hypot(*(found[corners[1]] - found[corners[0]]))
    error = np.sqrt(np.mean(np.sum((projected - found) ** 2, axis=1)))
    return float(100 * error / max(eyes, 1e-9))


def angles(pose: np.ndarray) -> tuple[float, float, float]:
    """(yaw, pitch, roll) of a camera-to-world pose in degrees: azimuth, elevation, turn about the viewing axis."""
    forward = pose[:3, 2]
    azimuth, elevation = np.arctan2(-forward[0], -forward[2]), np.arcsin(np.clip(-forward[1], -1, 1))
    upright = poses.look_at(pose[:3, 3], pose[:3, 3] + forward)[:3, :3]
    twist = upright.T @ pose[:3, :3]
    roll = np.arctan2(twist[1, 0], twist[0, 0])
    return float(np.rad2deg(azimuth)), float(np.rad2deg(elevation)), float(np.rad2deg(roll))


def label_of(pose: np.ndarray, radius: str, focal: float = CROP_FOCAL) -> np.ndarray:
    """(25,) label of a pose, its distance to the origin renormalised unless ``radius`` is ``measured``."""
    pose = pose.copy()
    if radius == "fixed":
        pose[:3, 3] *= poses.FFHQ_RADIUS / np.linalg.norm(pose[:3, 3])
    return poses.pack(pose, poses.intrinsics(focal))


def label(samples: Iterator[Sample], params: CameraParams) -> Iterable[dict[str, object]]:
    """One row a crop."""
    for sample in samples:
        quad = np.array(sample.row["quad"]).reshape(4, 2)
        points = np.array(sample.row["points"]).reshape(-1, 3)[:, :2]
        if params.rotation == "tddfa_v2":
            pose, residual = place_camera(to_crop(points, quad), _by_tddfa(sample, points, quad), params.focal)
        else:
            pose, residual = solve_camera(to_crop(points, quad), params.focal)
        yaw, pitch, roll = angles(pose)
        columns = {
            "camera": label_of(pose, params.radius, params.focal).tolist(),
            "yaw": yaw,
            "pitch": pitch,
            "roll": roll,
            "residual": residual,
            "distance": float(np.linalg.norm(pose[:3, 3])),  # as measured, before it is renormalised
        }
        reason = _why_not(params, yaw, pitch, roll, residual, behind=pose[:3, 3] @ pose[:3, 2] > 0)
        yield keep(sample, **columns) if reason is None else reject(sample, reason, **columns)


def _by_tddfa(sample: Sample, points: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """(3, 3) camera-to-world of a crop; the network knows faces from the brows to the chin, in the upright picture."""
    below = points if len(points) == 68 else points[[*OF_68.values(), *JAW]]
    from ops.perception.tddfa import face_rotation  # the user's: not loaded where it is not asked for

    rotation = face_rotation(sample.decode(), below, require("tddfa_v2"), require("tddfa_v2_statistics"))
    lean = np.eye(3)
    lean[:2, :2] = np.stack([quad[3] - quad[0], quad[1] - quad[0]], axis=1) / quad_side(quad)
    return rotation @ lean


def _why_not(params: CameraParams, yaw: float, pitch: float, roll: float, residual: float, behind: bool) -> str | None:
    if behind or not np.isfinite(residual) or residual > params.max_residual:
        return "camera_not_found"
    if abs(yaw) > params.max_yaw:
        return "turned_too_far"
    if abs(pitch) > params.max_pitch:
        return "tilted_too_far"
    if abs(roll) > params.max_roll:
        return "rolled_too_far"
    return None


@stage("camera", CameraParams)
def main(s: Stage[CameraParams], raw: Path, aligned: Path, landmarks: Path, out: Path) -> None:
    """Find the 25-value camera label of each crop, from its landmarks."""
    code = ["ops.curate.crop", "ops.curate.poses", "ops.perception.tddfa"]
    table = label_shards(s, raw, aligned, label, SCHEMA, joined=[landmarks], code=code)
    decisions = review.read()
    table = table.map(partial(review.apply, decisions=decisions))

    def draw(image: np.ndarray, row: dict[str, object]) -> np.ndarray:
        places = poses.project(np.array(row["camera"]), canonical_points())
        return draw_points(image, from_crop(places, np.array(row["quad"]).reshape(4, 2)), (80, 160, 255))

    finish(s, table, raw, out, draw, lambda row: f"yaw {row['yaw']:+.0f} ({row['residual']:.1f} %)", [aligned])
    kept = tables.kept(tables.read(out, [*tables.NAMES, "residual", "distance"]))
    if len(kept):
        s.metrics({f"median_{name}": _median(kept, name) for name in ("residual", "distance")})


def _median(table: pa.Table, name: str) -> float:
    return round(float(np.median(table.column(name).to_numpy())), 3)


if __name__ == "__main__":
    raise SystemExit(main())
