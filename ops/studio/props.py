"""What people wear in their faces and bear in their mouths: rows of teeth, lashes, glasses.

Small meshes of their own, made once a person. Glasses and upper teeth sit fast on the head, lower teeth follow the
jaw, lashes grow from the lids' rims. World units (2.7 a metre), head frame; all sizes unpublished: our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch

from models.parametric.anny import PARTS, Anny
from models.render import raster
from ops.studio import hair, lighting
from ops.studio.canvas import FLAT, TEETH
from ops.studio.people import Person

_LASH = {"upper": 0.024, "lower": 0.011}  # length
_LASH_GAP = 0.0045  # between two lashes
_LID = np.array([0, 0, 0.005], np.float32)  # the rim lies a little behind the lid's edge
_COLUMNS = 41  # of a row of teeth
_ARCH = 0.066, 0.085  # half width and depth of the upper arch where mouth corners are 0.108 apart
# Outline of a lens: half width, half height, squareness (2 is an ellipse), slant of the upper rim, radius of the rim.
FRAMES: dict[str, tuple[float, float, float, float, float]] = {
    "round": (0.056, 0.054, 2.0, 0.0, 0.0042),
    "rectangle": (0.064, 0.041, 4.0, 0.0, 0.0068),
    "oval": (0.062, 0.042, 2.3, 0.0, 0.0036),
    "cat": (0.064, 0.044, 2.8, 0.16, 0.0072),
    "square": (0.062, 0.050, 3.2, 0.04, 0.0085),
}


@dataclass(frozen=True)
class Props:
    """Meshes of one person; P vertices, the first K of them lashes.

    Attributes:
        points, normals: (P, 3) at rest; transfer: (P, 9) light.
        jaw: (P,) bool, whether a point moves with the jaw.
        rims: (K, 2) model vertices between which a lash vertex lies; along: (K,) share of the second.
        reach: (K,) distance from the rim; eye: (K,) 0 for the left one, 1 for the right one.
        uv: (P, 2) texels; shine: (P,) strength of highlights; triangles: (T, 3).
    """

    points: np.ndarray
    normals: np.ndarray
    transfer: np.ndarray
    jaw: np.ndarray
    rims: np.ndarray
    along: np.ndarray
    reach: np.ndarray
    eye: np.ndarray
    uv: np.ndarray
    shine: np.ndarray
    triangles: np.ndarray

    def posed(self, model: Anny, vertices: np.ndarray, jaw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points and normals (P, 3) on a posed head (V, 3) whose jaw has moved by ``jaw`` (4, 4)."""
        points, normals = self.points.copy(), self.normals.copy()
        points[self.jaw] = points[self.jaw] @ jaw[:3, :3].T + jaw[:3, 3]
        normals[self.jaw] = normals[self.jaw] @ jaw[:3, :3].T
        count = len(self.along)
        first, second = vertices[self.rims[:, 0]], vertices[self.rims[:, 1]]
        root = first + (second - first) * self.along[:, None] + _LID
        centres = np.stack([vertices[model.parts_of(side).numpy()].mean(0) for side in ("eye_left", "eye_right")])
        outward = (root - centres[self.eye]) * np.array([1.5, 1.9, 1.0], np.float32)  # a fan, curled away from the eye
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        points[:count] = root + outward * self.reach[:, None]
        normals[:count] = outward
        return points, normals


