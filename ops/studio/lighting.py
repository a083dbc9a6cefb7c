"""Light: an environment in nine spherical harmonics, and how much of it each vertex receives.

Diffuse light at a vertex is the dot product of the environment's nine coefficients with the vertex' transfer vector:
the projection of visibility times cosine onto the same harmonics (precomputed radiance transfer; Sloan, Kautz and
Snyder 2002). Visibility comes from orthographic depth maps around the person, so hair, chin and nose cast soft
shadows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

DIRECTIONS = 32  # depth maps; unpublished: our choice


@dataclass(frozen=True)
class Room:
    """What the depth maps cover: ``extent`` world units across about ``centre``, in ``side`` pixels."""

    extent: float = 3.3  # head and shoulders with the upper arms
    centre: tuple[float, float, float] = (0.0, -0.35, 0.0)
    side: int = 128


PORTRAIT = Room()
_BIAS = 0.03  # world units by which a surface must lie behind another to be in its shadow


def harmonics(direction: np.ndarray) -> np.ndarray:
    """(..., 3) unit directions to the nine real spherical harmonics up to degree two, (..., 9)."""
    x, y, z = direction[..., 0], direction[..., 1], direction[..., 2]
    return np.stack(
        [
            np.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        axis=-1,
    ).astype(np.float32)


def sphere_directions(count: int) -> np.ndarray:
    """(count, 3) directions spread evenly on the sphere (a Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    y = 1 - 2 * index / count
    angle = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - y * y)
    return np.stack([ring * np.cos(angle), y, ring * np.sin(angle)], axis=-1)


def transfer(
    points: np.ndarray,
    normals: np.ndarray,
    scene: np.ndarray,
    triangles: np.ndarray,
    directions: int = DIRECTIONS,
    room: Room = PORTRAIT,
) -> np.ndarray:
    """(P, 9) transfer vectors of surface points with unit normals, shadowed by a scene of triangles.

    Divided by pi, so that a constant environment of radiance one lights an open white surface to one.
    """
    import warp as wp

    from models.render import raster_warp
    from ops.studio import shade

    result = np.zeros((len(points), 9), np.float32)
    arrays: list[Any] = [
        wp.array(np.ascontiguousarray(values, dtype=np.float32), dtype=wp.vec3, device="cpu", copy=False)
        for values in (points + normals * 0.01, normals)
    ]
    gathered: Any = wp.array(result, dtype=float, device="cpu", copy=False)
    faces = torch.from_numpy(triangles.astype(np.int32))
    to_pixels = np.array([room.side / room.extent, room.side / room.extent, 1.0], np.float32)
    centre = np.array(room.centre, np.float32)
    for direction in sphere_directions(directions):
        side = np.cross([0.0, 1.0, 0.0] if abs(direction[1]) < 0.9 else [1.0, 0.0, 0.0], direction)
        side /= np.linalg.norm(side)
        frame = np.stack([side, np.cross(direction, side), -direction], axis=1).astype(np.float32)
        offset = np.array([room.side / 2, room.side / 2, 0], np.float32) - (centre @ frame) * to_pixels
        screen = (scene @ frame) * to_pixels + offset
        buffer = raster_warp.z_buffer(torch.from_numpy(screen)[None], faces, room.side, room.side, None)
        to_map = wp.mat33(*(frame * to_pixels).T.reshape(-1).tolist())
        weights = harmonics(direction) * np.float32(4.0 / directions)
        wp.launch(
            shade.gather_light,
            dim=len(points),
            inputs=[
                *arrays,
                buffer,
                to_map,
                wp.vec3(*offset.tolist()),
                wp.vec3(*direction.tolist()),
                wp.array(weights, dtype=float, device="cpu"),
                _BIAS,
                gathered,
            ],
            device="cpu",
        )
    return result


def draw_light(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An environment: (9, 3) coefficients of radiance, the key light's unit direction and its colour.

    Ambient light from above and, weaker, from the floor, a soft key light from the camera's half of the sky, and a
    weak fill or rim light. Directions are in the studio's frame, where +z is towards the camera.
    """

    def lobe(azimuth: float, elevation: float) -> np.ndarray:
        return np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])

    def tint(spread: float) -> np.ndarray:
        warm = rng.normal(0, spread)
        return np.array([1 + warm, 1.0, 1 - warm])

    level = rng.uniform(0.95, 1.35)
    contrast = rng.uniform(0.4, 0.85)
    coefficients = np.zeros((9, 3), np.float32)
    ambient = level * (1 - 0.62 * contrast) * tint(0.04)
    coefficients[0] += ambient / 0.282095 * 0.8
    coefficients[1] += ambient * rng.uniform(0.1, 0.45)  # brighter above
    key = lobe(rng.normal(0, 0.75), rng.uniform(0.15, 0.95))
    key_colour = level * contrast * tint(0.06)
    # A disc of light: each degree of the harmonics keeps the share of a 35 degree cone.
    soft = np.array([1, 0.91, 0.91, 0.91, 0.74, 0.74, 0.74, 0.74, 0.74], np.float32)
    coefficients += (harmonics(key) * soft)[:, None] * key_colour * 3.0
    rim = lobe(rng.uniform(1.6, 4.6), rng.uniform(0.0, 0.7))
    coefficients += (harmonics(rim) * soft)[:, None] * tint(0.1) * level * rng.uniform(0.0, 0.9)
    return coefficients, key.astype(np.float32), key_colour.astype(np.float32)


def about_vertical(angle: float) -> np.ndarray:
    """(3, 3) turn about the vertical that brings a camera in front to the azimuth ``angle`` (radians)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def rotate_coefficients(coefficients: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """(9, C) coefficients of an environment turned by a rotation (3, 3)."""
    lattice = sphere_directions(64)
    # Solving for the turned coefficients on a lattice is exact: rotation maps each degree onto itself.
    values = harmonics(lattice) @ coefficients
    return np.linalg.lstsq(harmonics(lattice @ turn.T), values, rcond=None)[0].astype(np.float32)


def open_transfer(normals: np.ndarray) -> np.ndarray:
    """(P, 9) transfer vectors of open surfaces with unit normals: the clamped cosine in closed form.

    Ramamoorthi and Hanrahan 2001, divided by pi as in :func:`transfer`.
    """
    band = np.array([1.0, 2 / 3, 2 / 3, 2 / 3, 0.25, 0.25, 0.25, 0.25, 0.25], np.float32)
    return harmonics(normals) * band
