"""Colours: one texture a person, painted in linear light on the shared canvas."""

from __future__ import annotations

import cv2
import numpy as np

from ops.studio.canvas import (
    CLOTH,
    EYE_PATCH,
    EYE_REACH,
    FLAT,
    HEAD_HEIGHT,
    HEIGHT,
    TEETH,
    WIDTH,
    Canvas,
    sphere_uv,
    step,
)
from ops.studio.people import Person, stream


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """(height, width) noise of about unit variance with ``cells`` features across; wraps from left to right."""
    small = rng.normal(size=(max(2, cells * height // width), cells)).astype(np.float32)
    padded = np.concatenate([small, small[:, :2]], axis=1)
    big = cv2.resize(padded, (width * (cells + 2) // cells, height), interpolation=cv2.INTER_CUBIC)
    return big[:, :width]


def texture(c: Canvas, person: Person, seed: int, scalp: np.ndarray) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) float32 albedo of a person; ``scalp`` (HEAD_HEIGHT, WIDTH): share covered by hair roots."""
    rng = stream(seed, 2, person.number)
    sheet = np.ones((HEIGHT, WIDTH, 3), np.float32)
    skin = sheet[:HEAD_HEIGHT]
    _paint_skin(skin, c, person, rng)
    if person.stubble or person.beard:
        share = c.region["beard"] * np.float32(0.75 if person.beard else 0.4 * person.stubble)
        fine = rng.standard_normal(share.shape, dtype=np.float32)
        _blend(skin, person.hair * 0.8 + 0.1 * person.skin, np.clip(share * (1 + 0.2 * fine), 0, 0.95))
    _blend(skin, person.lips, c.region["lips"], 1 + 0.06 * smooth_noise(rng, HEAD_HEIGHT, WIDTH, 220))
    _blend(skin, person.hair * 0.7, scalp)
    _draw_brows(skin, c, person, rng)
    _draw_lashes(skin, c, person)
    x, y, side = EYE_PATCH
    eye = eye_patch(person, rng)
    sheet[y : y + side, x : x + side] = eye
    sheet[y : y + side, x + side : x + 2 * side] = eye[:, ::-1]
    flats = {
        "eye_socket": person.skin * [0.75, 0.5, 0.5],
        "mouth": np.array([0.26, 0.07, 0.065]),
        "tongue": np.array([0.42, 0.15, 0.14]),
        "lash": np.minimum(person.brows * 0.4, 0.03),
        "frame": person.frame,
        "lens": np.array([0.012, 0.013, 0.014]),
    }
    for name, colour in flats.items():
        px, py = FLAT[name]
        sheet[py - 16 : py + 16, px - 16 : px + 16] = colour
    x, y, width, height = TEETH
    sheet[y : y + height, x : x + width] = _teeth(rng, width, height)
    x, y, width, height = CLOTH
    colours = person.cloth, person.cloth_second
    sheet[y : y + height, x : x + width] = cloth(rng, (height, width), colours, person.pattern)
    return np.maximum(sheet, 0.003, out=sheet)


def _paint_skin(skin: np.ndarray, c: Canvas, person: Person, rng: np.random.Generator) -> None:
    """Tone with broad and fine variation, blood near the surface, shade about the eyes, freckles."""
    region = c.region
    shade = 1 + smooth_noise(rng, HEAD_HEIGHT, WIDTH, 24) * 0.016 + smooth_noise(rng, HEAD_HEIGHT, WIDTH, 90) * 0.012
    shade += cv2.GaussianBlur(0.025 * rng.standard_normal(shade.shape, dtype=np.float32), (0, 0), 0.8)
    blush = np.float32(person.blush)
    red = blush * (0.8 * region["cheeks"] + 0.7 * region["nose_tip"] + 0.35 * region["chin"]) + 0.5 * region["ears"]
    dark = 0.16 * region["sockets"] + 0.14 * region["under_eyes"]
    for channel, (blood, shadow) in enumerate(((0.03, 0.75), (0.20, 1.0), (0.17, 0.92))):
        skin[..., channel] = np.float32(person.skin[channel]) * shade * (1 - blood * red - shadow * dark)
    if person.freckles:
        spots = (rng.random(shade.shape, dtype=np.float32) < 0.012 * person.freckles).astype(np.float32)
        spots = np.clip(cv2.GaussianBlur(spots, (0, 0), 1.1) * 5, 0, 1)
        spots *= np.clip(region["cheeks"] + region["nose_tip"] + 0.15, 0, 1)
        skin *= 1 - 0.45 * spots[..., None] * np.array([0.5, 0.8, 1.0], np.float32)


def cloth(
    rng: np.random.Generator,
    size: tuple[int, int],
    colours: tuple[np.ndarray, np.ndarray],
    pattern: str,
    scale: float = 1.0,
) -> np.ndarray:
    """(height, width, 3) of a garment: a pattern of two colours, a weave and broad folds; ``scale`` of the pattern."""
    height, width = size
    x = np.arange(width, dtype=np.float32)[None] / np.float32(scale)
    y = np.arange(height, dtype=np.float32)[:, None] / np.float32(scale)
    share = np.zeros((height, width), np.float32)
    period = rng.integers(24, 70)
    if pattern == "stripes":
        share += np.mod(y, period) < period * rng.uniform(0.3, 0.6)
    elif pattern == "checks":
        share += 0.5 * (np.mod(y, period) < period / 2) + 0.5 * (np.mod(x, period) < period / 2)
    shade = 1 + 0.05 * rng.standard_normal((height, width), dtype=np.float32)
    if pattern == "knit":
        shade *= 1 + 0.16 * np.sin(x * 0.9) * np.sin(y * 0.55 + 1.2 * np.sin(x * 0.9))
    shade *= 1 + 0.10 * smooth_noise(rng, height, width, 9) + 0.05 * smooth_noise(rng, height, width, 26)
    first, second = (colour.astype(np.float32) for colour in colours)
    return (first + (second - first) * share[..., None]) * shade[..., None]


def _blend(base: np.ndarray, colour: np.ndarray, share: np.ndarray, shade: np.ndarray | None = None) -> None:
    """Lay a colour over ``base`` (H, W, 3) in place, by ``share`` (H, W); ``shade`` (H, W) scales the colour."""
    touched = share > 0.004
    rows, columns = np.nonzero(touched.any(1))[0], np.nonzero(touched.any(0))[0]
    if not len(rows):
        return
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    weight = share[box].astype(np.float32)[..., None]
    paint = np.asarray(colour, np.float32)
    if shade is not None:
        paint = paint * shade[box][..., None].astype(np.float32)
    base[box] += (paint - base[box]) * weight


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
        for _ in range(int(460 * person.brow_weight)):
            t = rng.random()
            thick = person.brow_weight * (0.9 + 0.35 * np.sin(np.pi * t) - 0.6 * t)
            root = line[int(t * 31)] + rng.normal(0, 1, 2) * [1.5, 4.6 * thick]
            lean = np.array([outward * (0.7 + 0.3 * t), 0.6 * t - 0.45]) * rng.uniform(7, 13)
            cv2.line(
                layer,
                tuple(int(value * 16) for value in root),
                tuple(int(value * 16) for value in root + lean),
                float(rng.uniform(0.55, 1.0)),
                1,
                cv2.LINE_AA,
                4,
            )
    share = np.clip(0.7 * cv2.GaussianBlur(layer, (0, 0), 0.8) + 0.9 * cv2.GaussianBlur(layer, (0, 0), 3.0), 0, 0.93)
    _blend(skin, person.brows, share)


def _draw_lashes(skin: np.ndarray, c: Canvas, person: Person) -> None:
    """A dark line along the lids, strong above, faint below."""
    points = c.landmarks
    layer = np.zeros(skin.shape[:2], np.float32)
    rims = (((36, 37, 38, 39), 1.0), ((42, 43, 44, 45), 1.0), ((36, 41, 40, 39), 0.3), ((42, 47, 46, 45), 0.3))
    for indices, strength in rims:
        line = np.round(sphere_uv(points[list(indices)]) * 16).astype(np.int32)
        cv2.polylines(layer, [line[:, None]], False, strength, 3, cv2.LINE_AA, 4)
    share = np.clip(cv2.GaussianBlur(layer, (0, 0), 1.2), 0, 1) * 0.8
    _blend(skin, np.minimum(person.brows * 0.6, 0.05), share)


def _teeth(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Both rows, seen along the arch: ivory crowns with dark gaps, pink gums above and below."""
    ivory = np.array([0.70, 0.64, 0.52]) * rng.uniform(0.75, 1.0) * [1, 1, rng.uniform(0.85, 1.05)]
    gum, gap = np.array([0.45, 0.16, 0.15]), np.array([0.10, 0.05, 0.04])
    rows = []
    for sizes in ((8.5, 6.6, 7.6, 7.0, 6.8, 10.0), (5.4, 5.9, 6.9, 7.0, 7.1, 10.5)):  # millimetres from the middle
        ends = np.concatenate([[0.0], np.cumsum(sizes)]) / sum(sizes)
        place = np.abs(np.linspace(-1, 1, width))
        tooth = np.clip(np.searchsorted(ends, place, side="right") - 1, 0, len(sizes) - 1)
        along = (place - ends[tooth]) / (ends[tooth + 1] - ends[tooth])
        near = np.minimum(along, 1 - along) * (ends[tooth + 1] - ends[tooth]) * width / 2  # texels to the next gap
        down = np.linspace(0, 1, height // 2)[:, None]
        crown = step(down + 0.13 * np.sin(np.pi * along)[None], 0.30, 0.04)
        shade = 0.9 + 0.1 * np.sin(np.pi * along)[None] * np.sin(np.pi * np.clip(down, 0, 1))
        tooth_colour = gap + (ivory * shade[..., None] - gap) * step(near, 1.1, 0.9)[None, :, None]
        rows.append(gum + (tooth_colour - gum) * crown[..., None])
    return np.concatenate(rows).astype(np.float32)


def eye_patch(person: Person, rng: np.random.Generator) -> np.ndarray:
    """The eyeball seen along its axis: sclera with a little red, limbus, streaked iris, pupil."""
    side = EYE_PATCH[2]
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(axis * EYE_REACH, axis * EYE_REACH)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    iris_radius, pupil_radius = 0.485, rng.uniform(0.15, 0.21)
    streaks = np.interp(angle, np.linspace(-np.pi, np.pi, 97), np.resize(rng.normal(0, 1, 96), 97))
    iris = person.iris * (1 + 0.18 * streaks[..., None]) * (0.75 + 0.7 * radius[..., None] / iris_radius)
    iris = iris * (1 - 0.6 * step(radius, iris_radius * 0.86, 0.035)[..., None])
    sclera = np.array([0.70, 0.66, 0.62]) * (1 - 0.22 * np.clip(radius - 0.5, 0, 1)[..., None] * [0.5, 1.0, 1.0])
    colour = iris + (sclera - iris) * step(radius, iris_radius, 0.02)[..., None]
    return colour * step(radius, pupil_radius, 0.02)[..., None] + 0.004
