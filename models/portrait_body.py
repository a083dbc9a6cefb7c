"""From the project's parametric people to what the portrait generator knows of a body.

The generator works in the head frame of its public release, where the face camera stands at distance 1; the people in
the project's world, where FFHQ's square camera stands at 2.7. Both frames have their origin in the head and the same
axes, so one factor leads from the one to the other: that which lets the face camera see what FFHQ's square shows.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from models import camera
from models.parametric.base import JOINTS
from models.portrait_cameras import FACE_VIEW, PORTRAIT_VIEW, ViewConfig, follow, view_label
from models.portrait_pose import Body
from models.render.texture import vertex_normals

HEAD = 1 + JOINTS.index("head")  # behind the root
FFHQ_SQUARE = camera.FFHQ_RADIUS * 1.229 / camera.FFHQ_FOCAL  # world units across FFHQ's square, at the head
UNITS = (
    2 * FACE_VIEW.radius * math.tan(math.radians(FACE_VIEW.fov) / 2) / FFHQ_SQUARE
)  # of the head frame, a world unit


class People(Protocol):
    """What is asked of a parametric model; :class:`models.parametric.person.Person` is one."""

    triangles: Tensor
    skinning_weights: Tensor
    landmarks68: Tensor

    def vertices(self, identity: Tensor, expression: Tensor | None = None, shape: Tensor | None = None) -> Tensor: ...

    def expression_offsets(self, expression: Tensor) -> Tensor: ...

    def joint_transforms(self, shape: Tensor, pose: Tensor, identity: Tensor | None = None) -> Tensor: ...

    def posed(
        self, shape: Tensor, pose: Tensor, identity: Tensor | None = None, expression: Tensor | None = None
    ) -> Tensor: ...


def to_head_frame(transforms: Tensor) -> Tensor:
    """Rigid motions (..., 4, 4) of the world as motions of the head frame: the same turns, shorter ways."""
    scaled = transforms.clone()
    scaled[..., :3, 3] *= UNITS
    return scaled


def camera_to_head_frame(label: Tensor) -> Tensor:
    """Cameras (..., 25) of the world as cameras of the head frame: the same pictures, shorter ways."""
    pose, intrinsic = camera.unpack_label(label)
    return camera.pack_label(to_head_frame(pose), intrinsic)


@torch.no_grad()
def posed_body(people: People, identity: Tensor, shape: Tensor, pose: Tensor, step: int = 1) -> Body:
    """The body that the pose deformation reads.

    Args:
        people: the parametric model.
        identity: (N, 80); shape: (N, 10); pose: (N, 6, 3) axis-angle.
        step: take every so many vertices; the deformation smooths over more than the gaps.
    """
    vertices = people.posed(shape, pose, identity)[:, ::step] * UNITS
    transforms = to_head_frame(people.joint_transforms(shape, pose, identity))
    return Body(vertices, people.skinning_weights[::step], transforms, HEAD)


def face_landmarks(people: People, identity: Tensor, expression: Tensor) -> Tensor:
    """(N, 68, 3) landmarks of the unposed head, head frame; differentiable."""
    return people.vertices(identity, expression)[:, people.landmarks68] * UNITS


@torch.no_grad()
def expressive_face(people: People, identity: Tensor, expression: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """Neutral vertices and what the expression adds to them, (N, M, 3) each, head frame.

    Args:
        moving: (M,) the vertices to take, such as those that any expression moves.
    """
    return people.vertices(identity)[:, moving] * UNITS, people.expression_offsets(expression)[:, moving] * UNITS


@torch.no_grad()
def neutral_surface(people: People, identity: Tensor, shape: Tensor, step: int = 1) -> tuple[Tensor, Tensor]:
    """Vertices of neutral bodies and their outward normals, (N, V, 3) each, head frame; every ``step``-th vertex."""
    vertices = people.vertices(identity, None, shape)
    normals = vertex_normals(vertices, people.triangles)
    return vertices[:, ::step] * UNITS, normals[:, ::step]


def portrait_label(label: Tensor, view: ViewConfig = PORTRAIT_VIEW) -> Tensor:
    """Portrait cameras (N, 25): from the side on which cameras (N, 25) about the body stand, upright, at the view's
    distance from its pivot. Both in the head frame."""
    pivot = label.new_tensor(view.pivot)
    x, y, z = (label[:, [3, 7, 11]] - pivot).unbind(-1)
    return view_label(view, torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z)))


def face_camera(portrait: Tensor, head_transform: Tensor, view: ViewConfig = FACE_VIEW) -> Tensor:
    """The face camera that looks at a posed head from where the portrait camera stands (paper, Section 3.4).

    Args:
        portrait: (N, 25) portrait cameras, head frame.
        head_transform: (N, 4, 4) motion of the head.
        view: distance and field of view.

    Returns:
        (N, 25): upright with the head, at the view's distance from the head's middle.
    """
    local = follow(portrait, torch.linalg.inv(head_transform))
    pose, _ = camera.unpack_label(local)
    x, y, z = pose[:, :3, 3].unbind(-1)
    azimuth, elevation = torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))
    return follow(view_label(view, azimuth, elevation), head_transform)
