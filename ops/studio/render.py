"""Takes the picture: an avatar in a view to pixels, with the truth that falls out of the same rasterisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from models.parametric.anny import Anny, skin
from ops.studio import canvas, lighting
from ops.studio.avatar import LIGHT_PLACES, Avatar, head_transforms, vertex_normals
from ops.studio.props import jaw_motion
from ops.studio.scene import View

_GLOW = 20  # texels about the middle of a catchlight, beyond which there is nothing of it


@dataclass(frozen=True)
class Shot:
    """A picture and its truth.

    Attributes:
        picture: (size, size, 3) uint8 sRGB; mask: (size, size) uint8 coverage of the person.
        parsing: (size, size) uint8 of ``ops.store.parsing.CLASSES``.
        depth: (size, size) float32 along the viewing axis, infinity for none.
        vertices, normals: (V, 3) of the posed model, head frame.
    """

    picture: np.ndarray
    mask: np.ndarray
    parsing: np.ndarray
    depth: np.ndarray
    vertices: np.ndarray
    normals: np.ndarray


def photograph(model: Anny, avatar: Avatar, view: View, background: np.ndarray | None = None) -> Shot:
    """Render one view, twice as wide and high inside, and resolve it to ``view.background``'s size.

    Args:
        background: (size, size, 3) linear light instead of the view's own.
    """
    import warp as wp

    from models.render import raster_warp
    from ops.studio import shade

    def shared(values: np.ndarray, dtype: type) -> wp.array:
        """The same memory, as warp sees it."""
        return wp.array(values, dtype=dtype, device="cpu", copy=False)

    behind = view.background if background is None else background
    size = behind.shape[0]
    person = avatar.person
    c = canvas.unwrap(model)
    posed, jaw = pose_face(model, avatar, view)
    transforms = head_transforms(avatar.joints, view.pose)[0].numpy()
    normals = vertex_normals(model, posed)

    # Light of the body: what it received at rest, corrected for how its surface has turned since.
    turned = lighting.open_transfer(normals) - lighting.open_transfer(avatar.normals)
    transfer = avatar.transfer + turned * avatar.open_sky[:, None]
    radiance = np.clip(transfer @ view.light, 0.01, None)
    pose = view.camera[:16].reshape(4, 4)
    eye, rotation = pose[:3, 3], pose[:3, :3].T
    gloss = _gloss(model, avatar, posed, normals, eye, view)
    worn, worn_normals = avatar.props.posed(model, posed, jaw)

    garment = avatar.garment
    garment_points = garment.lerp(posed) + garment.lerp(normals) * garment.lift[:, None]
    world = np.concatenate([posed[c.vertex], worn, garment_points])
    count = len(world) + (avatar.strands.half_width.size * 2 if avatar.strands is not None else 0)
    screen, light, shine = (np.zeros((count, 3), np.float32) for _ in range(3))
    local = (world - eye) @ rotation.T
    fx = float(view.camera[16]) * 2 * size
    screen[: len(world), :2] = local[:, :2] / local[:, 2:] * fx + size
    screen[: len(world), 2] = local[:, 2]
    worn_light = np.clip(avatar.props.transfer @ view.light, 0.01, None)
    light[: len(world)] = np.concatenate([radiance[c.vertex], worn_light, garment.lerp(radiance)])
    shine[: len(c.vertex)] = gloss[c.vertex]
    glint = avatar.props.shine * _highlight(worn, worn_normals, eye, view, 40)
    shine[len(c.vertex) : len(c.vertex) + len(worn)] = glint[:, None] * view.key_colour
    uv = np.concatenate([c.uv, avatar.props.uv, avatar.garment_uv]).astype(np.float32)

    arrays = [shared(value, wp.vec3) for value in (screen, light, shine)]
    light_array = shared(np.ascontiguousarray(view.light, dtype=np.float32), float)
    if avatar.strands is not None:
        strands = avatar.strands
        wp.launch(
            shade.ribbons,
            dim=strands.half_width.shape,
            inputs=[
                shared(strands.points, wp.vec3),
                shared(strands.half_width, float),
                shared(strands.share, float),
                shared(strands.tint, float),
                shared(avatar.strand_transfer, float),
                LIGHT_PLACES,
                wp.mat44(transforms[0]),
                wp.vec3(*eye.tolist()),
                wp.mat33(rotation),
                fx,
                wp.vec2(float(size), float(size)),
                0.55,
                light_array,
                wp.vec3(*view.key.tolist()),
                wp.vec3(*view.key_colour.tolist()),
                wp.vec3(*person.hair.tolist()),
                len(world),
                *arrays,
            ],
            device="cpu",
        )
    triangles, body_count = _facing(avatar, screen)
    side = 2 * size
    buffer = raster_warp.z_buffer(torch.from_numpy(screen)[None], torch.from_numpy(triangles), side, side, near=0.05)
    picture = np.empty((size, size, 3), np.uint8)
    mask, parsing = np.empty((size, size), np.uint8), np.empty((size, size), np.uint8)
    depth = np.empty((size, size), np.float32)
    scene = shade.Scene()
    scene.screen, scene.radiance, scene.gloss = arrays
    scene.triangles = shared(triangles, wp.int32)
    scene.uv = shared(uv, wp.vec2)
    scene.sheet = shared(_with_catchlights(avatar, view), wp.vec3)
    scene.labels = shared(avatar.labels, wp.uint8)
    scene.labelled = body_count + avatar.prop_triangles
    scene.textured = scene.labelled + avatar.garment_triangles
    scene.tone = _tone()
    outputs = (shared(value, wp.uint8) for value in (picture, mask, parsing))
    seen = shared(np.ascontiguousarray(behind, dtype=np.float32), wp.vec3)
    wp.launch(shade.resolve, (size, size), [buffer, scene, seen, *outputs, shared(depth, float)], device="cpu")
    return Shot(picture, mask, parsing, depth, posed, normals)


@lru_cache(maxsize=1)
def _tone() -> Any:
    import warp as wp

    from ops.studio import shade

    return wp.array(shade.tone_curve(), dtype=wp.uint8, device="cpu")


def pose_face(model: Anny, avatar: Avatar, view: View) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) vertices of an avatar with the view's expression and pose, head frame, and the jaw's motion (4, 4)."""
    offsets = model.expression_offsets(torch.from_numpy(view.expression)[None])
    transforms = head_transforms(avatar.joints, view.pose)
    posed = skin(torch.from_numpy(avatar.rest)[None] + offsets, model.skinning_weights, transforms)[0].numpy()
    return posed, jaw_motion(model, avatar.rest, offsets[0].numpy())


