"""The two cameras of a portrait: one on head and shoulders, one on the face, wherever the pose has moved it.

Paper, Section 3.4: a face camera that follows the deformed head gives the face discriminator aligned faces rendered
at full sharpness, where a crop of the portrait would be resampled and blurred. The crop stays as the ablation.

The units are those of the head frame (models/portrait_fields.py): the face camera stands at distance 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models import camera
from models.config import Config


class ViewConfig(Config):
    """One of the two cameras."""

    fov: float  # degrees, horizontal
    radius: float  # from the pivot
    near: float  # where the samples of a ray begin ...
    far: float  # ... and end
    pivot: tuple[float, float, float]  # the point looked at, in the head frame

    @property
    def focal(self) -> float:
        """Focal length in units of the image side."""
        return camera.focal_from_fov(self.fov)


# AniPortraitGAN gen_video.py: the face radius 0.52768 is the unit, and the pivot is a point between head and shoulders.
PORTRAIT_VIEW = ViewConfig(fov=12.0, radius=1.895088, near=1.675088, far=2.115088, pivot=(0.0, -0.018308, -0.095907))
# microsoft/GRAM: fov 12, radius 1, rays from 0.88 to 1.12.
FACE_VIEW = ViewConfig(fov=12.0, radius=1.0, near=0.88, far=1.12, pivot=(0.0, 0.0, 0.0))


def view_label(view: ViewConfig, azimuth: Tensor, elevation: Tensor) -> Tensor:
    """(N,) angles in radians about the view's pivot to (N, 25) camera labels."""
    pose = camera.pose_on_sphere(azimuth, elevation, view.radius, azimuth.new_tensor(view.pivot))
    return camera.pack_label(pose, camera.intrinsics(view.focal))


def follow(label: Tensor, transform: Tensor) -> Tensor:
    """Carry cameras along with a rigid motion of the world: (N, 25) and (N, 4, 4) to (N, 25).

    With the motion of the head this turns a camera placed about the neutral head into the face camera of the pose:
    in its pictures the head stands as it would in the neutral pose.
    """
    pose, intrinsic = camera.unpack_label(label)
    return camera.pack_label(transform @ pose, intrinsic)


def in_head_frame(label: Tensor, transform: Tensor) -> Tensor:
    """The inverse of :func:`follow`: how cameras of the posed world stand about the neutral head."""
    return follow(label, torch.linalg.inv(transform))


def torso(image: Tensor) -> Tensor:
    """The lower quarter of (N, C, H, W) portraits, (N, C, H / 4, W): what D_torso looks at (paper, Section 3.4).

    Raises:
        ValueError: if the height is no multiple of 4.
    """
    height = image.shape[2]
    if height % 4:
        raise ValueError(f"the height of a portrait is a multiple of 4, not {height}")
    return image[:, :, -(height // 4) :]


def crop_face(portrait: Tensor, portrait_label: Tensor, face_label: Tensor, resolution: int) -> Tensor:
    """Cut the face out of portraits, aligned as the face camera would see it: the ablation without a second camera.

    The face camera's picture is laid on the plane through its pivot, one unit before it, and the plane is looked up
    in the portrait. What lies outside the portrait is white.

    Args:
        portrait: (N, C, H, W) in [-1, 1].
        portrait_label: (N, 25) cameras that rendered it.
        face_label: (N, 25) face cameras.
        resolution: side of the crops.

    Returns:
        (N, C, resolution, resolution).
    """
    pose, _ = camera.unpack_label(face_label)
    origins, directions = camera.rays(face_label, resolution)
    forward = pose[:, None, :3, 2]
    plane = origins + directions * (FACE_VIEW.radius / (directions * forward).sum(-1, keepdim=True))
    where = camera.project(portrait_label, plane)[0].unflatten(1, (resolution, resolution)) * 2 - 1
    return F.grid_sample(portrait - 1, where, align_corners=False) + 1
