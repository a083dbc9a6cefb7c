# mypy: ignore-errors
# Kernels are warp's dialect: types are values, and a variable that a loop changes is declared by a cast.
"""The fast path of :mod:`models.render.raster`: warp kernels for visibility and barycentrics, on CPU and CUDA.

One thread a triangle walks the pixel centres of its bounding box, row by row. The depth test packs the bits of the
depth (made monotone as an unsigned number) above the triangle's index in one 64-bit word, so an atomic minimum keeps
the nearest triangle and, at equal depth, the smallest index, whatever the order of the threads.

This module imports warp; import it lazily. Meant for :func:`models.render.raster.rasterise` and for renderers that
shade in kernels of their own from the z-buffer that :func:`z_buffer` fills.
"""

from __future__ import annotations

import torch
import warp as wp
from torch import Tensor

wp.config.log_level = wp.LOG_ERROR
wp.init()
wp.set_module_options({"enable_backward": False, "fast_math": False})

# Nothing seen: every finite depth packs to less.
EMPTY = 0x7FFFFFFFFFFFFFFF
# Pixels by which a row's bounds are widened, so that rounding never loses one that the exact test would keep.
SLACK = wp.constant(0.01)


@wp.func
def edge(ax: float, ay: float, bx: float, by: float):
    return ax * by - ay * bx


@wp.func
def pack(depth: float, index: int):
    """A non-negative 63-bit key that grows with the depth first and the index second."""
    bits = wp.cast(depth, wp.int32)
    if bits < 0:  # negative floats: flip so that order is kept, below all positive ones
        bits = wp.int32(-1) - (bits & wp.int32(0x7FFFFFFF))
        return wp.int64(bits) * wp.int64(0x40000000) + wp.int64(index)
    return wp.int64(bits) * wp.int64(0x40000000) + wp.int64(index)


