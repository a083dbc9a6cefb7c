"""What every parametric model of a person offers; studio, fits and generators need not know which one they hold.

All models are batched, differentiable torch modules that run where their buffers are. Vertices come in the project's
world frame (y up, the face towards +z, the subject's left at +x), in world units: ``UNITS_PER_METRE`` a metre, so
that EG3D's camera radius of 2.7 stands one metre from the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

UNITS_PER_METRE = 2.7

# The six joints that the project's people move, after the root (the torso).
JOINTS = ("neck", "head", "collar_left", "collar_right", "shoulder_left", "shoulder_right")


@dataclass(frozen=True)
class SurfacePoints:
    """Points that ride on a mesh's surface.

    Attributes:
        triangle: (L,) int64 index of each point's triangle.
        barycentric: (L, 3) weights of its corners, which sum to one.
        valid: (L,) bool: whether the point has a good place on this mesh; others lie somewhere near.
    """

    triangle: Tensor
    barycentric: Tensor
    valid: Tensor

    def on(self, vertices: Tensor, triangles: Tensor) -> Tensor:
        """(N, V, 3) vertices and their (F, 3) triangles to (N, L, 3) points."""
        corners = vertices[:, triangles[self.triangle]]
        return (corners * self.barycentric.to(vertices)[..., None]).sum(2)


@runtime_checkable
class FaceModel(Protocol):
    """A face or head: identity and expression to vertices.

    Attributes:
        triangles: (F, 3) int64 vertex indices, counter-clockwise seen from outside.
        identity_size, expression_size: lengths of the two codes.
        mean_identity: (identity_size,) code of the mean person.
        landmarks68: (68,) int64 vertices at the 68 iBUG points, in iBUG's order.
    """

    triangles: Tensor
    identity_size: int
    expression_size: int
    mean_identity: Tensor
    landmarks68: Tensor

    def vertices(self, identity: Tensor, expression: Tensor | None = None) -> Tensor:
        """(N, identity_size) and (N, expression_size) codes to (N, V, 3) vertices, head frame."""


@runtime_checkable
class BodyModel(Protocol):
    """A body: shape and pose to vertices by linear blend skinning.

    Attributes:
        triangles: (F, 3) int64.
        joint_names: names of the J posed joints.
        skinning_weights: (V, 1 + J), the root first; rows sum to one.
    """

    triangles: Tensor
    joint_names: tuple[str, ...]
    skinning_weights: Tensor

    def joints(self, shape: Tensor) -> Tensor:
        """(N, J, 3) rest positions of the posed joints."""

    def joint_transforms(self, shape: Tensor, pose: Tensor) -> Tensor:
        """(N, 1 + J, 4, 4) rest-to-posed transforms of root and joints; pose (N, J, 3) axis-angle, radians."""

    def posed(self, shape: Tensor, pose: Tensor) -> Tensor:
        """(N, V, 3) posed vertices."""
