"""Whole people: what they wear from the neck to the shoes, and how their legs stand.

Clothes are the body's own surface, lifted off the skin and cut at hems; skirts and shoes are the convex hull of what
they cover, which bridges the gap between the legs and hides the toes. All is cut on the mean person and bound to the
mesh, so it fits everyone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.spatial import ConvexHull

from models.parametric.anny import JOINTS, Anny
from ops.studio import canvas, clothes
from ops.studio.clothes import Dress, Garment
from ops.studio.lighting import Room
from ops.studio.paint import cloth
from ops.studio.people import Person, stream

ROOM = Room(extent=5.6, centre=(0.0, -2.15, 0.0), side=256)  # of the light's depth maps: from head to foot
LEGS = (0, canvas.HEIGHT, 1024, 640)  # x, y, width, height of the patch for skirts and trousers, below all others
SHEET = canvas.HEIGHT + LEGS[3]  # rows of a dressed person's texture
_TOP_SPAN = (-1.7, 1.7, -2.3, -0.2)  # world x and y of the mean person that the patches cover
_LEGS_SPAN = (-0.85, 0.85, -4.7, -1.6)
_FINER = 0.6  # patterns on the patch of the top, which covers more than a portrait's
# Heights on the mean person, world units; unpublished: our choice.
_WAIST, _HIPS, _ANKLE = -1.78, -2.25, -4.36
_LOOSE = 0.055  # world units that cloth hangs off the skin below the chest
SOLE = 0.025  # world units of a shoe beneath the foot
_LEGS_TOGETHER = 0.07  # anny stands with its feet apart: so much nearer a unit of leg
_DENIM = ((0.035, 0.055, 0.12), (0.012, 0.016, 0.03), (0.10, 0.14, 0.22))
_FABRIC = ((0.012, 0.012, 0.013), (0.05, 0.05, 0.055), (0.30, 0.24, 0.15), (0.10, 0.075, 0.05), (0.03, 0.045, 0.07))
_LEATHER = ((0.012, 0.011, 0.010), (0.07, 0.035, 0.017), (0.55, 0.54, 0.52), (0.16, 0.03, 0.03))


@dataclass(frozen=True)
class Outfit:
    """What somebody wears below the neckline. Colours are linear-light RGB; heights those of the mean person.

    Attributes:
        sleeve: where the sleeves end, from the shoulder (0) to the wrist (1); hem: where the top does.
        kind: "trousers", "shorts" or "skirt"; bottom: where that ends.
        cloth, shoe: colours.
    """

    sleeve: float
    hem: float
    kind: str
    bottom: float
    cloth: np.ndarray
    shoe: np.ndarray


def draw_outfit(person: Person, seed: int) -> Outfit:
    """The outfit of an identity."""
    rng = stream(seed, 6, person.number)
    woman = person.code[0] > 0.5
    kind = str(rng.choice(["trousers", "shorts", "skirt"], p=[0.6, 0.1, 0.3] if woman else [0.82, 0.18, 0.0]))
    ends = {"trousers": rng.uniform(-4.33, -4.2), "shorts": rng.uniform(-3.25, -2.9), "skirt": rng.uniform(-3.9, -3.1)}
    denim = kind != "skirt" and rng.random() < 0.45
    colours = np.array(_DENIM if denim else _FABRIC)
    return Outfit(
        sleeve=float(rng.choice([0.97, rng.uniform(0.35, 0.5)], p=[0.6, 0.4])),
        hem=float(rng.choice([_WAIST - 0.10, rng.uniform(-2.2, -2.0)], p=[0.3, 0.7])),
        kind=kind,
        bottom=float(ends[kind]),
        cloth=colours[rng.integers(len(colours))] * rng.uniform(0.75, 1.3),
        shoe=np.array(_LEATHER[rng.integers(len(_LEATHER))]) * rng.uniform(0.8, 1.2),
    )


@lru_cache(maxsize=1)
def _measures(model: Anny) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(V, 3) mean person; (V,) bool on an arm; (V,) how far along it from shoulder (0) to wrist (1)."""
    rest, joints = (values[0].numpy() for values in model.rest(model.mean_identity[None]))
    along, on_arm = np.zeros(len(rest)), np.zeros(len(rest), bool)
    lower = np.arange(len(rest)) >= model.upper_vertices
    for side in ("left", "right"):
        joint = JOINTS.index(f"shoulder_{side}")
        arm = model.skinning_weights[:, 1 + joint].numpy() > 0.5
        axis = rest[arm & lower].mean(0) - joints[joint]
        reach = (rest - joints[joint]) @ (axis / np.linalg.norm(axis))
        along[arm] = reach[arm] / reach[arm & ~lower].max()
        on_arm |= arm
    return rest, on_arm, along


