"""Pictures of whole people: where the camera stands, how they stand, and the floor beneath them."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from models.camera import intrinsics, look_at, pack_label, pose_on_sphere, spherical_angles
from models.parametric.anny import Anny
from ops.studio.avatar import Avatar, default_pose, head_transforms
from ops.studio.figure import SOLE
from ops.studio.lighting import about_vertical, draw_light, rotate_coefficients
from ops.studio.motion import roll_of
from ops.studio.params import StudioParams
from ops.studio.people import stream
from ops.studio.scene import View, draw_angles, draw_background, draw_expression

# Standard deviations of the joints' turns about x, y, z, radians; unpublished: our choice.
_SPREAD = np.array(
    [[0.04, 0.08, 0.03], [0.05, 0.10, 0.03], *[[0.02, 0.04, 0.03]] * 2, *[[0.14, 0.10, 0.05]] * 2], np.float32
)
_SHADOW = 0.55  # of the light that feet take from the floor beside them


def draw_figure(params: StudioParams, model: Anny, avatar: Avatar, number: int) -> View:
    """View ``number`` of a whole person. The torso stands upright, so the camera moves with the head that turns."""
    rng = stream(params.seed, 12, avatar.person.number, number)
    azimuth, _, roll = draw_angles(params, rng, number)
    elevation, roll = float(np.clip(rng.normal(3, 4), -4, 18)), 0.5 * roll
    pose = default_pose() + rng.normal(0, 1, (6, 3)).astype(np.float32) * _SPREAD
    to_head = head_transforms(avatar.joints, pose)[0, 0].numpy().astype(np.float64)
    low, high = float(avatar.rest[:, 1].min()) - SOLE, float(avatar.rest[:, 1].max())
    extent = (high - low) * rng.uniform(params.full_body_margin_min, params.full_body_margin_max)
    middle = np.array([rng.normal(0, 0.02) * extent, (high + low) / 2 + rng.normal(0, 0.005) * extent, 0.0])
    radius = 2.7 * rng.uniform(2.8, 5.0)  # metres away
    around, above = torch.from_numpy(np.deg2rad([azimuth, elevation])).unbind()
    target = torch.from_numpy(middle)
    eye = pose_on_sphere(around, above, radius)[:3, 3].double() + target
    stand = look_at(eye, target, float(np.deg2rad(roll))).numpy()
    camera = to_head @ stand
    label = pack_label(torch.from_numpy(camera)[None].float(), intrinsics(torch.tensor([radius / extent]).float()))[0]
    seen_from, height, _ = np.rad2deg(spherical_angles(torch.from_numpy(camera)))
    light, key, key_colour = draw_light(rng)
    turn = to_head[:3, :3] @ about_vertical(around.item())
    neutral = rng.random() < params.neutral_share
    return View(
        camera=label.numpy(),
        azimuth=float(seen_from),
        elevation=float(height),
        roll=roll_of(camera),
        expression=draw_expression(rng, model, neutral),
        pose=pose,
        light=rotate_coefficients(light, turn),
        key=(turn @ key).astype(np.float32),
        key_colour=key_colour,
        background=_on_floor(
            draw_background(rng, params.full_body_size), stand, radius / extent, _feet(avatar, low), rng
        ),
    )


def _feet(avatar: Avatar, floor: float) -> np.ndarray:
    """(2, 3) middles of the soles, torso's frame."""
    near = avatar.rest[avatar.rest[:, 1] < floor + 0.3]
    return np.stack([near[near[:, 0] * side > 0].mean(0) * [1, 0, 1] + [0, floor, 0] for side in (1, -1)])


def _on_floor(
    wall: np.ndarray, stand: np.ndarray, focal: float, feet: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(size, size, 3) background with a floor, that fades into it far away and is dark about the feet.

    Args:
        wall: (size, size, 3) linear light.
        stand: (4, 4) camera in the frame of the feet (2, 3), whose floor is level.
    """
    size = len(wall)
    side = size // 4
    across = ((np.arange(side) + 0.5) / side - 0.5) / focal
    x, y = np.meshgrid(across, across)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ stand[:3, :3].T
    down = np.minimum(rays[..., 1], -1e-4)
    away = (feet[0, 1] - stand[1, 3]) / down
    hit = stand[:3, 3] + rays * away[..., None]
    behind = np.linalg.norm((hit - feet.mean(0))[..., [0, 2]], axis=-1)
    share = (rays[..., 1] < 0) * np.exp(-((behind / 14) ** 2))
    tone = wall.mean((0, 1)) * np.exp(rng.normal(-0.1, 0.3)) * (1 + rng.normal(0, 0.05, 3))
    dark = np.zeros_like(behind)
    for foot in feet:
        near = (((hit - foot) * [1.0, 0, 0.8]) ** 2).sum(-1)
        dark = np.maximum(dark, np.exp(-near / 0.09) + 0.5 * np.exp(-near / 0.6))
    floor = tone * (1 - _SHADOW * np.clip(dark, 0, 1.2))[..., None]
    share, floor = (cv2.resize(part.astype(np.float32), (size, size)) for part in (share, floor))
    return wall + (floor - wall) * share[..., None]
