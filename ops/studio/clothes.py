"""Garments: the body's own surface below the neckline, lifted off the skin and cut exactly along the neckline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from models.parametric.anny import Anny
from ops.studio.canvas import planar_uv, unwrap

# Height of the neckline, world units, behind, at the sides and in front of the mean person; unpublished: our choice.
_NECKLINES = {
    "crew": (-0.42, -0.45, -0.58),
    "v_neck": (-0.42, -0.45, -0.84),
    "scoop": (-0.45, -0.475, -0.74),
    "turtleneck": (-0.30, -0.31, -0.36),
    "shirt": (-0.38, -0.41, -0.66),
}
_LIFT = 0.020  # world units off the skin
HIDDEN = -0.06  # world units below the neckline, where skin is covered for certain
_AXIS_Z = -0.06  # of the neck


@dataclass(frozen=True)
class Garment:
    """A mesh whose vertices lie between two of the body's.

    Attributes:
        first, second: (C,) body vertices; share: (C,) of the second.
        lift: (C,) world units along the normal.
        triangles: (T, 3).
    """

    first: np.ndarray
    second: np.ndarray
    share: np.ndarray
    lift: np.ndarray
    triangles: np.ndarray

    def lerp(self, values: np.ndarray) -> np.ndarray:
        """Values (V, ...) of the body's vertices at the garment's."""
        share = self.share.reshape(-1, *([1] * (values.ndim - 1))).astype(np.float32)
        return values[self.first] * (1 - share) + values[self.second] * share


@dataclass(frozen=True)
class Dress:
    """Clothes on the model.

    Attributes:
        garment: the mesh, C vertices; uv: (C, 2) texels.
        hidden: (V,) bool, vertices of the body that are covered for certain.
    """

    garment: Garment
    uv: np.ndarray
    hidden: np.ndarray


def height_over_neckline(points: np.ndarray, garment: str) -> np.ndarray:
    """(V,) signed height of the mean person's points (V, 3) over the neckline; negative where the garment lies."""
    behind, beside, before = _NECKLINES[garment]
    radius = np.hypot(points[:, 0], points[:, 2] - _AXIS_Z) + 1e-6
    front = (points[:, 2] - _AXIS_Z) / radius
    power = 3.5 if garment in ("v_neck", "shirt") else 2.2
    line = np.where(
        front > 0, beside + (before - beside) * np.abs(front) ** power, beside + (behind - beside) * np.abs(front)
    )
    return points[:, 1] - line


@lru_cache(maxsize=16)
def cut_garment(model: Anny, garment: str) -> Garment:
    """A garment by its neckline; it fits every body, for its vertices are bound to the mesh."""
    mean = model.rest(model.mean_identity[None])[0][0].numpy()
    height = height_over_neckline(mean, garment)
    height[model.parts.numpy() != 0] = 1.0  # never the inner surfaces of the head
    cut = cut_surface(model.triangles.numpy(), height)
    at = height[cut.first] * (1 - cut.share) + height[cut.second] * cut.share
    # A rolled hem at the neckline, then cloth that lies closer.
    lift = _LIFT * (0.75 + 0.5 * np.exp(-((at + 0.02) ** 2) / 0.0004))
    return replace(cut, lift=lift.astype(np.float32))


def dress(model: Anny, garment: str) -> Dress:
    """What a portrait shows of somebody's clothes."""
    mean = unwrap(model).mean
    cut = cut_garment(model, garment)
    return Dress(cut, planar_uv(cut.lerp(mean)), height_over_neckline(mean, garment) < HIDDEN)


def cut_surface(triangles: np.ndarray, height: np.ndarray) -> Garment:
    """The part of a mesh (T, 3) whose vertices' ``height`` (V,) is negative, cut along zero; not lifted."""
    below = height[triangles] < 0
    count = below.sum(1)
    first: list[int] = []
    second: list[int] = []
    share: list[float] = []
    known: dict[tuple[int, int], int] = {}

    def vertex(a: int, b: int) -> int:
        key = (a, b) if a < b else (b, a)
        if key not in known:
            known[key] = len(first)
            first.append(key[0])
            second.append(key[1])
            low, high = height[key[0]], height[key[1]]
            share.append(0.0 if a == b else float(low / (low - high)))
        return known[key]

    faces: list[tuple[int, int, int]] = []
    for row in np.nonzero(count == 3)[0]:
        a, b, c = (vertex(int(v), int(v)) for v in triangles[row])
        faces.append((a, b, c))
    for row in np.nonzero((count == 1) | (count == 2))[0]:
        corners = [int(v) for v in triangles[row]]
        odd = next(k for k in range(3) if below[row, k] == (count[row] == 1))
        a, b, c = corners[odd], corners[(odd + 1) % 3], corners[(odd + 2) % 3]
        if count[row] == 1:
            faces.append((vertex(a, a), vertex(a, b), vertex(a, c)))
        else:
            ab, ac, bb, cc = vertex(a, b), vertex(a, c), vertex(b, b), vertex(c, c)
            faces.extend([(ab, bb, cc), (ab, cc, ac)])
    indices = np.array(first), np.array(second), np.array(share)
    return Garment(*indices, np.zeros(len(first), np.float32), np.array(faces, dtype=np.int64))