def _facing(avatar: Avatar, screen: np.ndarray) -> tuple[np.ndarray, int]:
    """The avatar's triangles without those of the body that look away, and how many of the body's are left.

    The body is closed, so they are never seen; garments and hair are open and stay.
    """
    count = avatar.body_triangles
    a, b, c = (screen[avatar.triangles[:count, corner], :2] for corner in range(3))
    ab, ac = b - a, c - a
    front = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0] < 0  # counter-clockwise in the world, y is down on the screen
    return np.concatenate([avatar.triangles[:count][front], avatar.triangles[count:]]), int(front.sum())


def _gloss(
    model: Anny, avatar: Avatar, posed: np.ndarray, normals: np.ndarray, eye: np.ndarray, view: View
) -> np.ndarray:
    """(V, 3) highlights of the key light: broad on skin, small and strong on lips."""
    towards = eye - posed
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    facing = _highlight(posed, normals, eye, view, 1)
    fresnel = 0.04 + 0.25 * (1 - np.clip((normals * towards).sum(1), 0, 1)) ** 5
    lips = model.get_buffer("uv_lips").numpy()
    strength = (1.0 * facing**16 + 0.45 * lips * facing**20) * fresnel * avatar.open_sky**2
    strength[model.parts.numpy() != 0] = 0
    lit = np.clip((normals * view.key).sum(1) * 4, 0, 1)
    return (strength * lit)[:, None] * view.key_colour * 1.4


def _highlight(points: np.ndarray, normals: np.ndarray, eye: np.ndarray, view: View, power: int) -> np.ndarray:
    """(P,) Blinn's lobe of the key light on surfaces with unit normals."""
    towards = eye - points
    half = towards / np.linalg.norm(towards, axis=1, keepdims=True) + view.key
    half /= np.linalg.norm(half, axis=1, keepdims=True) + 1e-9
    return np.asarray(np.clip((normals * half).sum(1), 0, 1) ** power)


def _with_catchlights(avatar: Avatar, view: View) -> np.ndarray:
    """The sheet with the key light mirrored in both eyes, where an eyeball's normal halves light and view."""
    sheet = avatar.sheet
    x, y, side = canvas.EYE_PATCH
    sheet[y : y + side, x : x + 2 * side] = avatar.eyes
    pose = view.camera[:16].reshape(4, 4)
    towards = pose[:3, 3] / np.linalg.norm(pose[:3, 3])
    half = towards + view.key
    half /= np.linalg.norm(half) + 1e-9
    if half[2] < 0.2:
        return sheet
    for place in (0, 1):
        corner = np.array([x + place * side, y])
        middle = corner + (half[:2] / canvas.EYE_REACH * [0.5, -0.5] + 0.5) * side
        left, top = np.maximum(middle.astype(int) - _GLOW, corner)
        right, bottom = np.minimum(middle.astype(int) + _GLOW, corner + side)
        columns, rows = np.arange(left, right)[None] - middle[0], np.arange(top, bottom)[:, None] - middle[1]
        glow = 1 / (1 + np.exp((np.hypot(rows, columns) - 7) / 1.2))
        sheet[top:bottom, left:right] += glow[..., None].astype(np.float32) * 1.6
    return sheet


def to_pixels(camera: np.ndarray, points: np.ndarray, size: int) -> np.ndarray:
    """(P, 2) pixel positions of world points (P, 3); pixel centres at half integers."""
    pose = camera[:16].reshape(4, 4)
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    return local[:, :2] / local[:, 2:] * camera[16] * size + 0.5 * size


__all__: Sequence[str] = ("Shot", "photograph", "pose_face", "to_pixels")
