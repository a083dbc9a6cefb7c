"""Fitted meshes drawn over their pictures."""

from __future__ import annotations

import numpy as np
import torch

from models.parametric.person import Person
from models.render import raster
from models.render.texture import vertex_normals

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

    def row(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32)[None]

    triangles = model.triangles[(model.head_share[model.triangles] > 0.6).all(-1)]
    return draw_mesh(image, model.vertices(row(identity), row(expression)), triangles, row(camera))


def draw_mesh(image: np.ndarray, vertices: torch.Tensor, triangles: torch.Tensor, camera: torch.Tensor) -> np.ndarray:
    """The picture (S, S, 3) uint8 with a shaded mesh (1, V, 3) over it, seen by a label (1, 25)."""
    size = image.shape[0]
    seen = raster.rasterise(raster.to_screen(vertices, camera, size, size), triangles, size, size)
    shade = raster.interpolate(vertex_normals(vertices, triangles), triangles, seen)[0] @ torch.tensor(LIGHT)
    drawn = (0.25 + 0.75 * shade.clamp(0, 1))[..., None].numpy() * np.array(COLOUR) * 255
    share = 0.62 * seen.mask[0].float()[..., None].numpy()
    return np.clip(image * (1 - share) + drawn * share, 0, 255).astype(np.uint8)