@wp.kernel
def draw(
    screen: wp.array2d(dtype=wp.vec3),
    triangles: wp.array2d(dtype=wp.int32),
    height: int,
    width: int,
    near: float,
    perspective: int,
    buffer: wp.array3d(dtype=wp.int64),
):
    n, t = wp.tid()
    p = screen[n, triangles[t, 0]]
    q = screen[n, triangles[t, 1]]
    r = screen[n, triangles[t, 2]]
    if perspective != 0 and wp.min(p[2], wp.min(q[2], r[2])) <= near:
        return
    x0 = wp.max(int(wp.ceil(wp.clamp(wp.min(p[0], wp.min(q[0], r[0])), -1.0, float(width) + 1.0) - 0.5)), 0)
    x1 = wp.min(int(wp.floor(wp.clamp(wp.max(p[0], wp.max(q[0], r[0])), -1.0, float(width) + 1.0) - 0.5)), width - 1)
    y0 = wp.max(int(wp.ceil(wp.clamp(wp.min(p[1], wp.min(q[1], r[1])), -1.0, float(height) + 1.0) - 0.5)), 0)
    y1 = wp.min(int(wp.floor(wp.clamp(wp.max(p[1], wp.max(q[1], r[1])), -1.0, float(height) + 1.0) - 0.5)), height - 1)
    if x1 < x0 or y1 < y0:
        return
    turn = edge(q[0] - p[0], q[1] - p[1], r[0] - p[0], r[1] - p[1])
    if wp.abs(turn) <= 1.0e-12:
        return
    sign = wp.sign(turn)
    scale = 1.0 / wp.abs(turn)
    zp = p[2]
    zq = q[2]
    zr = r[2]
    if perspective != 0:  # what is linear on the screen is 1/z; its negative grows with the depth as keys must
        zp = -1.0 / zp
        zq = -1.0 / zq
        zr = -1.0 / zr
    # A pixel that already sees something before the whole triangle, by more than rounding, needs no test.
    nearest = wp.min(zp, wp.min(zq, zr))
    bound = pack(nearest - 4.0e-6 * wp.max(wp.abs(zp), wp.max(wp.abs(zq), wp.abs(zr))), 0)
    # Each weight falls or grows linearly along a row: where it changes sign bounds the row's part inside.
    su = r[1] - q[1]
    sv = p[1] - r[1]
    sw = q[1] - p[1]
    if turn > 0.0:
        su = -su
        sv = -sv
        sw = -sw
    slope_u = 0.0
    slope_v = 0.0
    slope_w = 0.0
    if su != 0.0:
        slope_u = (r[0] - q[0]) / (r[1] - q[1])
    if sv != 0.0:
        slope_v = (p[0] - r[0]) / (p[1] - r[1])
    if sw != 0.0:
        slope_w = (q[0] - p[0]) / (q[1] - p[1])
    for y in range(y0, y1 + 1):
        cy = float(y) + 0.5
        left = float(x0)
        right = float(x1)
        if su != 0.0:
            cut = q[0] + (cy - q[1]) * slope_u - 0.5
            if su > 0.0:
                left = wp.max(left, cut - SLACK)
            else:
                right = wp.min(right, cut + SLACK)
        if sv != 0.0:
            cut = r[0] + (cy - r[1]) * slope_v - 0.5
            if sv > 0.0:
                left = wp.max(left, cut - SLACK)
            else:
                right = wp.min(right, cut + SLACK)
        if sw != 0.0:
            cut = p[0] + (cy - p[1]) * slope_w - 0.5
            if sw > 0.0:
                left = wp.max(left, cut - SLACK)
            else:
                right = wp.min(right, cut + SLACK)
        for x in range(int(wp.ceil(left)), int(wp.floor(right)) + 1):
            if buffer[n, y, x] > bound:
                cx = float(x) + 0.5
                u = edge(q[0] - cx, q[1] - cy, r[0] - cx, r[1] - cy) * sign
                v = edge(r[0] - cx, r[1] - cy, p[0] - cx, p[1] - cy) * sign
                w = edge(p[0] - cx, p[1] - cy, q[0] - cx, q[1] - cy) * sign
                if u >= 0.0 and v >= 0.0 and w >= 0.0:
                    key = pack((u * zp + v * zq + w * zr) * scale, t)
                    if key < buffer[n, y, x]:
                        wp.atomic_min(buffer, n, y, x, key)


@wp.func
def depth_of(key: wp.int64):
    """What :func:`pack` put into a key as depth."""
    bits = int(key / wp.int64(0x40000000))
    if key < wp.int64(0):
        bits = int((key - wp.int64(0x3FFFFFFF)) / wp.int64(0x40000000))  # division rounds to zero; floor is meant
        bits = (wp.int32(-1) - bits) | wp.int32(-2147483648)
    return wp.cast(bits, wp.float32)


@wp.kernel
def unpack_depth(buffer: wp.array3d(dtype=wp.int64), depth: wp.array3d(dtype=float)):
    n, y, x = wp.tid()
    key = buffer[n, y, x]
    if key == wp.int64(0x7FFFFFFFFFFFFFFF):
        depth[n, y, x] = wp.inf
    else:
        depth[n, y, x] = depth_of(key)


@wp.kernel
def unpack(buffer: wp.array3d(dtype=wp.int64), seen: wp.array3d(dtype=wp.int64)):
    n, y, x = wp.tid()
    key = buffer[n, y, x]
    if key == wp.int64(0x7FFFFFFFFFFFFFFF):
        seen[n, y, x] = wp.int64(-1)
    else:
        seen[n, y, x] = key & wp.int64(0x3FFFFFFF)


