"""What is known of a picture besides its pixels: the numbers that a labeller would like to find out.

Positions are in the head frame, which is the world of the picture's camera; left is the subject's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from models.parametric.anny import Anny, chain_transforms
from models.render import raster
from ops.studio.avatar import Avatar, shared_person
from ops.studio.render import Shot, to_pixels
from ops.studio.scene import View

NUMBERS = (
    "camera",  # (25,) label of the whole upright picture
    "azimuth",  # degrees of the camera about the head's centre
    "elevation",
    "roll",
    "code",  # (108,) identity of anny, by which the person was made
    "identity_code",  # (80,) of the head in models.parametric.person, nearest to that
    "shape_code",  # (10,) of the body in models.parametric.person
    "expression",  # (52,) face units
    "pose",  # (6, 3) axis-angle of the joints
    "joints",  # (6, 3) their positions
    "gaze",  # (2, 3) unit directions of the left and the right eye
    "landmarks68",  # (68, 3)
    "landmarks68_2d",  # (68, 2) pixels
    "landmarks68_visible",  # (68,) bool
    "facemesh",  # (468, 3) where FaceMesh's points lie on the surface
    "facemesh_2d",  # (468, 2) pixels
    "facemesh_visible",  # (468,) bool
)
PLACES = ("landmarks68_2d", "facemesh_2d")  # those that are pixels
_SLACK = 0.02  # world units (7 mm) by which a point may lie behind what is seen there


def truth_of(model: Anny, avatar: Avatar, view: View, shot: Shot) -> dict[str, Any]:
    """The values of :data:`NUMBERS` of one picture."""
    values = {
        "camera": view.camera,
        "azimuth": view.azimuth,
        "elevation": view.elevation,
        "roll": view.roll,
        "code": avatar.person.code,
        "identity_code": avatar.identity_code,
        "shape_code": avatar.shape_code,
        "expression": view.expression,
        "pose": view.pose,
        "joints": joint_positions(avatar, view),
        "gaze": gaze_directions(model, avatar, shot.vertices),
    }
    ibug = model.landmarks68.numpy()
    mesh = shared_person().facemesh
    corners, weights = model.triangles[mesh.triangle].numpy(), mesh.barycentric.numpy()[..., None]
    for name, points, normals in (
        ("landmarks68", shot.vertices[ibug], shot.normals[ibug]),
        ("facemesh", *((of[corners] * weights).sum(1) for of in (shot.vertices, shot.normals))),
    ):
        values[name] = points.astype(np.float32)
        values[f"{name}_2d"] = to_pixels(view.camera, points, len(shot.picture)).astype(np.float32)
        values[f"{name}_visible"] = visible(view.camera, points, normals, shot.depth)
    return values


def uv_map(model: Anny, view: View, shot: Shot) -> np.ndarray:
    """(H, W, 2) anny's texture coordinates of the skin, v upwards; NaN where hair, clothes or nothing is seen."""
    size = len(shot.picture)
    vertices, camera = (torch.from_numpy(values)[None].float() for values in (shot.vertices, view.camera))
    seen = raster.rasterise(raster.to_screen(vertices, camera, size, size), model.triangles, size, size)
    corners = model.uv[model.uv_triangles[seen.triangle[0].clamp_min(0)]]
    uv = (corners * seen.barycentric[0, ..., None]).sum(2).numpy()
    shown = seen.mask[0].numpy() & (seen.depth[0].numpy() < shot.depth + _SLACK / 2)
    return np.where(shown[..., None], uv, np.nan).astype(np.float32)


def visible(camera: np.ndarray, points: np.ndarray, normals: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(P,) bool: surface points (P, 3) that lie in the picture, face the camera and are hidden by nothing.

    Args:
        depth: (H, W) along the viewing axis, infinity for background.
    """
    pose = camera[:16].reshape(4, 4)
    pixels = np.floor(to_pixels(camera, points, len(depth))).astype(int)
    inside = ((pixels >= 0) & (pixels < len(depth))).all(1)
    column, row = np.clip(pixels, 0, len(depth) - 1).T
    far = (points - pose[:3, 3]) @ pose[:3, 2]
    facing = (normals * (pose[:3, 3] - points)).sum(1) > 0
    return inside & facing & (far < depth[row, column] + _SLACK)


def joint_positions(avatar: Avatar, view: View) -> np.ndarray:
    """(6, 3) of the posed joints."""
    joints = torch.from_numpy(avatar.joints)[None]
    transforms = chain_transforms(joints, torch.from_numpy(view.pose)[None])
    moved = torch.linalg.inv(transforms[:, 2:3]) @ transforms[:, 1:]
    return (moved[0, :, :3, :3] @ joints[0, :, :, None])[..., 0].add(moved[0, :, :3, 3]).numpy()


def gaze_directions(model: Anny, avatar: Avatar, vertices: np.ndarray) -> np.ndarray:
    """(2, 3) where the left and the right eye look: the rotation that carries each ball from rest, on +z.

    Args:
        vertices: (V, 3) posed.
    """
    directions = []
    for side in ("eye_left", "eye_right"):
        index = model.parts_of(side).numpy()
        before, after = (points[index] - points[index].mean(0) for points in (avatar.rest, vertices))
        u, _, vt = np.linalg.svd(after.T @ before)
        turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        directions.append(turn[:, 2])
    return np.array(directions, np.float32)
