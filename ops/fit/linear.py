"""The few points of a face model that a fit looks at, as a linear model of identity and expression.

A parametric face whose identities are a PCA basis is linear in both codes, so at fixed places of its surface it is a
mean and two small bases: all that the solver needs, and the reason why its Jacobian costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from models.parametric.base import FaceModel


@dataclass(frozen=True)
class LinearFace:
    """P points of a face as a linear function of its codes.

    Attributes:
        mean: (P, 3) points of the mean person, head frame, world units.
        identity: (I, P, 3) movement by one unit of each identity code (a standard deviation).
        expression: (E, P, 3) movement by each expression unit from 0 to 1.
        normals: (P, 3) outward unit normals of the mean person's surface there.
    """

    mean: Tensor
    identity: Tensor
    expression: Tensor
    normals: Tensor

    def points(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Codes (N, I) and (N, E) to (N, P, 3) points in the head frame."""
        moved = identity @ self.identity.flatten(1) + expression @ self.expression.flatten(1)
        return self.mean + moved.unflatten(1, (-1, 3))

    def to(self, *target: torch.device | torch.dtype | str) -> LinearFace:
        """The same on another device or in another type."""
        return LinearFace(*(getattr(self, field.name).to(*target) for field in fields(self)))


def linear_face(model: FaceModel, corners: Tensor, weights: Tensor, offset: Tensor | None = None) -> LinearFace:
    """The linear model at points of a face model's surface.

    Args:
        model: must be linear in both codes.
        corners: (P, 3) int64 vertices of the triangle that each point lies in.
        weights: (P, 3) barycentric weights within it.
        offset: (P, 3) what a landmark lies away from its point of the surface on the mean face: the detector's own
            habit, calibrated away.

    Raises:
        ValueError: a vertex index that the model does not have, as with correspondences made for another mesh.
    """
    zero_i = torch.zeros(1, model.identity_size)
    zero_e = torch.zeros(1, model.expression_size)
    with torch.no_grad():
        mean = model.vertices(zero_i, zero_e)[0].double()
        if int(corners.max()) >= len(mean):
            raise ValueError(
                f"the correspondences name vertex {int(corners.max())}, and the face model has {len(mean)} vertices: "
                "they were made for another mesh"
            )
        units_i, units_e = torch.eye(model.identity_size), torch.eye(model.expression_size)
        identity = model.vertices(units_i, zero_e.expand(len(units_i), -1)).double() - mean
        expression = model.vertices(zero_i.expand(len(units_e), -1), units_e).double() - mean

    def at(values: Tensor) -> Tensor:
        return (values[..., corners, :] * weights.double().unsqueeze(-1)).sum(-2)

    a, b, c = (mean[corners[:, i]] for i in range(3))
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    shift = torch.zeros(len(corners), 3) if offset is None else offset
    return LinearFace(at(mean) + shift.double(), at(identity), at(expression), normals)
