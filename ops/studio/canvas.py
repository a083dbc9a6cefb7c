"""The unwrapping that all painting shares: a sphere for the head, flat patches, and where features lie.

The head is unwrapped on a sphere about the head frame's origin, with more room for the front; the unwrapping belongs to
the mean head, so a feature painted once sits right on every identity. Below the head lie patches: the eyes seen along
their axis, flat colours for the inner surfaces, and the garment seen from the front.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import torch

from models.parametric.anny import JOINTS, PARTS, Anny
from models.render import raster
from ops.store.parsing import CLASSES

WIDTH, HEAD_HEIGHT, HEIGHT = 1024, 768, 1664  # texels
CLOTH = (0, 1024, 1024, 640)  # x, y, width, height of the garment's patch, seen from the front
CLOTH_SPAN = (-1.0, 1.0, -1.45, -0.2)  # world x and y that it covers
_STRETCH = 0.7  # of the front: 1 + this many times the texels per degree there
_LOWEST, _HIGHEST = np.deg2rad(-80.0), np.deg2rad(90.0)
EYE_PATCH = (0, HEAD_HEIGHT, 256)  # x, y, side of the left eye's square; the right one's is beside it
EYE_REACH = 1.1  # half a square, in radii of the eyeball
FLAT = {  # middles of squares of one colour
    "eye_socket": (560, 800),
    "mouth": (624, 800),
    "tongue": (688, 800),
    "lash": (752, 800),
    "frame": (816, 800),
    "lens": (880, 800),
    "limb": (560, 1000),
    "shoe": (624, 1000),
}
TEETH = (528, 848, 480, 128)  # x, y, width, height: the upper row from gum to edge, below it the lower one


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


def planar_uv(
    points: np.ndarray, patch: tuple[int, int, int, int] = CLOTH, span: tuple[float, float, float, float] = CLOTH_SPAN
) -> np.ndarray:
    """(P, 3) points at rest to (P, 2) texels of a patch (x, y, width, height) that shows x and y of ``span``."""
    x, y, width, height = patch
    left, right, low, high = span
    u = np.clip((points[:, 0] - left) / (right - left), 0.003, 0.997) * width
    v = np.clip((high - points[:, 1]) / (high - low), 0.003, 0.997) * height
    return np.stack([x + u, y + v], axis=1).astype(np.float32)


@lru_cache(maxsize=2)
def unwrap(model: Anny) -> Canvas:
    """The unwrapping of a model, made once a process."""
    mean = model.rest(model.mean_identity[None])[0][0].numpy()
    upper = _unwrap_upper(model, mean[: model.upper_vertices])
    return upper if model.upper_vertices == len(mean) else _with_limbs(upper, model, mean)


def _with_limbs(upper: Canvas, model: Anny, mean: np.ndarray) -> Canvas:
    """Arms, hands and legs, which have one colour, added to the rest."""
    faces = model.triangles.numpy()
    arms = model.skinning_weights[:, [1 + JOINTS.index(f"shoulder_{side}") for side in ("left", "right")]].sum(1) > 0.5
    plain = arms.numpy()[faces].all(1)
    plain[model.upper_triangles :] = True
    vertices, corners = np.unique(faces[plain], return_inverse=True)
    triangles = np.concatenate([upper.triangles, faces[model.upper_triangles :]])
    triangles[plain] = corners.reshape(-1, 3) + len(upper.vertex)
    colour = np.tile(np.array(FLAT["limb"], np.float32), (len(vertices), 1))
    return replace(
        upper,
        vertex=np.concatenate([upper.vertex, vertices]),
        uv=np.concatenate([upper.uv, colour]),
        triangles=triangles,
        mean=mean,
    )


def _unwrap_upper(model: Anny, mean: np.ndarray) -> Canvas:
    """Head, torso and arms."""
    parts = model.parts.numpy()[: len(mean)]
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
        uv[parts == PARTS.index(name)] = FLAT[name]

    vertex, triangles = np.arange(len(mean)), model.triangles.numpy()[: model.upper_triangles].copy()
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
    front = step(z, 0.02, 0.12)
    low = 1 - step(y - 0.9 * np.maximum(x - 0.125, 0), nose[1] - 0.055, 0.054)
    above_neck = step(y - 0.5 * np.maximum(0.12 - z, 0), chin[1] - 0.03, 0.036)
    # The mask that the lips come from has small holes.
    lips = cv2.morphologyEx(c.lips, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13)))
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
        "lips": cv2.GaussianBlur(lips, (0, 0), 1.6),
    }


def step(value: np.ndarray, edge: float, width: float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip((value - edge) / width * 3, -30, 30)))


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
    for name, label in (("mouth", "mouth"), ("tongue", "mouth"), ("frame", "glasses"), ("lens", "glasses")):
        px, py = FLAT[name]
        sheet[py - 16 : py + 16, px - 16 : px + 16] = place[label]
    x, y, width, height = TEETH
    sheet[y : y + height, x : x + width] = place["mouth"]
    return sheet
