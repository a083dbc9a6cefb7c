# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# Kernels are warp's dialect: types are values, and a variable that a loop changes is declared by a cast.
"""The studio's kernels: ribbons of hair in the camera, and pixels from the z-buffer.

Imports warp; import lazily. All arrays are float32 on the CPU or the GPU alike.
"""

from __future__ import annotations

import numpy as np
import warp as wp

from models.render.raster_warp import depth_of, weights_at
from ops.store.parsing import CLASSES

wp.set_module_options({"enable_backward": False, "fast_math": False})

TONE_TOP = wp.constant(2.0)  # linear light at which bytes have long been 255
HAIR = wp.constant(CLASSES.index("hair"))
CLOTH = wp.constant(CLASSES.index("cloth"))


@wp.func
def lit(transfer: wp.array2d(dtype=float), row: int, light: wp.array2d(dtype=float)):
    r = float(0.0)
    g = float(0.0)
    b = float(0.0)
    for k in range(9):
        t = transfer[row, k]
        r += t * light[k, 0]
        g += t * light[k, 1]
        b += t * light[k, 2]
    return wp.vec3(wp.max(r, 0.0), wp.max(g, 0.0), wp.max(b, 0.0))


@wp.kernel
def gather_light(
    points: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    buffer: wp.array3d(dtype=wp.int64),  # (1, M, M) z-buffer seen from the light
    to_map: wp.mat33,
    offset: wp.vec3,
    direction: wp.vec3,
    weights: wp.array(dtype=float),  # (9,) harmonics of the direction times its solid angle over pi
    bias: float,
    result: wp.array2d(dtype=float),
):
    """Adds one direction's light to the transfer of the points that it reaches; shadow edges are bilinear."""
    p = wp.tid()
    cosine = wp.dot(normals[p], direction)
    if cosine <= 0.0:
        return
    place = to_map * points[p] + offset
    side = buffer.shape[1]
    x = wp.clamp(place[0] - 0.5, 0.0, float(side) - 1.001)
    y = wp.clamp(place[1] - 0.5, 0.0, float(side) - 1.001)
    x0 = int(x)
    y0 = int(y)
    fx = x - float(x0)
    fy = y - float(y0)
    limit = place[2] - bias
    lit_share = float(0.0)
    for corner in range(4):
        dy = corner / 2
        dx = corner - 2 * dy
        weight = (float(dx) * fx + float(1 - dx) * (1.0 - fx)) * (float(dy) * fy + float(1 - dy) * (1.0 - fy))
        key = buffer[0, y0 + dy, x0 + dx]
        if key == wp.int64(0x7FFFFFFFFFFFFFFF) or depth_of(key) > limit:
            lit_share += weight
    for k in range(9):
        result[p, k] += weights[k] * cosine * lit_share


