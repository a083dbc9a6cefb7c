"""Hair as strands: thousands of ribbons that grow from the scalp, follow a style, fall and rest on the body.

Strands are grown once a person, in rest pose, all at once: each step turns every strand's direction towards what the
style wants at that place, moves on, and pushes points out of head and torso. The style is a handful of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ops.studio.canvas import HEAD_HEIGHT, WIDTH, Canvas, sphere_uv
from ops.studio.people import Person, stream


@dataclass(frozen=True)
class Style:
    """How hair grows and falls. Lengths in world units (2.7 a metre). All unpublished: our choice.

    Attributes:
        strands: number of ribbons.
        length: of a strand.
        width: of a ribbon at the root.
        lift: how far roots stand off the scalp, 0 flat to 1 upright.
        layer: greatest height over the scalp to which strands are stacked.
        gravity: pull downwards per step.
        comb: where the style pulls: to the sides of a parting, back, down, forward.
        curl: radius of curls; turns: their number along a strand.
        tie: point relative to the head to which strands are gathered; None for loose hair.
        tail: length of the strand after the tie, 0 for a bun.
        fringe: whether hair at the forehead falls forward.
        top: whether the crown is covered.
        steps: segments of a strand.
        inertia: how much of its direction a strand keeps from step to step.
    """

    strands: int = 3000
    length: float = 0.3
    width: float = 0.0085
    lift: float = 0.3
    layer: float = 0.03
    gravity: float = 0.3
    comb: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    curl: float = 0.0
    turns: float = 3.0
    tie: tuple[float, float, float] | None = None
    tail: float = 0.0
    fringe: bool = False
    top: bool = True
    steps: int = 12
    inertia: float = 0.9


_LOOSE = Style(strands=3000, width=0.0100, lift=0.2, layer=0.045, gravity=0.6, comb=(0.5, 0.12, 0.2, 0), inertia=0.65)
_TIED = Style(strands=3600, width=0.009, length=0.5, lift=0.1, layer=0.012, gravity=0.0)
_SHORT = Style(strands=3600, width=0.0075)

STYLES: dict[str, Style | None] = {
    "bald": None,
    "buzz": Style(strands=5000, length=0.022, width=0.0045, lift=0.9, layer=0.0, gravity=0.0, steps=2),
    "receding": replace(
        _SHORT, length=0.09, lift=0.2, layer=0.012, gravity=0.2, comb=(0, 0.5, 0.4, 0), top=False, steps=6
    ),
    "crop": replace(_SHORT, length=0.115, lift=0.5, layer=0.02, gravity=0.12, comb=(0.2, 0.1, 0.3, 0.5), steps=6),
    "side_part": replace(_SHORT, length=0.19, lift=0.3, layer=0.035, gravity=0.3, comb=(0.8, 0.25, 0.2, 0), steps=9),
    "slick_back": replace(_SHORT, length=0.25, lift=0.15, layer=0.035, gravity=0.26, comb=(0, 1.1, 0.2, 0), steps=10),
    "curly": replace(
        _SHORT, length=0.24, lift=0.55, layer=0.06, gravity=0.12, comb=(0.2, 0.2, 0.1, 0), curl=0.02, turns=2.2
    ),
    "afro": Style(strands=4600, width=0.007, length=0.22, lift=1.0, layer=0.02, gravity=0.0, curl=0.016, turns=2.2),
    "bob": replace(_LOOSE, length=0.44, gravity=0.55),
    "fringe_bob": replace(_LOOSE, length=0.46, comb=(0.4, 0.0, 0.3, 0), fringe=True),
    "long": replace(_LOOSE, length=1.02, gravity=0.72, inertia=0.55),
    "wavy": replace(_LOOSE, length=0.98, gravity=0.65, inertia=0.6, curl=0.018, turns=2.6),
    "ponytail": replace(_TIED, tie=(0.0, 0.13, -0.40), tail=0.62),
    "bun": replace(_TIED, tie=(0.0, 0.30, -0.30)),
}

# Elevation of the hairline, degrees, at |azimuth| of the root: forehead, temple, sideburn, over the ear, nape.
_AZIMUTHS = (0, 25, 45, 58, 70, 80, 92, 102, 116, 132, 150, 180)
_HAIRLINE = (43, 42, 37, 30, 17, 2, 12, 9, -10, -27, -33, -35)
_RECEDED = (70, 66, 52, 44, 24, 8, 14, 9, -10, -27, -33, -35)


@dataclass(frozen=True)
class Strands:
    """Points (S, K, 3) of the strands in rest pose, half widths (S, K) and tints (S,) about one."""

    points: np.ndarray
    half_width: np.ndarray
    tint: np.ndarray
    share: np.ndarray  # (S, K) of depth in the hair: 0 at the scalp, 1 outside


def style_of(person: Person) -> Style | None:
    """The style with the person's own length and volume."""
    style = STYLES[person.style]
    if style is None:
        return None
    return replace(
        style,
        length=style.length * (person.length if style.tie is None else 1.0),
        layer=style.layer * person.volume,
        tail=style.tail * person.length,
    )


