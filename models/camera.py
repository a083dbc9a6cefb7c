"""The one camera of the project: the 25-value label, poses on a sphere, rays through pixels.

Frames. World: y up, the face looks towards +z, the subject's left is +x. Camera: OpenCV axes (x right, y down,
z forward). A label ``c`` is the row-major 4x4 camera-to-world matrix followed by the row-major 3x3 intrinsics,
normalised by the image side, as in EG3D's data sets.

Angles. ``azimuth = atan2(x, z)`` of the camera centre: 0 in front, +pi/2 on the subject's left, +-pi behind.
``elevation`` is positive above the horizon. ``roll`` turns the camera clockwise about its viewing axis.

A trap worth knowing: FFHQ's focal length 4.2647 is a *horizontal* field of view of 13.37 degrees; the 18.837
degrees in EG3D's scripts is the *diagonal* one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FFHQ_FOCAL = 2985.29 / 700  # EG3D's FFHQ labels: focal length in units of the image side
FFHQ_RADIUS = 2.7  # EG3D: distance from the camera to the pivot
LABEL_SIZE = 25
# Entries of the label that change sign when picture and world are mirrored left to right.
_MIRROR_ENTRIES = (1, 2, 3, 4, 8)


def intrinsics(focal: float | Tensor = FFHQ_FOCAL, skew: float = 0.0) -> Tensor:
    """Normalised intrinsics ``[[f, s, .5], [0, f, .5], [0, 0, 1]]``.

    Args:
        focal: focal length in units of the image side; a number or a tensor of shape (...).
        skew: shear of the pixel grid, same units.

    Returns:
        (..., 3, 3) matrices.
    """
    f = torch.as_tensor(focal, dtype=torch.get_default_dtype() if isinstance(focal, float | int) else None)
    matrix = torch.zeros(*f.shape, 3, 3, dtype=f.dtype, device=f.device)
    matrix[..., 0, 0] = f
    matrix[..., 1, 1] = f
    matrix[..., 0, 1] = skew
    matrix[..., 0, 2] = matrix[..., 1, 2] = 0.5
    matrix[..., 2, 2] = 1.0
    return matrix


def focal_from_fov(degrees: float) -> float:
    """Focal length in units of the image side from a horizontal field of view in degrees."""
    return 0.5 / math.tan(math.radians(degrees) / 2)


def pack_label(cam2world: Tensor, intrinsic: Tensor) -> Tensor:
    """(..., 4, 4) poses and (..., 3, 3) intrinsics to (..., 25) labels; the batch shapes broadcast."""
    # not torch.broadcast_shapes, which imports sympy: most of a second in every process
    shape = torch.broadcast_tensors(cam2world[..., 0, 0], intrinsic[..., 0, 0])[0].shape
    pose = cam2world.expand(*shape, 4, 4).reshape(*shape, 16)
    return torch.cat([pose, intrinsic.to(pose).expand(*shape, 3, 3).reshape(*shape, 9)], dim=-1)


def unpack_label(label: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 25) labels to ((..., 4, 4) camera-to-world poses, (..., 3, 3) intrinsics).

    Raises:
        ValueError: if the last dimension is not 25.
    """
    if label.shape[-1] != LABEL_SIZE:
        raise ValueError(f"a camera label has {LABEL_SIZE} values, not {label.shape[-1]}")
    return label[..., :16].unflatten(-1, (4, 4)), label[..., 16:].unflatten(-1, (3, 3))


def mirror_label(label: Tensor) -> Tensor:
    """The label of the picture mirrored left to right. Applying it twice is the identity."""
    sign = torch.ones(LABEL_SIZE, dtype=label.dtype, device=label.device)
    sign[list(_MIRROR_ENTRIES)] = -1
    return label * sign