def dress(model: Anny, person: Person, outfit: Outfit) -> Dress:
    """Top, bottom and shoes of a person as one garment."""
    mean, on_arm, along = _measures(model)
    faces, y = model.triangles.numpy(), mean[:, 1]
    top = clothes.height_over_neckline(mean, person.garment)
    top = np.maximum(top, np.where(on_arm, 1.4 * (along - outfit.sleeve), outfit.hem - y))
    top[model.parts.numpy() != 0] = 1.0
    loose = _LOOSE * np.clip((-1.1 - y) / 0.7, 0, 1) * ~on_arm
    if outfit.kind == "skirt":
        bottom = np.full(len(mean), 1.0)
        covered = np.flatnonzero(~on_arm & (y < _WAIST) & (y > outfit.bottom))
        pieces = [_hull(mean, covered, 0.03)]
    else:
        bottom = np.where(on_arm, 1.0, np.maximum(y - _WAIST, outfit.bottom - y))
        slack = 0.015 + 0.035 * np.clip((_WAIST - y) / 0.8, 0, 1)
        pieces = [_lifted(clothes.cut_surface(faces, bottom), slack)]
    pieces.insert(0, _lifted(clothes.cut_surface(faces, top), 0.02 + loose))
    for side in (mean[:, 0] > 0, mean[:, 0] < 0):
        pieces.append(_hull(mean, np.flatnonzero(side & (y < _ANKLE)), SOLE))
    shoe = np.array([canvas.FLAT["shoe"]], np.float32)
    uv = [
        canvas.planar_uv(pieces[0].lerp(mean), canvas.CLOTH, _TOP_SPAN),
        canvas.planar_uv(pieces[1].lerp(mean), LEGS, _LEGS_SPAN),
        *(np.repeat(shoe, len(piece.first), axis=0) for piece in pieces[2:]),
    ]
    hidden = (np.minimum(top, bottom) < clothes.HIDDEN) | (y < _ANKLE - 0.03)
    return Dress(_joined(pieces), np.concatenate(uv), hidden)


def _lifted(garment: Garment, lift: np.ndarray) -> Garment:
    return replace(garment, lift=garment.lerp(lift).astype(np.float32))


def _hull(points: np.ndarray, chosen: np.ndarray, lift: float) -> Garment:
    """The convex hull of some vertices, facing outwards."""
    hull = ConvexHull(points[chosen].astype(np.float64))
    triangles = hull.simplices.copy()
    a, b, c = (points[chosen][triangles[:, corner]] for corner in range(3))
    inwards = (np.cross(b - a, c - a) * hull.equations[:, :3]).sum(1) < 0
    triangles[inwards] = triangles[inwards, ::-1]
    used, corners = np.unique(triangles, return_inverse=True)
    first = chosen[used]
    zeros = np.zeros(len(first))
    return Garment(first, first, zeros, np.full(len(first), lift, np.float32), corners.reshape(-1, 3))


def _joined(pieces: list[Garment]) -> Garment:
    starts = np.cumsum([0, *(len(piece.first) for piece in pieces)])
    triangles = [piece.triangles + start for piece, start in zip(pieces, starts, strict=False)]
    first, second, share, lift = (
        np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("first", "second", "share", "lift")
    )
    return Garment(first, second, share, lift, np.concatenate(triangles))


def paint(sheet: np.ndarray, person: Person, outfit: Outfit, seed: int) -> np.ndarray:
    """The texture of :func:`ops.studio.paint.texture` with the outfit's colours: (SHEET, WIDTH, 3)."""
    rng = stream(seed, 7, person.number)
    whole = np.ones((SHEET, canvas.WIDTH, 3), np.float32)
    whole[: canvas.HEIGHT] = sheet
    x, y, width, height = canvas.CLOTH
    colours = person.cloth, person.cloth_second
    whole[y : y + height, x : x + width] = cloth(rng, (height, width), colours, person.pattern, _FINER)
    x, y, width, height = LEGS
    whole[y : y + height, x : x + width] = cloth(rng, (height, width), (outfit.cloth, outfit.cloth), "plain")
    for name, colour in (("limb", person.skin), ("shoe", outfit.shoe)):
        x, y = canvas.FLAT[name]
        whole[y - 16 : y + 16, x - 16 : x + 16] = colour
    return np.maximum(whole, 0.003, out=whole)


def stance(model: Anny, rest: np.ndarray, person: Person, seed: int) -> np.ndarray:
    """(V, 3) vertices at rest with the legs nearer to one another, one foot a little before the other."""
    rng = stream(seed, 8, person.number)
    mean = _measures(model)[0]
    below = np.clip(_HIPS - mean[:, 1], 0, None) * (mean[:, 1] < _HIPS)
    side = np.tanh(mean[:, 0] / 0.05)
    moved = rest.copy()
    moved[:, 0] -= side * below * rng.uniform(0.6, 1.0) * _LEGS_TOGETHER
    moved[:, 2] += side * below * rng.normal(0, 0.03)
    return moved
