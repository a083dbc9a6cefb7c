"""Rasterisation of batches of triangle meshes: which triangle each pixel sees, where on it, and how far away.

A z-buffer in two steps. *Visibility* decides for every pixel centre the nearest triangle; it is piecewise constant and
has no gradient. *Barycentrics* then solves for the point on that triangle; it is plain arithmetic on the projected
vertices, so gradients flow to the vertices and the camera, and :func:`interpolate` carries them on to attributes.

Two backends give the same picture: ``torch``, the plain reference, which tests every pixel against every triangle of a
chunk, and ``warp``, kernels with one thread a triangle that walk its bounding box and keep the smallest packed
(depth, triangle) pair by an atomic minimum. Warp is imported on first use only; it runs on CPU and CUDA alike.

Frames: world as in :mod:`models.camera`; pictures have (0, 0) in the top left corner and pixel centres at half
integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.camera import unpack_label

Backend = Literal["auto", "warp", "torch"]

NEAR = 1e-3  # world units; triangles that reach nearer to the camera plane than this are left out
_DEGENERATE = 1e-12  # twice the area, in pixels squared, below which a triangle covers nothing


@dataclass(frozen=True)
class Fragments:
    """What the pixels of N pictures see.

    Attributes:
        triangle: (N, H, W) int64 index into the triangles, -1 where the pixel sees none.
        barycentric: (N, H, W, 3) weights of the triangle's vertices on the surface (perspective-correct); they sum to
            one where a triangle is seen and are zero elsewhere.
        depth: (N, H, W) distance along the viewing axis, world units; infinity where nothing is seen.
    """

    triangle: Tensor
    barycentric: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """(N, H, W) bool: the pixels that see a triangle."""
        return self.triangle >= 0


def to_screen(vertices: Tensor, camera: Tensor, height: int, width: int) -> Tensor:
    """World vertices (N, V, 3) seen by 25-value cameras (N, 25): (N, V, 3) of x, y in pixels and depth in world units.

    Intrinsics are normalised by the image side, so a picture that is not square stretches with its sides. Vertices
    nearer than ``NEAR`` get meaningless x, y.
    """
    pose, k = unpack_label(camera)
    local = (vertices - pose[:, None, :3, 3]) @ pose[:, :3, :3]
    depth = local[..., 2:3]
    uv = (local / depth.clamp_min(NEAR)) @ k[:, :2].transpose(1, 2)
    return torch.cat([uv * uv.new_tensor([width, height]), depth], dim=-1)


def to_screen_orthographic(vertices: Tensor, pose: Tensor, extent: float, height: int, width: int) -> Tensor:
    """As :func:`to_screen` for parallel rays: ``pose`` (N, 4, 4) camera-to-world, ``extent`` world units across.

    Depth may be negative: the camera plane does not bound what is seen.
    """
    local = (vertices - pose[:, None, :3, 3]) @ pose[:, :3, :3]
    xy = (local[..., :2] / extent + 0.5) * local.new_tensor([width, height])
    return torch.cat([xy, local[..., 2:]], dim=-1)


def rasterise(
    screen: Tensor,
    triangles: Tensor,
    height: int,
    width: int,
    *,
    perspective: bool = True,
    backend: Backend = "auto",
    check: bool = True,
) -> Fragments:
    """Rasterise N pictures of one topology.

    Args:
        screen: (N, V, 3) float32 or float64 vertices from :func:`to_screen` or :func:`to_screen_orthographic`.
        triangles: (F, 3) integer vertex indices; both sides are seen.
        height, width: of the pictures, pixels.
        perspective: whether ``screen`` came from a perspective camera. Then the barycentrics are perspective-correct
            and triangles that reach nearer than ``NEAR`` are left out.
        backend: "warp", "torch", or "auto": warp where it is installed.
        check: look whether the triangles' indices are in range. On a GPU that waits for the device; leave it out for
            triangles that were checked before.

    Returns:
        Fragments; barycentrics and depth carry gradients to ``screen`` if it requires them. Of triangles at exactly
        the same depth the one with the smallest index is seen.

    Raises:
        ValueError: if the shapes do not fit or an index is out of range.
    """
    if screen.dim() != 3 or screen.shape[-1] != 3:
        raise ValueError(f"screen vertices must be (N, V, 3), not {tuple(screen.shape)}")
    if triangles.dim() != 2 or triangles.shape[-1] != 3:
        raise ValueError(f"triangles must be (F, 3), not {tuple(triangles.shape)}")
    if check and len(triangles) and not 0 <= int(triangles.min()) <= int(triangles.max()) < screen.shape[1]:
        raise ValueError(f"triangles index vertices outside 0..{screen.shape[1] - 1}")
    triangles = triangles.to(screen.device).long()
    fast = backend == "warp" or (backend == "auto" and _warp_available())
    with torch.no_grad():
        if fast:
            from models.render import raster_warp

            seen = raster_warp.visibility(screen.detach(), triangles, height, width, NEAR if perspective else None)
        else:
            seen = visibility_reference(screen.detach(), triangles, height, width, NEAR if perspective else None)
    if fast and not screen.requires_grad and screen.dtype == torch.float32:
        barycentric, depth = raster_warp.barycentrics(screen, triangles, seen, perspective)
    else:
        barycentric, depth = barycentrics(screen, triangles, seen, perspective)
    return Fragments(seen, barycentric, depth)


def interpolate(attributes: Tensor, triangles: Tensor, fragments: Fragments) -> Tensor:
    """Vertex attributes at the pixels.

    Args:
        attributes: (N, V, C) or (V, C) shared by the batch.
        triangles: (F, 3), those of the rasterisation.
        fragments: its result.

    Returns:
        (N, H, W, C), zero where nothing is seen; differentiable in the attributes and the barycentrics.
    """
    n = len(fragments.triangle)
    if attributes.dim() == 2:
        attributes = attributes.expand(n, -1, -1)
    corners = triangles.to(attributes.device).long()[fragments.triangle.clamp_min(0)].reshape(n, -1)  # (N, H*W*3)
    channels = attributes.shape[-1]
    values = attributes.gather(1, corners[..., None].expand(-1, -1, channels))
    values = values.reshape(*fragments.triangle.shape, 3, channels)
    return (values * fragments.barycentric.unsqueeze(-1)).sum(-2)


def depth_map(screen: Tensor, triangles: Tensor, height: int, width: int, *, backend: Backend = "auto") -> Tensor:
    """(N, H, W) depth of the nearest triangle under parallel rays, infinity where there is none; no gradients."""
    triangles = triangles.to(screen.device)
    if backend == "warp" or (backend == "auto" and _warp_available()):
        from models.render import raster_warp

        return raster_warp.depth_map(screen, triangles, height, width)
    return rasterise(screen, triangles, height, width, perspective=False, backend="torch").depth.detach()


def barycentrics(screen: Tensor, triangles: Tensor, seen: Tensor, perspective: bool) -> tuple[Tensor, Tensor]:
    """Barycentric weights and depth of the seen triangles at the pixel centres; see :class:`Fragments`."""
    n, height, width = seen.shape
    hit = seen >= 0
    corners = triangles[seen.clamp_min(0)].reshape(n, -1)
    points = screen.gather(1, corners[..., None].expand(-1, -1, 3)).reshape(n, height, width, 3, 3)
    centre = _pixel_centres(height, width, screen)
    a, b, c = (points[..., i, :2] - centre for i in range(3))
    weights = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=-1)
    area = weights.sum(-1, keepdim=True)
    weights = weights / torch.where(hit.unsqueeze(-1), area, torch.ones_like(area))
    z = points[..., 2]
    if perspective:
        weights = weights / torch.where(hit.unsqueeze(-1), z, torch.ones_like(z))
        total = weights.sum(-1, keepdim=True)
        weights = weights / torch.where(hit.unsqueeze(-1), total, torch.ones_like(total))
    weights = torch.where(hit.unsqueeze(-1), weights, torch.zeros_like(weights))
    depth = (weights * z).sum(-1)
    return weights, torch.where(hit, depth, torch.full_like(depth, torch.inf))


def visibility_reference(
    screen: Tensor, triangles: Tensor, height: int, width: int, near: float | None, chunk: int = 64
) -> Tensor:
    """The plain path: (N, H, W) index of the nearest triangle at each pixel centre, -1 for none.

    Every pixel meets every triangle, ``chunk`` triangles at a time.
    """
    n = len(screen)
    centre = _pixel_centres(height, width, screen)
    best = torch.full((n, height, width), torch.inf, dtype=screen.dtype, device=screen.device)
    seen = torch.full((n, height, width), -1, dtype=torch.long, device=screen.device)
    for first in range(0, len(triangles), chunk):
        corners = screen[:, triangles[first : first + chunk]]  # (N, c, 3, 3)
        a, b, c = (corners[:, :, None, None, i, :2] - centre for i in range(3))  # (N, c, H, W, 2)
        weights = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=-1)
        area = weights.sum(-1, keepdim=True)
        weights = weights / torch.where(area.abs() > _DEGENERATE, area, torch.full_like(area, torch.nan))
        z = corners[:, :, None, None, :, 2]
        if near is None:
            depth = (weights * z).sum(-1)
            usable = torch.isfinite(depth)
        else:
            depth = 1 / (weights / z).sum(-1)  # 1/z is linear on the screen
            usable = (corners[..., 2] > near).all(-1)[..., None, None] & torch.isfinite(depth)
        inside = (weights >= 0).all(-1) & usable
        depth = torch.where(inside, depth, torch.full_like(depth, torch.inf))
        nearest, index = depth.min(dim=1)
        closer = nearest < best
        best = torch.where(closer, nearest, best)
        seen = torch.where(closer, index + first, seen)
    return seen


def _pixel_centres(height: int, width: int, like: Tensor) -> Tensor:
    y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _warp_available() -> bool:
    from importlib.util import find_spec

    return find_spec("warp") is not None