def look_at(origin: Tensor, target: Tensor, roll: Tensor | float = 0.0) -> Tensor:
    """Camera-to-world poses at ``origin`` looking at ``target`` with the world's y axis up in the picture.

    Args:
        origin: (..., 3) camera centres.
        target: (..., 3) points in the middle of the picture.
        roll: (...) radians, clockwise about the viewing axis.

    Returns:
        (..., 4, 4) rigid transforms. Straight above or below the target, world +z takes the part of "up".
    """
    origin, target = torch.broadcast_tensors(origin, target)
    forward = torch.nn.functional.normalize(target - origin, dim=-1)
    up = torch.zeros_like(forward)
    up[..., 1] = 1.0
    fallback = torch.zeros_like(forward)
    fallback[..., 2] = 1.0
    vertical = forward[..., 1:2].abs() > 1 - 1e-6
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, torch.where(vertical, fallback, up)), dim=-1)
    down = torch.linalg.cross(forward, right)
    angle = torch.as_tensor(roll, dtype=origin.dtype, device=origin.device).unsqueeze(-1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    pose = torch.zeros(*origin.shape[:-1], 4, 4, dtype=origin.dtype, device=origin.device)
    pose[..., :3, 0] = cos * right + sin * down
    pose[..., :3, 1] = cos * down - sin * right
    pose[..., :3, 2] = forward
    pose[..., :3, 3] = origin
    pose[..., 3, 3] = 1.0
    return pose


def pose_on_sphere(
    azimuth: Tensor,
    elevation: Tensor,
    radius: Tensor | float = FFHQ_RADIUS,
    pivot: Tensor | None = None,
    roll: Tensor | float = 0.0,
) -> Tensor:
    """Camera-to-world poses on a sphere about ``pivot``, looking at it.

    Args:
        azimuth: (...) radians, 0 in front of the face, positive towards the subject's left.
        elevation: (...) radians above the horizon.
        radius: distance to the pivot, world units.
        pivot: (..., 3) or (3,) point looked at; the origin if not given.
        roll: (...) radians.

    Returns:
        (..., 4, 4) transforms.
    """
    azimuth, elevation = torch.broadcast_tensors(azimuth, elevation)
    offset = torch.stack(
        [elevation.cos() * azimuth.sin(), elevation.sin(), elevation.cos() * azimuth.cos()], dim=-1
    ) * torch.as_tensor(radius, dtype=azimuth.dtype, device=azimuth.device).unsqueeze(-1)
    centre = torch.zeros_like(offset) if pivot is None else pivot.to(offset).expand_as(offset)
    return look_at(centre + offset, centre, roll)


def spherical_angles(cam2world: Tensor, pivot: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """(azimuth, elevation, radius) of the camera centres about ``pivot``; the inverse of :func:`pose_on_sphere`."""
    offset = cam2world[..., :3, 3]
    if pivot is not None:
        offset = offset - pivot.to(offset)
    radius = offset.norm(dim=-1)
    elevation = torch.asin((offset[..., 1] / radius.clamp_min(1e-12)).clamp(-1, 1))
    return torch.atan2(offset[..., 0], offset[..., 2]), elevation, radius


def check_label(label: Tensor, tolerance: float = 1e-3) -> None:
    """Raise ValueError unless every (..., 25) label holds a proper rotation, a homogeneous row and a finite focal."""
    pose, intrinsic = unpack_label(label.double())
    if not torch.isfinite(label).all():
        raise ValueError("camera label holds NaN or infinity")
    rotation = pose[..., :3, :3]
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    worst = (rotation @ rotation.transpose(-1, -2) - identity).abs().amax().item()
    if worst > tolerance:
        raise ValueError(f"camera label is no rotation: R R^T differs from the identity by {worst:.2e}")
    if (torch.linalg.det(rotation) < 0).any():
        raise ValueError("camera label is a reflection (determinant -1): was the picture mirrored without its label?")
    if (pose[..., 3, :] - identity.new_tensor([0, 0, 0, 1.0])).abs().amax().item() > tolerance:
        raise ValueError("the last row of the camera-to-world matrix is not 0 0 0 1")
    if (intrinsic[..., 0, 0] <= 0).any():
        raise ValueError("camera label has a focal length that is not positive")


def pixel_grid(resolution: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """(resolution**2, 2) pixel centres (u, v) in [0, 1], row by row: u to the right, v down."""
    centres = (torch.arange(resolution, device=device, dtype=dtype or torch.get_default_dtype()) + 0.5) / resolution
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([u, v], dim=-1).reshape(-1, 2)


def rays_through(label: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Rays through picture points.

    Args:
        label: (N, 25) camera labels.
        pixels: (P, 2) or (N, P, 2) points (u, v) in [0, 1].

    Returns:
        origins (N, P, 3) and unit directions (N, P, 3) in world coordinates, so depth along a ray is Euclidean.
    """
    pose, k = unpack_label(label)
    u, v = pixels.to(label).unbind(-1)
    fx, fy = k[:, 0, 0, None], k[:, 1, 1, None]
    cx, cy, skew = k[:, 0, 2, None], k[:, 1, 2, None], k[:, 0, 1, None]
    y = (v - cy) / fy
    x = (u - cx - skew * y) / fx
    in_camera = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    direction = torch.nn.functional.normalize(in_camera @ pose[:, :3, :3].transpose(1, 2), dim=-1)
    return pose[:, None, :3, 3].expand_as(direction), direction


def rays(label: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Rays through all pixel centres of a square picture: two (N, resolution**2, 3) tensors, see rays_through."""
    return rays_through(label, pixel_grid(resolution, label.device, label.dtype))


def project(label: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """World points to the picture.

    Args:
        label: (N, 25) camera labels.
        points: (N, P, 3) world points.

    Returns:
        (N, P, 2) picture points (u, v), [0, 1] inside the picture, and (N, P) depths along the viewing axis;
        points at or behind the camera have depth <= 0 and meaningless (u, v).
    """
    pose, k = unpack_label(label)
    in_camera = (points - pose[:, None, :3, 3]) @ pose[:, :3, :3]
    depth = in_camera[..., 2]
    safe = torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)
    homogeneous = (in_camera / safe.unsqueeze(-1)) @ k.transpose(1, 2)
    return homogeneous[..., :2], depth
