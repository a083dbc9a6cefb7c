"""The default face and body model of the fits and the generators: anny's people in few numbers.

anny describes a person by 108 values with limits of their own; a 3DMM does it by codes without limits, in standard
deviations. So the crowd of :mod:`models.parametric.population` is taken apart by principal components
(:mod:`models.parametric.person_basis`): 80 values for head and neck, 10 for the rest of the body, independent and of
unit variance in that crowd. Expression stays the 52 named face units, pose the six joints. It is all one mesh: a
vertex moves with the head's code and with the body's by weights that sum to one and change smoothly along the neck,
so any head stands on any shoulders without a seam.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.parametric.anny import chain_transforms, skin
from models.parametric.base import JOINTS, SurfacePoints

IDENTITY, EXPRESSION, SHAPE = 80, 52, 10  # AniPortraitGAN's z_id has 80 as BFM's identities; SMPL's shapes have 10


class Person(nn.Module):
    """Face and body model in one (see :mod:`models.parametric.base`), linear in identity, expression and shape.

    All vertices are in the head frame, world units.

    Args:
        tensors: what :func:`models.parametric.person_basis.build` makes; :func:`load_person` reads it.
        expression_names: ARKit's names of the 52 units.

    Attributes:
        mean_identity: (80,) zeros: codes are in standard deviations of the crowd.
        head_share: (V,) in [0, 1]: how much each vertex belongs to the head rather than to the body.
        uv, uv_triangles: (U, 2) texture coordinates in [0, 1], v upwards, and the (F, 3) corners' indices into them.
        albedo: None: this model knows no colours.
    """

    identity_size = IDENTITY
    expression_size = EXPRESSION
    shape_size = SHAPE
    joint_names = JOINTS
    albedo: Tensor | None = None

    triangles: Tensor
    mean: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    shape_basis: Tensor
    joint_mean: Tensor
    joint_identity: Tensor
    joint_shape: Tensor
    skinning_weights: Tensor
    head_share: Tensor
    parts: Tensor
    mirror: Tensor
    landmarks68: Tensor
    uv: Tensor
    uv_triangles: Tensor
    explained: Tensor
    mean_identity: Tensor

    def __init__(self, tensors: dict[str, Tensor], expression_names: tuple[str, ...]) -> None:
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value.long() if value.dtype == torch.int32 else value, persistent=False)
        self.register_buffer("mean_identity", torch.zeros(IDENTITY), persistent=False)
        self.expression_names = expression_names

    @property
    def mirrored_units(self) -> tuple[int, ...]:
        """Of each expression unit, the one that takes its place in a face mirrored left to right.

        Identities have no sides: their codes stay as they are.
        """
        place = {name: number for number, name in enumerate(self.expression_names)}
        sides = {"Left": "Right", "Right": "Left"}

        def other(name: str) -> str:
            return next((name.removesuffix(a) + b for a, b in sides.items() if name.endswith(a)), name)

        return tuple(place[other(name)] for name in self.expression_names)

    @property
    def facemesh(self) -> SurfacePoints:
        """Where FaceMesh's 468 points lie on the surface."""
        read = self.get_buffer
        return SurfacePoints(read("facemesh_triangle"), read("facemesh_barycentric"), read("facemesh_valid"))

    def vertices(self, identity: Tensor, expression: Tensor | None = None, shape: Tensor | None = None) -> Tensor:
        """Unposed vertices.

        Args:
            identity: (N, 80) codes, standard deviations.
            expression: (N, 52) units in [0, 1]; none: the neutral face.
            shape: (N, 10) body codes, standard deviations; none: the mean body.

        Returns:
            (N, V, 3), head frame.

        Raises:
            ValueError: a code of another length.
        """
        rest = self.mean + combine(identity, self.identity_basis, "identity")
        if shape is not None:
            rest = rest + combine(shape, self.shape_basis, "shape")
        return rest if expression is None else rest + self.expression_offsets(expression)

    def expression_offsets(self, expression: Tensor) -> Tensor:
        """(N, 52) units to (N, V, 3) offsets of the rest vertices, the same for everyone."""
        return combine(expression, self.expression_basis, "expression")

    def joints(self, shape: Tensor, identity: Tensor | None = None) -> Tensor:
        """(N, 6, 3) rest positions of ``joint_names`` for body shapes (N, 10) under the mean or a given head."""
        places = self.joint_mean + combine(shape, self.joint_shape, "shape")
        return places if identity is None else places + combine(identity, self.joint_identity, "identity")

    def joint_transforms(self, shape: Tensor, pose: Tensor, identity: Tensor | None = None) -> Tensor:
        """(N, 7, 4, 4) rest-to-posed transforms of torso and joints; pose (N, 6, 3) axis-angle about world axes."""
        return chain_transforms(self.joints(shape, identity), pose)

    def posed(
        self, shape: Tensor, pose: Tensor, identity: Tensor | None = None, expression: Tensor | None = None
    ) -> Tensor:
        """Posed vertices (N, V, 3); the torso stays where it is, as the root does."""
        if identity is None:
            identity = self.mean_identity.expand(len(shape), -1)
        rest = self.vertices(identity, expression, shape)
        return skin(rest, self.skinning_weights, self.joint_transforms(shape, pose, identity))

    def encode(self, rest: Tensor) -> tuple[Tensor, Tensor]:
        """The codes whose neutral vertices come nearest to given ones of the same mesh.

        Args:
            rest: (N, V, 3) neutral, unposed vertices, head frame.

        Returns:
            identity (N, 80) and shape (N, 10).
        """
        basis = torch.cat([self.identity_basis, self.shape_basis]).flatten(1)
        moment = (rest - self.mean).flatten(1) @ basis.T
        codes = torch.linalg.solve(basis @ basis.T, moment, left=False)
        return codes[:, :IDENTITY], codes[:, IDENTITY:]


def combine(code: Tensor, basis: Tensor, name: str) -> Tensor:
    """(N, K) codes on a (K, V, 3) basis to (N, V, 3)."""
    if code.dim() != 2 or code.shape[1] != len(basis):
        raise ValueError(f"{name} must be (N, {len(basis)}), not {tuple(code.shape)}")
    return (code @ basis.flatten(1)).unflatten(1, basis.shape[1:])


def load_person(folder: Path | None = None) -> Person:
    """The model from its cached basis, building it first (about two seconds) if there is none yet.

    Args:
        folder: where the basis and anny's cut are kept; :func:`models.parametric.anny.cache_folder` if not given.

    Raises:
        ImportError: there is neither a basis nor a cut file, and anny is not installed.
    """
    from models.parametric import person_basis

    tensors, names = person_basis.load(folder)
    return Person(tensors, names)