def make_props(model: Anny, person: Person, rest: np.ndarray, body: hair.Body) -> Props:
    """The props of a person whose vertices at rest are ``rest`` (V, 3)."""
    lash_rims, along, reach, eye, lash_triangles = _lashes(model)
    count = len(along)
    parts: list[_Mesh] = [_teeth(model, rest, upper=True), _teeth(model, rest, upper=False)]
    if person.glasses:
        parts += _glasses(model, person, rest, body)
    triangles, start = [lash_triangles], count
    for part in parts:
        triangles.append(part.triangles + start)
        start += len(part.points)
    points = np.concatenate([np.zeros((count, 3)), *(part.points for part in parts)]).astype(np.float32)
    normals = np.concatenate([np.zeros((count, 3)), *(part.normals for part in parts)]).astype(np.float32)
    shade = np.concatenate([np.full(count, 0.5), *(part.shade for part in parts)]).astype(np.float32)
    return Props(
        points=points,
        normals=normals,
        transfer=lighting.open_transfer(normals) * shade[:, None],
        jaw=np.concatenate([np.zeros(count, bool), *(np.full(len(part.points), part.jaw) for part in parts)]),
        rims=lash_rims,
        along=along,
        reach=reach,
        eye=eye,
        uv=np.concatenate([np.tile(FLAT["lash"], (count, 1)), *(part.uv for part in parts)]).astype(np.float32),
        shine=np.concatenate([np.zeros(count), *(np.full(len(p.points), p.shine) for p in parts)]).astype(np.float32),
        triangles=np.concatenate(triangles),
    )


