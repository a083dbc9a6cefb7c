"""How far each label lies from the studio's truth, sample by sample: rows of one long table.

A row says which method was how wrong about which quantity of which sample. Everything is measured in the upright
picture: a crop's camera is turned back by the crop's own turn, and angles are those of the camera's place about the
head, so that they mean the same for every crop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.spatial.transform import Rotation

from models.parametric.base import JOINTS, UNITS_PER_METRE
from ops.curate.crop import crop_quad
from ops.store import pictures, tables
from ops.store.parsing import CLASSES
from ops.store.tar import Shard, shard_paths

SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("source", "id", "method", "quantity")),
        pa.field("value", pa.float64()),
        pa.field("azimuth", pa.float64()),
        pa.field("identity", pa.int64()),
    ]
)
OUTER_EYES = (36, 45)  # of iBUG's 68
OF_ALIGN = ("camera", "fit_face")  # tables whose labels belong to align's square; others bring a quad of their own


@dataclass(frozen=True)
class Truth:
    """What is known of one picture or frame."""

    row: dict[str, Any]

    def array(self, name: str, *shape: int) -> np.ndarray | None:
        """A column as an array, or None where it is not known."""
        value = self.row.get(name)
        return None if value is None else np.asarray(value, np.float64).reshape(shape)

    @property
    def pose(self) -> np.ndarray:
        """(4, 4) camera-to-world."""
        return np.asarray(self.row["camera"], np.float64)[:16].reshape(4, 4)

    def eye_distance(self, side: float) -> float | None:
        """The outer eye corners' distance in pixels, as it would be seen from straight ahead."""
        points = self.array("landmarks68", 68, 3)
        if points is None:
            return None
        right, left = points[list(OUTER_EYES)]
        depth = ((right + left) / 2 - self.pose[:3, 3]) @ self.pose[:3, 2]
        return float(np.linalg.norm(left - right) * self.row["camera"][16] * side / depth)


def read_truth(folder: Path) -> dict[str, Truth]:
    """The pictures of one person with a known camera, by id; empty for a source without truth."""
    path = folder / "truth.parquet"
    rows = pq.read_table(path).to_pylist() if path.is_file() else []
    return {row["id"]: Truth(row) for row in rows if row.get("camera") is not None}


