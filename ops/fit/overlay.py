"""A fitted head drawn over its picture."""

from __future__ import annotations

import numpy as np
import torch

from models.parametric.person import Person
from models.render import raster

LIGHT = (0.3, 0.5, 0.8)  # from above, on the subject's left; world frame of the head
COLOUR = (0.45, 0.75, 1.0)


def overlay(
    image: np.ndarray, model: Person, identity: np.ndarray, expression: np.ndarray, camera: np.ndarray
) -> np.ndarray:
    """The picture with the shaded head over its middle.

    Args:
        image: (S, S, 3) uint8, the square that the camera belongs to.
        model: the face model.
        identity, expression: (I,) and (E,) codes.
        camera: (25,) label.

    Returns:
        (S, S, 3) uint8.
    """
    size = image.shape[0]

    def row(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32)[None]

    vertices = model.vertices(row(identity), row(expression))
    triangles = model.triangles[(model.head_share[model.triangles] > 0.6).all(-1)]
    seen = raster.rasterise(raster.to_screen(vertices, row(camera), size, size), triangles, size, size)
    normals = vertex_normals(vertices[0], triangles)
    shade = raster.interpolate(normals[None], triangles, seen)[0] @ torch.tensor(LIGHT)
    drawn = (0.25 + 0.75 * shade.clamp(0, 1))[..., None].numpy() * np.array(COLOUR) * 255
    share = 0.62 * seen.mask[0].float()[..., None].numpy()
    return np.clip(image * (1 - share) + drawn * share, 0, 255).astype(np.uint8)


def vertex_normals(vertices: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """(V, 3) unit normals by area, of (V, 3) vertices; zero where no triangle meets."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    facing = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices).index_add(0, triangles.reshape(-1), facing.repeat_interleave(3, 0))
    return torch.nn.functional.normalize(total, dim=-1)