def hairline(person: Person, azimuth: np.ndarray) -> np.ndarray:
    """Elevation (radians) above which hair grows, at azimuths in radians."""
    table = _RECEDED if person.style == "receding" else _HAIRLINE
    return np.deg2rad(np.interp(np.abs(np.rad2deg(azimuth)), _AZIMUTHS, table))


def scalp_share(canvas: Canvas, person: Person, seed: int) -> np.ndarray:
    """(HEAD_HEIGHT, WIDTH) share in [0, 1] of the head's texels that hair roots darken."""
    position = canvas.position
    azimuth = np.arctan2(position[..., 0], position[..., 2])
    elevation = np.arctan2(position[..., 1], np.hypot(position[..., 0], position[..., 2]))
    rng = stream(seed, 3, person.number)
    ragged = np.interp(np.arange(WIDTH), np.linspace(0, WIDTH, 257), np.resize(rng.normal(0, 0.018, 256), 257))
    above = elevation - hairline(person, azimuth) + ragged
    share = 1 / (1 + np.exp(-above / 0.022))
    strength = {"bald": 0.0, "buzz": 0.72, "receding": 0.8}.get(person.style, 0.88)
    return (share * strength * (1 - canvas.ears)).astype(np.float32)


def grow(canvas: Canvas, person: Person, seed: int, scalp: np.ndarray, rest: np.ndarray, body: Body) -> Strands | None:
    """The strands of a person, or None for a bald one.

    Args:
        scalp: of :func:`scalp_share`.
        rest: (V, 3) the person's vertices at rest, head frame.
        body: what strands must not enter.
    """
    style = style_of(person)
    parts: list[Strands] = []
    if style is not None:
        parts.append(_grow_scalp(canvas, person, style, seed, scalp, rest, body))
    if person.beard:
        parts.append(_grow_beard(canvas, person, seed, rest, body))
    if not parts:
        return None
    longest = max(part.points.shape[1] for part in parts)
    parts = [_resampled(part, longest) for part in parts]
    names = ("points", "half_width", "tint", "share")
    strands = Strands(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    # The outer ones come first: what is drawn behind them costs the rasteriser little.
    order = np.argsort(-strands.share[:, longest // 2], kind="stable")
    return Strands(*(np.ascontiguousarray(getattr(strands, name)[order]) for name in names))


def _resampled(strands: Strands, count: int) -> Strands:
    """The same strands with ``count`` points each; joining styles needs one number."""
    have = strands.points.shape[1]
    if have == count:
        return strands
    place = np.linspace(0, have - 1, count)
    low = np.minimum(place.astype(int), have - 2)
    share = (place - low).astype(np.float32)

    def between(values: np.ndarray) -> np.ndarray:
        weight = share.reshape(1, -1, *([1] * (values.ndim - 2)))
        return values[:, low] * (1 - weight) + values[:, low + 1] * weight

    return Strands(between(strands.points), between(strands.half_width), strands.tint, between(strands.share))


_NECK = 0.42  # world units from the middle, within which head and neck lie


class Body:
    """Distance maps of head and torso for collisions.

    Args:
        canvas: the unwrapping.
        rest: (V, 3) vertices at rest, head frame.
        front, back: (R, R) z of the foremost and hindmost surface over x and y, NaN where there is none.
        extent: world units across the two maps.
        centre_y: height in the middle of the maps.
    """

    def __init__(
        self, canvas: Canvas, rest: np.ndarray, front: np.ndarray, back: np.ndarray, extent: float, centre_y: float
    ) -> None:
        coarse = (slice(None, None, 4), slice(None, None, 4))
        surface = np.einsum("hwk,hwkc->hwc", canvas.weight[coarse], rest[canvas.corner[coarse]])
        # Shoulders and arms are left to the maps: pushed away from the head, hair would stand off along them.
        self.radius = np.where(np.abs(surface[..., 0]) < _NECK, np.linalg.norm(surface, axis=-1), 0)
        self.front, self.back, self.extent, self.centre_y = front, back, extent, centre_y

    def push_out(self, points: np.ndarray, gap: np.ndarray) -> np.ndarray:
        """Points (P, 3) moved out of the body so that they keep ``gap`` (P,) from it."""
        uv = sphere_uv(points) / 4
        column = np.clip(uv[:, 0].astype(int), 0, WIDTH // 4 - 1)
        row = np.clip(uv[:, 1].astype(int), 0, HEAD_HEIGHT // 4 - 1)
        radius = np.linalg.norm(points, axis=1)
        needed = self.radius[row, column] + gap
        elevation = points[:, 1] / np.maximum(radius, 1e-6)
        inside = (radius < needed) & (elevation > -0.75)
        points = np.where(inside[:, None], points * (needed / np.maximum(radius, 1e-6))[:, None], points)

        side = len(self.front)
        x = np.clip(((points[:, 0] / self.extent + 0.5) * side).astype(int), 0, side - 1)
        y = np.clip(((0.5 - (points[:, 1] - self.centre_y) / self.extent) * side).astype(int), 0, side - 1)
        front, back = self.front[y, x] + gap, self.back[y, x] - gap
        inside = (points[:, 2] < front) & (points[:, 2] > back) & (points[:, 1] < -0.25)
        # Hair that starts behind the shoulder stays behind it, unless it lies well to the front.
        middle = back + 0.62 * (front - back)
        z = np.where(points[:, 2] > middle, front, back)
        points[:, 2] = np.where(inside, z, points[:, 2])
        return points


def _roots(
    canvas: Canvas, share: np.ndarray, count: int, rng: np.random.Generator, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Root positions and outward normals (count, 3), spread over the texels by ``share`` and their area."""
    position = canvas.position
    area = np.linalg.norm(np.cross(np.gradient(position, axis=1), np.gradient(position, axis=0)), axis=-1) * np.clip(
        share, 0, 1
    )
    cumulative = np.cumsum(area.reshape(-1))
    pick = np.searchsorted(cumulative, (np.arange(count) + rng.random(count)) / count * cumulative[-1])
    row, column = np.divmod(np.minimum(pick, area.size - 1), WIDTH)
    points = np.einsum("nk,nkc->nc", canvas.weight[row, column], rest[canvas.corner[row, column]])
    corners = rest[canvas.corner[row, column]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    normals *= np.where((normals * points).sum(1, keepdims=True) < 0, -1, 1)
    radial = points / np.linalg.norm(points, axis=1, keepdims=True)
    normals = 0.5 * normals + 0.5 * radial
    return points, normals / np.linalg.norm(normals, axis=1, keepdims=True)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


def _grow_scalp(
    canvas: Canvas, person: Person, style: Style, seed: int, scalp: np.ndarray, rest: np.ndarray, body: Body
) -> Strands:
    rng = stream(seed, 4, person.number)
    share = (scalp > 0.3).astype(np.float32)
    n = style.strands
    roots, normals = _roots(canvas, share, n, rng, rest)
    order = rng.permutation(n)
    roots, normals = roots[order], normals[order]
    parting = person.parting * 0.12
    side = np.sign(roots[:, 0] - parting + rng.normal(0, 0.012, n))
    azimuth = np.arctan2(roots[:, 0], roots[:, 2])
    elevation = np.arctan2(roots[:, 1], np.hypot(roots[:, 0], roots[:, 2]))
    stack = rng.random(n) ** 0.8  # place in the layers, 0 at the scalp
    length = style.length * rng.uniform(0.86, 1.08, n)
    if not style.top:
        length *= np.clip(1.6 - elevation, 0.3, 1)
    fringe = np.zeros(n, dtype=bool)
    if style.fringe:
        fringe = (np.abs(azimuth) < 0.85) & (elevation > 0.4) & (elevation < 1.25) & (roots[:, 2] > 0)
        short = np.clip(0.155 + 0.28 * (elevation - 0.75), 0.12, 0.32)  # down to the brows
        length = np.where(fringe, short * rng.uniform(0.85, 1.05, n), length)
    comb = np.zeros((n, 3))
    # A parting runs over the crown and ends there: behind, hair falls straight down.
    parted = np.clip((roots[:, 2] + 0.16) / 0.2, 0, 1) * np.clip((roots[:, 1] - 0.02) / 0.15, 0, 1)
    comb[:, 0] = side * style.comb[0] * (0.08 + 0.92 * parted)
    comb[:, 1] = -style.comb[2]
    comb[:, 2] = -style.comb[1] + style.comb[3] * np.clip(roots[:, 1] * 4, 0, 1)
    comb[fringe] = [0, -0.2, 1.0]
    lift = np.where(fringe, 0.15, style.lift)
    direction = _unit(normals * lift[:, None] + 0.9 * (comb - (comb * normals).sum(1, keepdims=True) * normals) + 1e-4)
    if style.tie is not None:
        return _gather(style, person, rng, roots, normals, stack, body)
    points = [roots]
    step = length / style.steps
    here = roots
    jitter = rng.normal(0, 0.10, (n, 3))
    for number in range(style.steps):
        t = (number + 1) / style.steps
        outward = _unit(here * [1, 0.6, 1])
        pull = np.array([0, -1.0, 0]) * style.gravity * min(1.0, 0.35 + 1.5 * t)
        fade = max(0.0, 1 - 1.5 * t)
        wish = comb * 0.5 * fade + pull + jitter * 0.25
        # Loose hair parts before the face instead of falling across it.
        before = np.clip((here[:, 2] - 0.10) / 0.1, 0, 1) * (here[:, 1] < 0.30) * (~fringe)
        if style.length > 0.3:
            wish[:, 0] += np.where(here[:, 0] * side > 0, np.sign(here[:, 0]), side) * before * 0.55
            wish[:, 2] -= before * 0.35
        direction = _unit(direction * style.inertia + wish)
        here = here + direction * step[:, None]
        gap = 0.006 + style.layer * stack * min(1.0, 2.5 * t)
        pushed = body.push_out(here.copy(), gap)
        moved = np.linalg.norm(pushed - here, axis=1, keepdims=True) > 1e-6
        here = pushed
        direction = np.where(moved, _unit(here - points[-1]), direction)
        if style.lift >= 0.9:
            direction = _unit(direction + 0.4 * outward)
        points.append(here)
    path = np.stack(points, axis=1)
    if style.curl:
        path = _curl(path, style, rng)
    return _finish(path, style, stack, rng)


def _curl(path: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Winds strands about their paths; neighbours share a phase, so that they form locks."""
    n = len(path)
    tangent = _unit(np.gradient(path, axis=1))
    side = _unit(np.cross(tangent, [0.0, 1.0, 0.0]) + 1e-4)
    across = np.cross(tangent, side)
    cell = np.floor(path[:, 0] / 0.07).astype(int)
    key = (cell[:, 0] * 73856093) ^ (cell[:, 1] * 19349663) ^ (cell[:, 2] * 83492791)
    phase = (key % 1024) / 1024 * 2 * np.pi + rng.normal(0, 0.5, n)
    t = np.linspace(0, 1, style.steps + 1)[None]
    angle = phase[:, None] + 2 * np.pi * style.turns * t * (1 + 0.2 * rng.normal(size=(n, 1)))
    radius = style.curl * np.clip(t * 3, 0, 1)
    return path + (np.cos(angle) * radius)[..., None] * side + (np.sin(angle) * radius)[..., None] * across


def _gather(
    style: Style,
    person: Person,
    rng: np.random.Generator,
    roots: np.ndarray,
    normals: np.ndarray,
    stack: np.ndarray,
    body: Body,
) -> Strands:
    """Strands drawn tightly over the scalp to one point, and from there a tail or a knot."""
    assert style.tie is not None
    tie = np.array(style.tie)
    n = len(roots)
    over = style.steps // 2 if style.tail else style.steps // 2 + 1
    spread = _unit(rng.normal(size=(n, 3))) * (0.035 * rng.random((n, 1)))
    points = [roots]
    for number in range(1, over + 1):
        t = number / over
        here = roots * (1 - t) + (tie + spread) * t
        gap = 0.006 + style.layer * stack + 0.02 * np.sin(np.pi * t)
        points.append(body.push_out(here.copy(), gap * (1 - 0.5 * t)))
    rest = style.steps - over
    if style.tail:
        direction = _unit(np.array([0.0, 0.25, -1.0]) + rng.normal(0, 0.22, (n, 3)))
        here = points[-1]
        step = style.tail * rng.uniform(0.8, 1.1, n) / rest
        for _ in range(rest):
            direction = _unit(direction + np.array([0, -0.75, 0.0]))
            here = body.push_out(here + direction * step[:, None], 0.01 + 0.05 * stack)
            points.append(here)
    else:
        knot = tie + _unit(tie) * 0.085
        axis = _unit(tie)
        first = _unit(np.cross(axis, [1.0, 0.0, 0.0]))
        second = np.cross(axis, first)
        phase, tilt = rng.uniform(0, 2 * np.pi, n), rng.uniform(-1, 1, n)
        for number in range(1, rest + 1):
            angle = phase + 2.2 * number / rest
            ring = np.sqrt(np.clip(1 - tilt**2, 0, 1))
            ball = (
                np.cos(angle)[:, None] * first * ring[:, None]
                + np.sin(angle)[:, None] * second * ring[:, None]
                + axis * tilt[:, None]
            )
            points.append(knot + ball * 0.115 * person.volume)
    return _finish(np.stack(points, axis=1), style, stack, rng)


def _grow_beard(canvas: Canvas, person: Person, seed: int, rest: np.ndarray, body: Body) -> Strands:
    rng = stream(seed, 5, person.number)
    style = Style(strands=3000, length=person.beard, width=0.004, lift=0.3, layer=0.008, steps=5)
    share = canvas.region["beard"]
    roots, normals = _roots(canvas, share * (share > 0.3), style.strands, rng, rest)
    down = np.array([0, -1.0, 0.15])
    direction = _unit(normals * style.lift + 0.7 * down + rng.normal(0, 0.18, roots.shape))
    points = [roots]
    for _ in range(style.steps):
        direction = _unit(direction + 0.12 * down)
        points.append(points[-1] + direction * style.length / style.steps)
    path = np.stack(points, axis=1)
    return _finish(path, style, rng.random(style.strands), rng)


def _finish(path: np.ndarray, style: Style, stack: np.ndarray, rng: np.random.Generator) -> Strands:
    n = len(path)
    t = np.linspace(0, 1, style.steps + 1)
    taper = np.clip(1.15 - 0.9 * t**3, 0.2, 1)
    lock = np.floor(path[:, 0] / 0.045).astype(int)
    key = (lock[:, 0] * 73856093) ^ (lock[:, 1] * 19349663) ^ (lock[:, 2] * 83492791)
    tint = np.exp(rng.normal(0, 0.16, n) + 0.16 * ((key % 997) / 498.5 - 1))
    share = np.clip(0.25 + 0.75 * stack[:, None] + 0.35 * t[None] - 0.15, 0, 1)
    half = 0.5 * style.width * rng.uniform(0.7, 1.3, (n, 1)) * taper[None]
    return Strands(*(value.astype(np.float32) for value in (path, half, tint, np.broadcast_to(share, path.shape[:2]))))