@wp.kernel
def ribbons(
    points: wp.array2d(dtype=wp.vec3),  # (S, K) strand points at rest
    half_width: wp.array2d(dtype=float),
    share: wp.array2d(dtype=float),
    tint: wp.array(dtype=float),
    transfer: wp.array2d(dtype=float),  # (S * L, 9) at L places along each strand
    places: int,
    torso: wp.mat44,  # rest to posed for what hangs on the torso; the head stands still
    eye: wp.vec3,
    rotation: wp.mat33,  # world to camera
    scale: float,  # focal length in pixels
    middle: wp.vec2,  # principal point in pixels
    pixel: float,  # least half width of a ribbon, pixels
    light: wp.array2d(dtype=float),  # (9, 3)
    key: wp.vec3,
    key_colour: wp.vec3,
    colour: wp.vec3,
    first: int,  # row of the first vertex to write
    screen: wp.array(dtype=wp.vec3),
    radiance: wp.array(dtype=wp.vec3),
    gloss: wp.array(dtype=wp.vec3),
):
    s, k = wp.tid()
    steps = points.shape[1]
    before = points[s, wp.max(k - 1, 0)]
    after = points[s, wp.min(k + 1, steps - 1)]
    here = points[s, k]
    hang = wp.clamp((-0.30 - here[1]) / 0.35, 0.0, 1.0)
    moved = wp.transform_point(torso, here) * hang + here * (1.0 - hang)
    tangent = wp.normalize(after - before + wp.vec3(1.0e-6, 0.0, 0.0))
    view = wp.normalize(eye - moved)
    side = wp.normalize(wp.cross(tangent, view) + wp.vec3(1.0e-6, 0.0, 0.0))
    depth = wp.dot(rotation * (moved - eye), wp.vec3(0.0, 0.0, 1.0))
    half = wp.max(half_width[s, k], pixel * depth / scale)

    # Light between the sampled places, then Kajiya and Kay's strand: bright where the strand stands across the light.
    place = float(k) / float(steps - 1) * float(places - 1)
    low = wp.min(int(place), places - 2)
    mix = place - float(low)
    diffuse = lit(transfer, s * places + low, light) * (1.0 - mix) + lit(transfer, s * places + low + 1, light) * mix
    # Light that comes through blond hair and little through black, and roots in the shade of the rest.
    depth_shade = 0.35 + 0.65 * share[s, k]
    across = wp.sqrt(wp.max(0.0, 1.0 - wp.dot(tangent, key) * wp.dot(tangent, key)))
    half_vector = wp.normalize(key + view)
    along = wp.dot(tangent, half_vector)
    shine = wp.pow(wp.sqrt(wp.max(0.0, 1.0 - along * along)), 60.0)
    open_sky = wp.clamp((diffuse[0] + diffuse[1] + diffuse[2]) / 1.5, 0.0, 1.0)
    base = wp.cw_mul(colour, diffuse) * (tint[s] * depth_shade * (0.75 + 0.45 * across))
    glow = wp.cw_mul(key_colour, colour * 0.35 + wp.vec3(0.012, 0.012, 0.012)) * (
        shine * open_sky * share[s, k] * tint[s]
    )
    for corner in range(2):
        sign = float(corner) * 2.0 - 1.0
        local = rotation * (moved + side * (half * sign) - eye)
        row = first + (s * steps + k) * 2 + corner
        screen[row] = wp.vec3(
            local[0] / local[2] * scale + middle[0], local[1] / local[2] * scale + middle[1], local[2]
        )
        radiance[row] = base
        gloss[row] = glow


@wp.func
def fetch(sheet: wp.array2d(dtype=wp.vec3), u: float, v: float):
    """Bilinear texel; columns repeat from side to side."""
    height = sheet.shape[0]
    width = sheet.shape[1]
    x = u - 0.5
    y = wp.clamp(v, 0.0, float(height - 2))
    x0 = int(wp.floor(x))
    y0 = int(wp.floor(y))
    fx = x - float(x0)
    fy = y - float(y0)
    xa = (x0 + width) % width
    xb = (x0 + 1 + width) % width
    top = sheet[y0, xa] * (1.0 - fx) + sheet[y0, xb] * fx
    low = sheet[y0 + 1, xa] * (1.0 - fx) + sheet[y0 + 1, xb] * fx
    return top * (1.0 - fy) + low * fy


@wp.struct
class Scene:
    """What pixels are made of; see render.photograph."""

    screen: wp.array(dtype=wp.vec3)
    triangles: wp.array2d(dtype=wp.int32)
    uv: wp.array(dtype=wp.vec2)
    radiance: wp.array(dtype=wp.vec3)
    gloss: wp.array(dtype=wp.vec3)
    sheet: wp.array2d(dtype=wp.vec3)
    labels: wp.array2d(dtype=wp.uint8)  # parsing class of the sheet's texels
    labelled: int  # triangles below this index take their class from the sheet
    textured: int  # those from there to this index are clothes, with the sheet's colour; the rest are hair
    tone: wp.array(dtype=wp.uint8)  # bytes of linear light in [0, TONE_TOP]


@wp.func
def shade_at(scene: Scene, t: int, cx: float, cy: float):
    i = scene.triangles[t, 0]
    j = scene.triangles[t, 1]
    k = scene.triangles[t, 2]
    w = weights_at(scene.screen[i], scene.screen[j], scene.screen[k], cx, cy, 1)
    colour = scene.radiance[i] * w[0] + scene.radiance[j] * w[1] + scene.radiance[k] * w[2]
    if t < scene.textured:
        at = scene.uv[i] * w[0] + scene.uv[j] * w[1] + scene.uv[k] * w[2]
        colour = wp.cw_mul(colour, fetch(scene.sheet, at[0], at[1]))
    return colour + scene.gloss[i] * w[0] + scene.gloss[j] * w[1] + scene.gloss[k] * w[2]