def jaw_motion(model: Anny, rest: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(4, 4) rigid motion of the jaw that comes nearest to how an expression's offsets (V, 3) move the chin."""
    chin = _chin(model)
    before, after = rest[chin], rest[chin] + offsets[chin]
    middle, moved = before.mean(0), after.mean(0)
    u, _, vt = np.linalg.svd((after - moved).T @ (before - middle))
    result = np.eye(4, dtype=np.float32)
    result[:3, :3] = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    result[:3, 3] = moved - result[:3, :3] @ middle
    return result


@lru_cache(maxsize=2)
def _chin(model: Anny) -> np.ndarray:
    """Vertices that go down with the jaw wholly."""
    opened = torch.zeros(1, len(model.expression_names))
    opened[0, model.expression_names.index("jawOpen")] = 1
    way = model.expression_offsets(opened)[0].norm(dim=1)
    return torch.nonzero((way > 0.9 * way.max()) & (model.parts == 0))[:, 0].numpy()


@dataclass(frozen=True)
class _Mesh:
    points: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray
    shade: np.ndarray  # (P,) share of the light that reaches it
    shine: float
    jaw: bool = False


def _grid(rows: int, columns: int, closed: bool = False) -> np.ndarray:
    """(T, 3) triangles over points numbered row by row; ``closed`` joins the last row to the first."""
    place = np.arange(rows * columns).reshape(rows, columns)
    if closed:
        place = np.concatenate([place, place[:1]])
    a, b, c, d = place[:-1, :-1], place[:-1, 1:], place[1:, :-1], place[1:, 1:]
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


# -- teeth ------------------------------------------------------------------------------------------------------------


def _teeth(model: Anny, rest: np.ndarray, *, upper: bool) -> _Mesh:
    """A row along an arch behind the lips: from the gum to the edge and a little up behind it."""
    lips = rest[model.landmarks68.numpy()]
    width = np.linalg.norm(lips[64] - lips[60]) / 0.108
    closed = (lips[62] + lips[66]) / 2
    half, depth = (size * width * (1.0 if upper else 0.92) for size in _ARCH)
    front = min(lips[62, 2], lips[66, 2]) - (0.020 if upper else 0.027)
    angle = np.linspace(-1.35, 1.35, _COLUMNS)
    arch = np.stack([half * np.sin(angle), np.zeros(_COLUMNS), front - depth * (1 - np.cos(angle))], axis=1)
    out = np.stack([np.sin(angle) / half, np.zeros(_COLUMNS), np.cos(angle) / depth], axis=1)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    # Height over the closed lips' line and depth behind the arch of the rings.
    rings = ((0.026, 0.004), (0.010, 0.0), (-0.009, 0.002), (-0.008, 0.010), (0.008, 0.014))
    if not upper:
        rings = ((-0.034, 0.004), (-0.022, 0.0), (-0.006, 0.002), (-0.007, 0.009), (-0.018, 0.013))
    points = np.stack([arch + np.array([closed[0], closed[1] + height, 0]) - out * behind for height, behind in rings])
    normals = np.broadcast_to(out + np.array([0, 0.25 if upper else -0.1, 0]), points.shape)
    x, y, wide, high = TEETH
    along = np.linspace(1, wide - 1, _COLUMNS)
    down = np.array([1, 18, 38, 42, 46]) / 48 * (high / 2)
    uv = np.stack(np.broadcast_arrays(x + along[None], y + down[:, None] + (0 if upper else high / 2)), axis=-1)
    shade = np.broadcast_to(0.15 + 0.55 * np.cos(angle) ** 2, uv.shape[:2])  # lips and cheeks darken the back ones
    return _Mesh(
        points.reshape(-1, 3),
        (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).reshape(-1, 3),
        uv.reshape(-1, 2),
        _grid(len(rings), _COLUMNS),
        shade.reshape(-1),
        0.4,
        jaw=not upper,
    )


# -- lashes -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _lashes(model: Anny) -> tuple[np.ndarray, ...]:
    """Rims (K, 2), share (K,), reach (K,), eye (K,) and triangles of all lashes: a thin triangle each."""
    mean = model.rest(model.mean_identity[None])[0][0].numpy()
    parts, faces = model.parts.numpy(), model.triangles.numpy()
    kinds = parts[faces]
    both = (kinds == PARTS.index("eye_socket")).any(1) & (kinds == PARTS.index("skin")).any(1)
    rim = np.unique(faces[both][kinds[both] == PARTS.index("skin")])
    rims, along, reach, eyes = [], [], [], []
    for eye, side in enumerate(("eye_left", "eye_right")):
        centre = mean[model.parts_of(side).numpy()].mean(0)
        ring = rim[np.sign(mean[rim, 0]) == np.sign(centre[0])]
        corners = mean[model.landmarks68.numpy()[[42, 45] if eye == 0 else [36, 39]]]
        around = np.arctan2(*(mean[ring] - corners.mean(0))[:, 1::-1].T)
        ring = ring[np.argsort(around)]
        for first, second in zip(ring, np.roll(ring, -1), strict=True):
            middle = (mean[first] + mean[second]) / 2
            t = np.clip((middle[0] - corners[:, 0].min()) / np.ptp(corners[:, 0]), 0, 1)
            line = np.interp(middle[0], *corners[np.argsort(corners[:, 0])][:, :2].T)
            length = _LASH["upper" if middle[1] > line else "lower"] * np.sin(np.pi * np.clip(t, 0.12, 0.88))
            gap = float(np.linalg.norm(mean[second] - mean[first]))
            count = max(1, round(gap / _LASH_GAP))
            for share in (np.arange(count) + 0.5) / count:
                rims += [(first, second)] * 3
                along += [share - 0.0011 / gap, share + 0.0011 / gap, share]
                reach += [0.0, 0.0, length]
                eyes += [eye] * 3
    return np.array(rims), np.array(along), np.array(reach), np.array(eyes), np.arange(len(along)).reshape(-1, 3)


# -- glasses ----------------------------------------------------------------------------------------------------------


def _glasses(model: Anny, person: Person, rest: np.ndarray, body: hair.Body) -> list[_Mesh]:
    """Two rims, a bridge, two temples that rest on the ears, and dark lenses for sunglasses."""
    half, high, square, slant, thick = FRAMES[person.glasses]
    eye = rest[model.parts_of("eye_left").numpy()].mean(0)
    scale = eye[0] / 0.0845
    angle = np.linspace(0, 2 * np.pi, 49)[:-1]
    cos, sin = np.cos(angle), np.sin(angle)
    power = 2 / square
    x = eye[0] + (0.006 + half * np.sign(cos) * np.abs(cos) ** power) * scale
    y = eye[1] - 0.010 + high * np.sign(sin) * np.abs(sin) ** power * scale
    y += slant * (x - eye[0]) * np.clip(sin, 0, 1)
    outline = np.stack([x, y, -0.6 * x**2], axis=1)
    bow = np.linspace(-1, 1, 9)[:, None] * [x.min(), 0, 0]
    bow[:, 1] = eye[1] + 0.012 + 0.006 * np.cos(np.linspace(-1, 1, 9) * np.pi / 2)
    bow[:, 2] = -0.6 * x.min() ** 2 + 0.006 * np.cos(np.linspace(-1, 1, 9) * np.pi / 2)
    mirrored = outline * [-1, 1, 1]
    everything = np.concatenate([outline, mirrored, bow])
    plane = max((_surface(model, rest, everything) + thick + 0.004 - everything[:, 2]).max(), eye[2] + 0.058)
    for part in (outline, mirrored, bow):
        part[:, 2] += plane
    meshes = [_tube(outline, thick, True), _tube(mirrored, thick, True), _tube(bow, thick, False)]
    for sign in (1, -1):
        meshes.append(_tube(_temple(model, rest, body, outline, sign), thick * 0.8, False))
    if person.dark_lenses:
        meshes += [_lens(outline), _lens(mirrored)]
    return meshes


def _surface(model: Anny, rest: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(P,) z of the face's foremost surface at the x and y of points."""
    side, extent = 192, 0.6
    screen = np.stack([(rest[:, 0] / extent + 0.5) * side, (0.5 - rest[:, 1] / extent) * side, -rest[:, 2]], axis=1)
    depth = raster.depth_map(torch.from_numpy(screen.astype(np.float32))[None], model.triangles, side, side)[0].numpy()
    column = np.clip(((points[:, 0] / extent + 0.5) * side).astype(int), 0, side - 1)
    row = np.clip(((0.5 - points[:, 1] / extent) * side).astype(int), 0, side - 1)
    return -np.where(np.isfinite(depth[row, column]), depth[row, column], 0.0)


def _temple(model: Anny, rest: np.ndarray, body: hair.Body, outline: np.ndarray, sign: int) -> np.ndarray:
    """(K, 3) from the rim's upper outer corner over the ear and down behind it, outside of the head."""
    ears = np.nonzero((model.get_buffer("uv_ears").numpy() > 0.5) & (rest[:, 0] * sign > 0))[0]
    ear = rest[ears]
    top = ear[ear[:, 1] > np.percentile(ear[:, 1], 85)]
    rest_on = np.array([sign * np.abs(top[:, 0]).min(), top[:, 1].mean() + 0.012, top[:, 2].mean()])
    hinge = outline[np.argmax(outline[:, 0] + 0.6 * outline[:, 1])] * [sign, 1, 1]
    down = rest_on + np.array([-sign * 0.012, -0.055, -0.055])
    corner = hinge + np.array([sign * 0.012, 0, -0.012])
    knots = np.stack([hinge, corner, rest_on, down])
    path = np.concatenate([np.linspace(a, b, 10, endpoint=False) for a, b in pairwise(knots)])
    path = np.concatenate([path, knots[-1:]])
    out = body.push_out(path[12:].copy(), np.full(len(path) - 12, 0.008))
    path[12:, 0] = out[:, 0]
    return path


def _tube(path: np.ndarray, radius: float, closed: bool) -> _Mesh:
    """A tube of six sides about a path (K, 3)."""
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9
    side = np.cross(ahead, [0.0, 0.3, 1.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    up = np.cross(side, ahead)
    angle = np.linspace(0, 2 * np.pi, 7)
    normals = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * up[:, None]
    points = path[:, None] + radius * normals
    count = points.shape[0] * points.shape[1]
    uv = np.tile(FLAT["frame"], (count, 1))
    triangles = _grid(len(path), 7, closed)
    return _Mesh(points.reshape(-1, 3), normals.reshape(-1, 3), uv, triangles, np.full(count, 0.85), 3.0)


def _lens(outline: np.ndarray) -> _Mesh:
    """A slightly domed pane within an outline."""
    middle = outline.mean(0)
    rings = np.stack([middle + (outline - middle) * share for share in (1.0, 0.66, 0.33, 0.02)])
    bulge = np.array([0.0, 0.006, 0.009, 0.010])[:, None]
    rings[..., 2] += bulge
    normals = (rings - middle) * [4, 4, 0] + [0, 0, 0.6]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    rings, normals = (np.concatenate([values, values[:, :1]], axis=1) for values in (rings, normals))
    count = rings.shape[0] * rings.shape[1]
    uv = np.tile(FLAT["lens"], (count, 1))
    triangles = _grid(len(rings), rings.shape[1])
    return _Mesh(rings.reshape(-1, 3), normals.reshape(-1, 3), uv, triangles, np.full(count, 0.9), 6.0)