@wp.func
def weights_at(p: wp.vec3, q: wp.vec3, r: wp.vec3, cx: float, cy: float, perspective: int):
    u = edge(q[0] - cx, q[1] - cy, r[0] - cx, r[1] - cy)
    v = edge(r[0] - cx, r[1] - cy, p[0] - cx, p[1] - cy)
    w = edge(p[0] - cx, p[1] - cy, q[0] - cx, q[1] - cy)
    area = u + v + w
    u = u / area
    v = v / area
    w = w / area
    if perspective != 0:
        u = u / p[2]
        v = v / q[2]
        w = w / r[2]
        total = u + v + w
        u = u / total
        v = v / total
        w = w / total
    return wp.vec3(u, v, w)


@wp.kernel
def solve(
    screen: wp.array2d(dtype=wp.vec3),
    triangles: wp.array2d(dtype=wp.int32),
    seen: wp.array3d(dtype=wp.int64),
    perspective: int,
    weights: wp.array3d(dtype=wp.vec3),
    depth: wp.array3d(dtype=float),
):
    n, y, x = wp.tid()
    t = int(seen[n, y, x])
    if t < 0:
        weights[n, y, x] = wp.vec3(0.0, 0.0, 0.0)
        depth[n, y, x] = wp.inf
        return
    p = screen[n, triangles[t, 0]]
    q = screen[n, triangles[t, 1]]
    r = screen[n, triangles[t, 2]]
    w = weights_at(p, q, r, float(x) + 0.5, float(y) + 0.5, perspective)
    weights[n, y, x] = w
    depth[n, y, x] = w[0] * p[2] + w[1] * q[2] + w[2] * r[2]


def z_buffer(screen: Tensor, triangles: Tensor, height: int, width: int, near: float | None) -> wp.array:
    """(N, H, W) packed words of depth, or -1 / depth with a ``near`` plane, and triangle; ``EMPTY`` for none.

    ``triangles`` are int32.
    """
    device = wp.device_from_torch(screen.device)
    buffer = wp.full((len(screen), height, width), value=EMPTY, dtype=wp.int64, device=device)
    perspective = near is not None
    wp.launch(
        draw,
        dim=(len(screen), len(triangles)),
        inputs=[
            wp.from_torch(screen.float().contiguous(), dtype=wp.vec3),
            wp.from_torch(triangles.contiguous(), dtype=wp.int32),
            height,
            width,
            near if perspective else 0.0,
            int(perspective),
            buffer,
        ],
        device=device,
    )
    return buffer


def visibility(screen: Tensor, triangles: Tensor, height: int, width: int, near: float | None) -> Tensor:
    """(N, H, W) int64 index of the nearest triangle at each pixel centre, -1 for none."""
    seen = torch.empty(len(screen), height, width, dtype=torch.long, device=screen.device)
    buffer = z_buffer(screen, triangles.int(), height, width, near)
    wp.launch(unpack, dim=seen.shape, inputs=[buffer, wp.from_torch(seen)], device=buffer.device)
    return seen


def depth_map(screen: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """(N, H, W) depth of the nearest triangle under parallel rays, infinity for none."""
    depth = torch.empty(len(screen), height, width, device=screen.device)
    buffer = z_buffer(screen, triangles.int(), height, width, None)
    wp.launch(unpack_depth, dim=depth.shape, inputs=[buffer, wp.from_torch(depth)], device=buffer.device)
    return depth


def barycentrics(screen: Tensor, triangles: Tensor, seen: Tensor, perspective: bool) -> tuple[Tensor, Tensor]:
    """Barycentric weights (N, H, W, 3) and depth (N, H, W) of the seen triangles, float32, without gradients."""
    weights = torch.empty(*seen.shape, 3, device=screen.device)
    depth = torch.empty(seen.shape, device=screen.device)
    wp.launch(
        solve,
        dim=seen.shape,
        inputs=[
            wp.from_torch(screen.contiguous(), dtype=wp.vec3),
            wp.from_torch(triangles.int().contiguous(), dtype=wp.int32),
            wp.from_torch(seen.contiguous()),
            int(perspective),
            wp.from_torch(weights, dtype=wp.vec3),
            wp.from_torch(depth),
        ],
        device=wp.device_from_torch(screen.device),
    )
    return weights, depth