@wp.func
def encode(tone: wp.array(dtype=wp.uint8), value: float):
    last = tone.shape[0] - 1
    return tone[wp.clamp(int(value * (float(last) / TONE_TOP) + 0.5), 0, last)]


def tone_curve(count: int = 8192) -> np.ndarray:
    """(count,) bytes of linear light from 0 to TONE_TOP: a soft shoulder above 0.8, then sRGB's gamma."""
    v = np.linspace(0, float(TONE_TOP), count)
    v = np.where(v > 0.8, 0.8 + 0.2 * (1 - np.exp((0.8 - v) / 0.2)), v)
    v = np.where(v <= 0.0031308, 12.92 * v, 1.055 * np.power(v, 1 / 2.4) - 0.055)
    return (v * 255 + 0.5).astype(np.uint8)


@wp.kernel
def resolve(
    buffer: wp.array3d(dtype=wp.int64),  # (1, 2H, 2W) z-buffer
    scene: Scene,
    background: wp.array2d(dtype=wp.vec3),
    picture: wp.array3d(dtype=wp.uint8),
    mask: wp.array2d(dtype=wp.uint8),
    parsing: wp.array2d(dtype=wp.uint8),
    depth: wp.array2d(dtype=float),
):
    y, x = wp.tid()
    total = wp.vec3(0.0, 0.0, 0.0)
    covered = int(0)
    empty = wp.int64(0x7FFFFFFFFFFFFFFF)
    low = wp.int64(0x3FFFFFFF)
    k00 = buffer[0, 2 * y, 2 * x]
    k01 = buffer[0, 2 * y, 2 * x + 1]
    k10 = buffer[0, 2 * y + 1, 2 * x]
    k11 = buffer[0, 2 * y + 1, 2 * x + 1]
    nearest = wp.min(wp.min(k00, k01), wp.min(k10, k11))
    behind = background[y, x]
    if nearest == empty:
        total = behind
    elif k00 != empty and (k00 & low) == (k01 & low) and (k00 & low) == (k10 & low) and (k00 & low) == (k11 & low):
        # One triangle fills the pixel: its middle stands for all four samples.
        covered = 4
        total = shade_at(scene, int(k00 & low), 2.0 * float(x) + 1.0, 2.0 * float(y) + 1.0)
    else:
        for sample in range(4):
            dy = sample / 2
            dx = sample - 2 * dy
            key = buffer[0, 2 * y + dy, 2 * x + dx]
            if key == empty:
                total += behind * 0.25
            else:
                covered += 1
                right = 2.0 * float(x) + float(dx) + 0.5
                down = 2.0 * float(y) + float(dy) + 0.5
                total += shade_at(scene, int(key & low), right, down) * 0.25
    for channel in range(3):
        picture[y, x, channel] = encode(scene.tone, total[channel])
    mask[y, x] = wp.uint8(wp.min(covered * 64, 255))
    if nearest == empty:
        depth[y, x] = wp.inf
        parsing[y, x] = wp.uint8(0)
        return
    t = int(nearest & low)
    i = scene.triangles[t, 0]
    j = scene.triangles[t, 1]
    k = scene.triangles[t, 2]
    p = scene.screen[i]
    q = scene.screen[j]
    r = scene.screen[k]
    w = weights_at(p, q, r, 2.0 * float(x) + 1.0, 2.0 * float(y) + 1.0, 1)
    w = wp.vec3(wp.clamp(w[0], 0.0, 1.0), wp.clamp(w[1], 0.0, 1.0), wp.clamp(w[2], 0.0, 1.0))
    w = w / (w[0] + w[1] + w[2])
    depth[y, x] = p[2] * w[0] + q[2] * w[1] + r[2] * w[2]
    label = wp.uint8(HAIR)
    if t < scene.labelled:
        at = scene.uv[i] * w[0] + scene.uv[j] * w[1] + scene.uv[k] * w[2]
        row = wp.clamp(int(at[1]), 0, scene.labels.shape[0] - 1)
        column = (int(wp.floor(at[0])) + scene.labels.shape[1]) % scene.labels.shape[1]
        label = scene.labels[row, column]
    elif t < scene.textured:
        label = wp.uint8(CLOTH)
    if covered < 2:
        label = wp.uint8(0)
    parsing[y, x] = label
