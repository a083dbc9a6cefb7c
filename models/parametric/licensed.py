"""Face and body models of a user's own files: SMPL, SMPL-X, FLAME, BFM 2009, FaceVerse v3.

:mod:`ops.parametric.convert` turns a file into the tensors that these classes take, in the project's frame and units
(see :mod:`models.parametric.base`). Codes are as in the file: standard deviations in all five.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.parametric.anny import axis_angle_matrix, chain_transforms, skin
from models.parametric.base import SurfacePoints
from models.parametric.person import combine


class LinearFace(nn.Module):
    """A mean and two bases: BFM, FaceVerse, and what FLAME and SMPL-X do to a face.

    Args:
        tensors: ``mean`` (V, 3), ``identity_basis`` (I, V, 3), ``triangles`` (F, 3); where the model has them also
            ``expression_basis`` (E, V, 3), ``landmarks68`` (68,), ``facemesh`` (468,) vertices at FaceMesh's points,
            ``albedo`` (V, 3) mean colour in [0, 1] and ``albedo_basis`` (A, V, 3), ``uv`` (U, 2), ``uv_triangles``
            (F, 3), ``eyeballs`` (V,) 1 and 2 on the first and the second eyeball, else 0.

    Attributes:
        landmarks68, facemesh: empty and None where the file does not say.
    """

    triangles: Tensor
    mean: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    mean_identity: Tensor
    landmarks68: Tensor

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        optional = {
            "expression_basis": tensors["mean"].new_zeros(0, *tensors["mean"].shape),
            "landmarks68": torch.zeros(0, dtype=torch.long),
        }
        for name, value in {**optional, **tensors}.items():
            buffer = value if value.is_floating_point() else value.long()
            self.register_buffer("facemesh_vertices" if name == "facemesh" else name, buffer, persistent=False)
        self.identity_size = len(self.identity_basis)
        self.expression_size = len(self.expression_basis)
        self.register_buffer("mean_identity", self.mean.new_zeros(self.identity_size), persistent=False)

    @property
    def facemesh(self) -> SurfacePoints | None:
        """Where FaceMesh's 468 points lie, where the file says so."""
        vertices = dict(self.named_buffers()).get("facemesh_vertices")
        if vertices is None:
            return None
        at = (self.triangles[None] == vertices[:, None, None]).flatten(1).int()
        corner = at.argmax(1)  # the first triangle's corner that is the vertex
        weights = torch.nn.functional.one_hot(corner % 3, 3).to(self.mean)
        return SurfacePoints(corner // 3, weights, at.any(1))

    def vertices(self, identity: Tensor, expression: Tensor | None = None, gaze: Tensor | None = None) -> Tensor:
        """Vertices (N, V, 3) in the head frame.

        Args:
            identity: (N, identity_size).
            expression: (N, expression_size); none: the neutral face.
            gaze: (N, 2, 2) turns of the two eyeballs down and to the subject's left, radians; FaceVerse has them.

        Raises:
            ValueError: a code of another length, or a gaze for a model without eyeballs.
        """
        rest = self.mean + combine(identity, self.identity_basis, "identity")
        moved = rest if expression is None else rest + combine(expression, self.expression_basis, "expression")
        return moved if gaze is None else self._look(rest, moved, gaze)

    def _look(self, rest: Tensor, moved: Tensor, gaze: Tensor) -> Tensor:
        eyeballs = dict(self.named_buffers()).get("eyeballs")
        if eyeballs is None:
            raise ValueError("this model has no eyeballs to turn")
        if gaze.shape != (len(rest), 2, 2):
            raise ValueError(f"gaze must be ({len(rest)}, 2, 2), not {tuple(gaze.shape)}")
        for number in (1, 2):
            of = (eyeballs == number)[None, :, None]
            down, left = gaze[:, number - 1].unbind(-1)
            zero = torch.zeros_like(down)
            turn = axis_angle_matrix(torch.stack([zero, left, zero], -1)) @ axis_angle_matrix(
                torch.stack([down, zero, zero], -1)
            )
            centre = (rest * of).sum(1, keepdim=True) / of.sum()
            moved = torch.where(of, (moved - centre) @ turn.mT + centre, moved)
        return moved


class LinearBody(LinearFace):
    """A skinned model: SMPL, SMPL-X, FLAME. Its first joint is the root, which does not move.

    Args:
        tensors: those of LinearFace, and ``joint_mean`` (1 + J, 3), ``joint_identity`` (I, 1 + J, 3),
            ``joint_expression`` (E, 1 + J, 3), ``skinning_weights`` (V, 1 + J), ``pose_basis`` (9 J, V, 3): what the
            entries of the joints' rotations, less the identity, add to the vertices.
        joint_names: of the J joints after the root.
        parents: of the 1 + J joints, -1 for the root; parents come first.
    """

    skinning_weights: Tensor

    def __init__(self, tensors: dict[str, Tensor], joint_names: Sequence[str], parents: Sequence[int]) -> None:
        super().__init__(tensors)
        self.joint_names = tuple(joint_names)
        self.parents = tuple(parents)
        self.shape_size = self.identity_size

    def joints(self, shape: Tensor, expression: Tensor | None = None) -> Tensor:
        """(N, J, 3) rest positions of ``joint_names``."""
        return self._all_joints(shape, expression)[:, 1:]

    def _all_joints(self, shape: Tensor, expression: Tensor | None) -> Tensor:
        joints = self.get_buffer("joint_mean") + combine(shape, self.get_buffer("joint_identity"), "shape")
        if expression is not None:
            joints = joints + combine(expression, self.get_buffer("joint_expression"), "expression")
        return joints

    def joint_transforms(self, shape: Tensor, pose: Tensor, expression: Tensor | None = None) -> Tensor:
        """(N, 1 + J, 4, 4) rest-to-posed transforms of root and joints; pose (N, J, 3) axis-angle, radians."""
        if pose.shape[1:] != (len(self.joint_names), 3):
            raise ValueError(f"pose must be (N, {len(self.joint_names)}, 3), not {tuple(pose.shape)}")
        return chain_transforms(self.joints(shape, expression), pose, self.parents)

    def posed(self, shape: Tensor, pose: Tensor, expression: Tensor | None = None) -> Tensor:
        """(N, V, 3) posed vertices, with the model's pose-dependent corrections."""
        transforms = self.joint_transforms(shape, pose, expression)
        turned = (axis_angle_matrix(pose) - torch.eye(3).to(pose)).flatten(1)
        rest = self.vertices(shape, expression) + combine(turned, self.get_buffer("pose_basis"), "pose")
        return skin(rest, self.skinning_weights, transforms)
