"""Colours: one texture a person, with head, eyes and inner surfaces, painted in linear light.

The head is unwrapped on a sphere about the head frame's origin, with more room for the front; the unwrapping belongs
to the mean head, so a feature painted once sits right on every identity. Below the head lie patches: the eye seen
along its axis, flat colours for mouth, tongue and sockets, and white for what brings its own vertex colours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import torch

from models.parametric.anny import PARTS, Anny
from models.render import raster
from ops.studio.people import Person, stream

WIDTH, HEAD_HEIGHT, HEIGHT = 1024, 768, 1664  # texels
CLOTH = (0, 1024, 1024, 640)  # x, y, width, height of the garment's patch, seen from the front
CLOTH_SPAN = (-1.0, 1.0, -1.45, -0.2)  # world x and y that it covers
_STRETCH = 0.7  # of the front: 1 + this many times the texels per degree there
_LOWEST, _HIGHEST = np.deg2rad(-80.0), np.deg2rad(90.0)
EYE_PATCH = (0, HEAD_HEIGHT, 256)  # x, y, side of the left eye's square; the right one's is beside it
EYE_REACH = 1.1  # half a square, in radii of the eyeball
_FLAT = {"eye_socket": (560, 800), "mouth": (624, 800), "tongue": (688, 800), "white": (752, 800), "teeth": (816, 800)}


@dataclass(frozen=True)
class Canvas:
    """The unwrapping of one model.

    Attributes:
        vertex: (U,) model vertex of each render vertex (vertices on the seam come twice).
        uv: (U, 2) texel coordinates.
        triangles: (F, 3) in render vertices.
        position: (HEAD_HEIGHT, WIDTH, 3) mean head under each texel; rows and columns beyond it hold the nearest.
        lips, ears: (HEAD_HEIGHT, WIDTH) shares in [0, 1].
        corner, weight: (HEAD_HEIGHT, WIDTH, 3) model vertices and their weights under each texel.
        eye: (2, 3) eyeball centres of the mean head, left and right; radius of the ball.
    """

    vertex: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray
    position: np.ndarray
    lips: np.ndarray
    ears: np.ndarray
    corner: np.ndarray
    weight: np.ndarray
    eye: np.ndarray
    eye_radius: float
    mean: np.ndarray  # (V, 3) the mean person at rest
    landmarks: np.ndarray  # (68, 3) on the mean head
    region: dict[str, np.ndarray]  # name to (HEAD_HEIGHT, WIDTH) share in [0, 1]


def sphere_uv(points: np.ndarray) -> np.ndarray:
    """(..., 3) points about the head's origin to (..., 2) texel coordinates of the head's unwrapping."""
    azimuth = np.arctan2(points[..., 0], points[..., 2]) / np.pi
    elevation = np.arctan2(points[..., 1], np.hypot(points[..., 0], points[..., 2]))
    t = np.abs(azimuth)
    u = 0.5 + 0.5 * np.sign(azimuth) * t * (1 + _STRETCH * (1 - t))
    v = (_HIGHEST - elevation) / (_HIGHEST - _LOWEST)
    return np.stack([u * WIDTH, np.clip(v, 0, 1) * (HEAD_HEIGHT - 1)], axis=-1)


@lru_cache(maxsize=2)
def canvas(model: Anny) -> Canvas:
    """The unwrapping of a model, made once a process."""
    mean = model.rest(model.mean_identity[None])[0][0].numpy()
    parts = model.parts.numpy()
    uv = sphere_uv(mean).astype(np.float32)
    eyes, radius = [], 0.0
    for side in ("eye_left", "eye_right"):
        index = model.parts_of(side).numpy()
        low, high = mean[index].min(0), mean[index].max(0)
        centre = (low + high) / 2
        radius = float((high - low)[:2].max() / 2)
        eyes.append(centre)
        x, y, side_length = EYE_PATCH
        local = (mean[index, :2] - centre[:2]) / (radius * EYE_REACH)
        x += 0 if side == "eye_left" else side_length
        uv[index] = np.array([x, y]) + (local * [0.5, -0.5] + 0.5) * side_length
    for name in ("eye_socket", "mouth", "tongue"):
        uv[parts == PARTS.index(name)] = _FLAT[name]

    vertex, triangles = np.arange(len(mean)), model.triangles.numpy().copy()
    inner = np.isin(parts, [PARTS.index(name) for name in ("eye_socket", "mouth")])
    skin = ~np.isin(parts, [1, 2, 5])
    # Where the inner surfaces meet the skin, the rim keeps the skin's own unwrapping, so that no colour bleeds.
    extra_uv: list[np.ndarray] = []
    extra_vertex: list[int] = []
    inside = inner[triangles]
    for row, corner in zip(*np.nonzero(inside & ~inside.all(1, keepdims=True))):
        extra_vertex.append(int(triangles[row, corner]))
        extra_uv.append(sphere_uv(mean[triangles[row, corner]]))
        triangles[row, corner] = len(vertex) + len(extra_vertex) - 1
    all_uv = np.concatenate([uv, np.array(extra_uv, dtype=np.float32).reshape(-1, 2)])
    vertex = np.concatenate([vertex, np.array(extra_vertex, dtype=int)])

    corners = all_uv[triangles][..., 0]
    on_head = skin[vertex[triangles]].all(1) & (all_uv[triangles][..., 1] < HEAD_HEIGHT).all(1)
    wraps = on_head & (corners.max(1) - corners.min(1) > WIDTH / 2)
    extra_vertex, extra_uv = [], []
    for row in np.nonzero(wraps)[0]:
        for corner in range(3):
            if corners[row, corner] < WIDTH / 2:
                extra_vertex.append(int(vertex[triangles[row, corner]]))
                extra_uv.append(all_uv[triangles[row, corner]] + [WIDTH, 0])
                triangles[row, corner] = len(vertex) + len(extra_vertex) - 1
    all_uv = np.concatenate([all_uv, np.array(extra_uv, dtype=np.float32).reshape(-1, 2)]).astype(np.float32)
    vertex = np.concatenate([vertex, np.array(extra_vertex, dtype=int)])

    # Which triangle lies under each texel; a second copy, one width to the left, covers the seam.
    head = triangles[skin[vertex[triangles]].all(1) & ~inner[vertex[triangles]].all(1)]
    flat = np.concatenate([all_uv, np.ones((len(all_uv), 1), np.float32)], axis=1)
    shifted = flat - [WIDTH, 0, 0]
    screen = torch.from_numpy(np.concatenate([flat, shifted]).astype(np.float32))[None]
    doubled = torch.from_numpy(np.concatenate([head, head + len(flat)]))
    seen = raster.rasterise(screen, doubled, HEAD_HEIGHT, WIDTH, perspective=False)
    covered = seen.mask[0].numpy()
    corner = np.concatenate([vertex, vertex])[doubled.numpy()[seen.triangle[0].clamp_min(0).numpy()]]
    weight = seen.barycentric[0].numpy()
    nearest = _nearest(covered)
    corner, weight = corner[nearest], weight[nearest]

    def under(values: np.ndarray) -> np.ndarray:
        return np.einsum("hwk,hwk...->hw...", weight, values[corner]).astype(np.float32)

    bare = Canvas(
        vertex=vertex,
        uv=all_uv,
        triangles=triangles,
        position=under(mean),
        lips=under(model.get_buffer("uv_lips").numpy()),
        ears=under(model.get_buffer("uv_ears").numpy()),
        corner=corner,
        weight=weight,
        eye=np.stack(eyes),
        eye_radius=radius,
        mean=mean,
        landmarks=mean[model.landmarks68.numpy()],
        region={},
    )
    return replace(bare, region=_regions(bare))


def _nearest(covered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the nearest covered texel, for every texel."""
    _, label = cv2.distanceTransformWithLabels(
        (~covered).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, columns = np.nonzero(covered)
    place = np.zeros((label.max() + 1, 2), dtype=int)
    place[label[rows, columns]] = np.stack([rows, columns], axis=1)
    return place[label][..., 0], place[label][..., 1]


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """(height, width) noise of about unit variance with ``cells`` features across; wraps from left to right."""
    small = rng.normal(size=(max(2, cells * height // width), cells)).astype(np.float32)
    padded = np.concatenate([small, small[:, :2]], axis=1)
    big = cv2.resize(padded, (width * (cells + 2) // cells, height), interpolation=cv2.INTER_CUBIC)
    return big[:, :width]


def _regions(c: Canvas) -> dict[str, np.ndarray]:
    """Masks in [0, 1] on the head's texels, in the mean head's coordinates."""
    x, y, z = np.abs(c.position[..., 0]), c.position[..., 1], c.position[..., 2]
    points = c.landmarks
    nose, chin, mouth = points[30], points[8], points[[48, 54]].mean(0)
    eye = c.eye[0]

    def bump(centre: np.ndarray, radius: float, squash: float = 1.0) -> np.ndarray:
        d2 = (x - abs(centre[0])) ** 2 + ((y - centre[1]) * squash) ** 2 + (z - centre[2]) ** 2
        return np.exp(-d2 / (2 * radius**2))

    cheek = np.array([eye[0] + 0.03, (eye[1] + mouth[1]) / 2 + 0.01, eye[2] - 0.03])
    front = _step(z, 0.02, 0.12)
    low = 1 - _step(y - 0.9 * np.maximum(x - 0.125, 0), nose[1] - 0.055, 0.054)
    above_neck = _step(y - 0.5 * np.maximum(0.12 - z, 0), chin[1] - 0.03, 0.036)
    lip_room = np.clip(1 - cv2.GaussianBlur(c.lips, (0, 0), 4) * 1.6, 0, 1)
    moustache = np.exp(-(((x / 0.075) ** 2 + ((y - (mouth[1] + 0.035)) / 0.018) ** 2) ** 2))
    return {
        "cheeks": bump(cheek, 0.055),
        "nose_tip": bump(nose, 0.035),
        "chin": bump(chin, 0.04),
        "under_eyes": bump(np.array([eye[0], eye[1] - 0.035, eye[2] + 0.03]), 0.028, 1.6),
        "sockets": bump(np.array([eye[0], eye[1] + 0.012, eye[2] + 0.02]), 0.040, 1.5),
        "beard": np.clip(front * low * above_neck * lip_room + 0.8 * moustache * front * lip_room, 0, 1),
        "ears": cv2.GaussianBlur(c.ears, (0, 0), 3),
        "lips": cv2.GaussianBlur(c.lips, (0, 0), 1.6),
    }


def texture(c: Canvas, person: Person, seed: int, scalp: np.ndarray) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) float32 albedo of a person; ``scalp`` (HEAD_HEIGHT, WIDTH): share covered by hair roots."""
    rng = stream(seed, 2, person.number)
    region = c.region
    mottle = smooth_noise(rng, HEAD_HEIGHT, WIDTH, 24) * 0.016 + smooth_noise(rng, HEAD_HEIGHT, WIDTH, 90) * 0.012
    grain = rng.normal(0, 0.025, (HEAD_HEIGHT, WIDTH)).astype(np.float32)
    shade = 1 + mottle + cv2.GaussianBlur(grain, (0, 0), 0.8)
    red = (
        person.blush * (0.8 * region["cheeks"] + 0.7 * region["nose_tip"] + 0.35 * region["chin"])
        + 0.5 * region["ears"]
    )
    dark = 0.16 * region["sockets"] + 0.14 * region["under_eyes"]
    tint = np.stack([1 - 0.03 * red - 0.75 * dark, 1 - 0.20 * red - dark, 1 - 0.17 * red - 0.92 * dark], axis=-1)
    skin = person.skin.astype(np.float32) * shade[..., None] * tint.astype(np.float32)
    if person.freckles:
        spots = (rng.random((HEAD_HEIGHT, WIDTH)) < 0.012 * person.freckles).astype(np.float32)
        spots = np.clip(cv2.GaussianBlur(spots, (0, 0), 1.1) * 5, 0, 1)
        spots *= np.clip(region["cheeks"] + region["nose_tip"] + 0.15, 0, 1)
        skin *= 1 - 0.45 * spots[..., None] * np.array([0.5, 0.8, 1.0], np.float32)
    if person.stubble or person.beard:
        share = region["beard"] * (0.75 if person.beard else 0.4 * person.stubble)
        fine = np.clip(1 + 0.5 * rng.normal(size=(HEAD_HEIGHT, WIDTH)), 0, 2).astype(np.float32)
        skin = _mix(skin, person.hair * 0.8 + 0.1 * person.skin, np.clip(share * (0.6 + 0.4 * fine), 0, 0.95))
    lip_shade = 1 + 0.06 * smooth_noise(rng, HEAD_HEIGHT, WIDTH, 220)
    skin = _mix(skin, person.lips * lip_shade[..., None], region["lips"])
    skin = _mix(skin, person.hair * 0.7, scalp)
    _draw_brows(skin, c, person, rng)
    _draw_lashes(skin, c, person)
    sheet = np.ones((HEIGHT, WIDTH, 3), np.float32)
    sheet[:HEAD_HEIGHT] = skin
    x, y, side = EYE_PATCH
    eye = eye_patch(person, rng)
    sheet[y : y + side, x : x + side] = eye
    sheet[y : y + side, x + side : x + 2 * side] = eye[:, ::-1]
    flats = {
        "eye_socket": person.skin * [0.75, 0.5, 0.5],
        "mouth": np.array([0.10, 0.025, 0.025]),
        "tongue": np.array([0.35, 0.11, 0.11]),
        "teeth": np.array([0.75, 0.70, 0.60]),
    }
    for name, colour in flats.items():
        px, py = _FLAT[name]
        sheet[py - 16 : py + 16, px - 16 : px + 16] = colour
    x, y, width, height = CLOTH
    sheet[y : y + height, x : x + width] = _cloth(person, rng)
    return np.clip(sheet, 0.003, 1)


def _cloth(person: Person, rng: np.random.Generator) -> np.ndarray:
    """The garment's patch: its pattern, a weave and broad folds."""
    _, _, width, height = CLOTH
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    share = np.zeros((height, width), np.float32)
    period = rng.integers(24, 70)
    if person.pattern == "stripes":
        share = (np.mod(y, period) < period * rng.uniform(0.3, 0.6)).astype(np.float32)
    elif person.pattern == "checks":
        share = 0.5 * (np.mod(y, period) < period / 2) + 0.5 * (np.mod(x, period) < period / 2)
    weave = 1 + 0.05 * rng.normal(size=(height, width))
    if person.pattern == "knit":
        weave *= 1 + 0.16 * np.sin(x * 0.9) * np.sin(y * 0.55 + 1.2 * np.sin(x * 0.9))
    folds = 1 + 0.10 * smooth_noise(rng, height, width, 9) + 0.05 * smooth_noise(rng, height, width, 26)
    return _mix(person.cloth.astype(np.float32), person.cloth_second, share) * (weave * folds)[..., None]


def cloth_uv(points: np.ndarray) -> np.ndarray:
    """(P, 3) rest points of a garment to (P, 2) texels of its patch."""
    x, y, width, height = CLOTH
    left, right, low, high = CLOTH_SPAN
    u = np.clip((points[:, 0] - left) / (right - left), 0.003, 0.997) * width
    v = np.clip((high - points[:, 1]) / (high - low), 0.003, 0.997) * height
    return np.stack([x + u, y + v], axis=1).astype(np.float32)


def white_texel() -> tuple[float, float]:
    """Texel coordinates of pure white."""
    return float(_FLAT["white"][0]), float(_FLAT["white"][1])


def flat_texel(name: str) -> tuple[float, float]:
    """Texel coordinates of a flat patch."""
    return float(_FLAT[name][0]), float(_FLAT[name][1])


def _mix(base: np.ndarray, colour: np.ndarray, share: np.ndarray) -> np.ndarray:
    share = share[..., None].astype(np.float32)
    return base * (1 - share) + np.asarray(colour, np.float32) * share


def _draw_brows(skin: np.ndarray, c: Canvas, person: Person, rng: np.random.Generator) -> None:
    """Brows as strokes along the arch that the landmarks give, leaning outwards and up."""
    points = c.landmarks
    layer = np.zeros(skin.shape[:2], np.float32)
    for indices in ((22, 23, 24, 25, 26), (21, 20, 19, 18, 17)):
        arch = sphere_uv(points[list(indices)])
        place = np.linspace(0, 4, 33)
        line = np.stack([np.interp(place, range(5), arch[:, k]) for k in range(2)], axis=1)
        line[:, 1] = cv2.GaussianBlur(line[:, 1:].astype(np.float32), (1, 9), 2)[:, 0]
        outward = np.sign(line[-1, 0] - line[0, 0])
        for _ in range(int(330 * person.brow_weight)):
            t = rng.random()
            root = line[int(t * 31)] + rng.normal(0, 1, 2) * [1.5, 4.8 * person.brow_weight * (1.05 - 0.75 * t)]
            lean = np.array([outward * (0.45 + 0.55 * t), -(0.85 - 1.0 * t)]) * rng.uniform(7, 13)
            cv2.line(
                layer,
                tuple(int(value * 16) for value in root),
                tuple(int(value * 16) for value in root + lean),
                float(rng.uniform(0.55, 1.0)),
                1,
                cv2.LINE_AA,
                4,
            )
    share = np.clip(0.8 * cv2.GaussianBlur(layer, (0, 0), 0.9) + 0.75 * cv2.GaussianBlur(layer, (0, 0), 3.0), 0, 0.93)
    skin[:] = _mix(skin, person.brows, share)


def _draw_lashes(skin: np.ndarray, c: Canvas, person: Person) -> None:
    """A dark line along the lids, strong above, faint below."""
    points = c.landmarks
    layer = np.zeros(skin.shape[:2], np.float32)
    rims = (((36, 37, 38, 39), 1.0), ((42, 43, 44, 45), 1.0), ((36, 41, 40, 39), 0.3), ((42, 47, 46, 45), 0.3))
    for indices, strength in rims:
        line = np.round(sphere_uv(points[list(indices)]) * 16).astype(np.int32)
        cv2.polylines(layer, [line[:, None]], False, strength, 3, cv2.LINE_AA, 4)
    share = np.clip(cv2.GaussianBlur(layer, (0, 0), 1.2), 0, 1) * 0.8
    skin[:] = _mix(skin, np.minimum(person.brows * 0.6, 0.05), share)


def eye_patch(person: Person, rng: np.random.Generator) -> np.ndarray:
    """The eyeball seen along its axis: sclera with a little red, limbus, streaked iris, pupil."""
    side = EYE_PATCH[2]
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(axis * EYE_REACH, axis * EYE_REACH)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    iris_radius, pupil_radius = 0.485, rng.uniform(0.15, 0.21)
    streaks = np.interp(angle, np.linspace(-np.pi, np.pi, 97), np.resize(rng.normal(0, 1, 96), 97))
    iris = person.iris * (1 + 0.18 * streaks[..., None]) * (0.75 + 0.7 * radius[..., None] / iris_radius)
    iris = iris * (1 - 0.6 * _step(radius, iris_radius * 0.86, 0.035)[..., None])
    sclera = np.array([0.70, 0.66, 0.62]) * (1 - 0.22 * np.clip(radius - 0.5, 0, 1)[..., None] * [0.5, 1.0, 1.0])
    colour = iris + (sclera - iris) * _step(radius, iris_radius, 0.02)[..., None]
    return colour * _step(radius, pupil_radius, 0.02)[..., None] + 0.004


def _step(value: np.ndarray, edge: float, width: float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip((value - edge) / width * 3, -30, 30)))


# CelebAMask-HQ's 19 classes; the subject's left is "left" here.
CLASSES = (
    "background",
    "skin",
    "nose",
    "glasses",
    "left_eye",
    "right_eye",
    "left_brow",
    "right_brow",
    "left_ear",
    "right_ear",
    "mouth",
    "upper_lip",
    "lower_lip",
    "hair",
    "hat",
    "earring",
    "necklace",
    "neck",
    "cloth",
)


def label_sheet(c: Canvas, scalp: np.ndarray) -> np.ndarray:
    """(HEIGHT, WIDTH) uint8 parsing class of every texel."""
    place = {name: index for index, name in enumerate(CLASSES)}
    points, position = c.landmarks, c.position
    left = position[..., 0] > 0
    head = np.full((HEAD_HEIGHT, WIDTH), place["skin"], np.uint8)
    chin = points[8]
    jaw = chin[1] - 0.01 + 0.75 * np.maximum(chin[2] - 0.03 - position[..., 2], 0)
    head[(position[..., 1] < jaw) & (position[..., 1] < points[48][1] + 0.06)] = place["neck"]
    head[(position[..., 2] < -0.02) & (position[..., 1] < points[2][1])] = place["neck"]

    def fill(indices: tuple[int, ...], name: str) -> None:
        polygon = np.round(sphere_uv(points[list(indices)])).astype(np.int32)
        cv2.fillPoly(head, [polygon[:, None]], place[name])

    fill((27, 39, 31, 32, 33, 34, 35, 42), "nose")
    head[(c.ears > 0.5) & left], head[(c.ears > 0.5) & ~left] = place["left_ear"], place["right_ear"]
    for indices, name in (((22, 23, 24, 25, 26), "left_brow"), ((21, 20, 19, 18, 17), "right_brow")):
        line = np.round(sphere_uv(points[list(indices)])).astype(np.int32)
        cv2.polylines(head, [line[:, None]], False, place[name], 9)
    middle = points[[60, 64, 62, 66]].mean(0)
    lips = c.region["lips"] > 0.5
    head[lips & (position[..., 1] > middle[1])] = place["upper_lip"]
    head[lips & (position[..., 1] <= middle[1])] = place["lower_lip"]
    head[scalp > 0.5] = place["hair"]
    sheet = np.full((HEIGHT, WIDTH), place["skin"], np.uint8)
    sheet[:HEAD_HEIGHT] = head
    x, y, side = EYE_PATCH
    sheet[y : y + side, x : x + side] = place["left_eye"]
    sheet[y : y + side, x + side : x + 2 * side] = place["right_eye"]
    for name in ("mouth", "tongue", "teeth"):
        px, py = _FLAT[name]
        sheet[py - 16 : py + 16, px - 16 : px + 16] = place["mouth"]
    return sheet