def turned_back(pose: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """The pose (4, 4) of a crop's camera with its axes along the whole picture's, for the crop's square (4, 2)."""
    across = (quad[3] - quad[0]) / np.hypot(*(quad[3] - quad[0]))
    turn = np.array([[across[0], across[1], 0], [-across[1], across[0], 0], [0, 0, 1]])
    found = pose.copy()
    found[:3, :3] = pose[:3, :3] @ turn
    return found


def angles(pose: np.ndarray) -> np.ndarray:
    """Yaw and pitch of the camera's place about the head's centre, and the lean of the head's axis in the picture;
    degrees."""
    x, y, z = pose[:3, 3]
    up = pose[:3, :3].T @ [0.0, 1.0, 0.0]
    centre = pose[:3, :3].T @ -pose[:3, 3]
    lean = up[:2] - centre[:2] * (up[2] / centre[2])  # how the axis projects at the head's centre
    return np.degrees([np.arctan2(x, z), np.arcsin(y / np.linalg.norm([x, y, z])), np.arctan2(lean[0], -lean[1])])


def angle_errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(3,) absolute differences in degrees, the short way round."""
    return np.abs((angles(found) - angles(true) + 180) % 360 - 180)


def camera_rows(row: dict[str, Any], quad: np.ndarray, truth: Truth) -> Iterator[tuple[str, float]]:
    """yaw, pitch and roll errors of one label."""
    pose = np.asarray(row["camera"], np.float64)[:16].reshape(4, 4)
    errors = angle_errors(turned_back(pose, quad), truth.pose)
    yield from zip(("yaw", "pitch", "roll"), errors.tolist())


def landmark_rows(row: dict[str, Any], truth: Truth, side: float) -> Iterator[tuple[str, float]]:
    """FaceMesh's points against where they lie on the true surface, those that are seen."""
    points, shown, eyes = (
        truth.array("facemesh_2d", 468, 2),
        truth.array("facemesh_visible", 468),
        truth.eye_distance(side),
    )
    if points is None or shown is None or not eyes or not shown.any():
        return
    found = np.asarray(row["points"], np.float64).reshape(468, 3)[:, :2]
    distance = np.hypot(*(found - points).T)
    yield "landmarks", float(100 * distance[shown > 0].mean() / eyes)


def identity_rows(row: dict[str, Any], truth: Truth) -> Iterator[tuple[str, str, float]]:
    """Mean distance of the head's vertices after a rigid alignment, fitted and for the mean person, millimetres."""
    from ops.fit.target import target

    code = truth.array("identity_code", 1, 80)
    if code is None:
        return
    model = target().model
    codes = np.concatenate([code, np.asarray(row["identity"])[None], np.zeros((1, 80))])
    head = model.head_share > 0.9
    true, *others = model.vertices(torch.from_numpy(codes).float())[:, head].double().numpy()
    for method, other in zip(("fit_face", "mean_person"), others):
        yield method, "head_vertices_mm", rigid_distance(other, true) / UNITS_PER_METRE * 1000


def rigid_distance(points: np.ndarray, to: np.ndarray) -> float:
    """Mean distance of (P, 3) points to their partners after the best rotation and shift."""
    a, b = points - points.mean(0), to - to.mean(0)
    u, _, v = np.linalg.svd(a.T @ b)
    u[:, -1] *= np.linalg.det(u @ v)
    return float(np.linalg.norm(a @ (u @ v) - b, axis=1).mean())


def pose_rows(row: dict[str, Any], truth: Truth) -> Iterator[tuple[str, str, float]]:
    """Angles between true joint rotations and the fitted ones, and those of the mean pose, degrees.

    ``head_to_torso`` is the turn of neck and head together, which is what a picture shows.
    """
    from ops.fit.torso import usual_pose

    true = truth.array("pose", 6, 3)
    if true is None:
        return
    for method, pose in (("fit_body", np.asarray(row["pose"]).reshape(6, 3)), ("mean_pose", usual_pose().numpy())):
        found, goal = Rotation.from_rotvec(np.asarray(pose, np.float64)), Rotation.from_rotvec(true)
        apart = np.degrees((found * goal.inv()).magnitude())
        yield from ((method, f"joint_{name}", value) for name, value in zip(JOINTS, apart.tolist()))
        yield method, "joint_angle", float(apart.mean())
        turned = found[0] * found[1] * (goal[0] * goal[1]).inv()
        yield method, "head_to_torso", float(np.degrees(turned.magnitude()))


def side_cars(folder: Path) -> dict[str, Shard]:
    """By id, the side-car tar that holds it; empty where the stage has not run."""
    if not folder.is_dir():
        return {}
    return {key: shard for shard in map(Shard, shard_paths(folder)) for key in shard.keys}


def mask_overlap(found: np.ndarray, true: np.ndarray, quad: np.ndarray) -> float:
    """Intersection over union of a crop's mask and the picture's true one; (H, W) uint8, person from 128 on."""
    cut = crop_quad(np.repeat(true[..., None], 3, axis=2), quad, len(found))[..., 0] >= 128
    person = found >= 128
    union = (cut | person).sum()
    return float((cut & person).sum() / union) if union else 1.0


def class_overlaps(found: np.ndarray, true: np.ndarray, quad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(19,) intersections and unions in pixels of a crop's parsing and the picture's true one."""
    size = len(found)
    step = np.stack([quad[3] - quad[0], quad[1] - quad[0]], axis=1) / size
    shift = quad[0] + step @ [0.5, 0.5] - 0.5
    matrix = np.concatenate([step, shift[:, None]], axis=1)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(true, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    both = np.bincount(cut.ravel().astype(int) * len(CLASSES) + found.ravel(), minlength=len(CLASSES) ** 2)
    confusion = both[: len(CLASSES) ** 2].reshape(len(CLASSES), len(CLASSES))
    inside = confusion.diagonal()
    return inside.astype(float), (confusion.sum(0) + confusion.sum(1) - inside).astype(float)


def kept_rows(path: Path) -> list[dict[str, Any]]:
    """The kept rows of a label table; none where the stage has not run."""
    return tables.kept(tables.read(path)).to_pylist() if path.is_file() else []


def read_grey(shard: Shard, key: str, field: str) -> np.ndarray:
    """A mask or parsing of a tar."""
    return pictures.decode_grey(shard.read(key, field))
