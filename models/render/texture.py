"""Between meshes, their UV plane and pictures: UV maps, textures on meshes, pictures unwrapped to textures.

A texture is (N, C, T, T) over the unit square, u to the right and v upwards (row 0 is v = 1), texel centres at half
integers. A UV map (N, H, W, 2) says for every pixel where on the texture its surface lies; it is computed once and
read by any number of textures of any size, as InvertAvatar reads its list of neural textures (supplementary to paper
(d): one rasterised UV map, features of 32² to 256²).

Nothing here waits for the device: with ``check=False`` in the rasteriser a whole step stays queued.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.render import raster
from models.render.raster import Backend, Fragments

FACING = 0.15  # cosine between normal and view below which a texel is too oblique to be read; unpublished: our choice
DEPTH_SLACK = 0.02  # world units, 7 mm: farther behind the nearest surface a texel is hidden; unpublished: our choice


class UvMap(NamedTuple):
    """Where on the texture each pixel's surface lies.

    Attributes:
        uv: (N, H, W, 2) in [0, 1]; zero where nothing is seen.
        mask: (N, H, W) bool.
        depth: (N, H, W), infinity where nothing is seen.
    """

    uv: Tensor
    mask: Tensor
    depth: Tensor


def uv_map(fragments: Fragments, uv: Tensor, uv_triangles: Tensor) -> UvMap:
    """The UV map of a rasterised mesh.

    Args:
        fragments: of the mesh; their gradients are carried on.
        uv: (U, 2) texture vertices; uv_triangles: (F, 3) their indices, in the order of the mesh's triangles.
    """
    return UvMap(raster.interpolate(uv, uv_triangles, fragments), fragments.mask, fragments.depth)


def frontal_uv_map(
    vertices: Tensor,
    triangles: Tensor,
    uv: Tensor,
    uv_triangles: Tensor,
    size: int,
    *,
    extent: float,
    shift: tuple[float, float] = (0.0, 0.0),
    backend: Backend = "auto",
    check: bool = True,
) -> UvMap:
    """The UV map of posed meshes on an orthographic plane that looks along -z, as the xy plane of a tri-plane does.

    Args:
        vertices: (N, V, 3).
        triangles: (F, 3).
        uv, uv_triangles: see :func:`uv_map`.
        size: of the plane in pixels; row 0 is up (+y), column 0 the subject's right (-x).
        extent: world units across.
        shift: the plane's centre (x, y), world units.
        backend: see :func:`models.render.raster.rasterise`.
        check: False leaves the look at the triangles' indices out, which waits for the device.
    """
    pose = frontal_pose(vertices, shift)
    screen = raster.to_screen_orthographic(vertices, pose.expand(len(vertices), 4, 4), extent, size, size)
    seen = raster.rasterise(screen, triangles, size, size, perspective=False, backend=backend, check=check)
    return uv_map(seen, uv, uv_triangles)


def frontal_pose(like: Tensor, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """(1, 4, 4) camera-to-world of a camera in the plane z = 0 that looks along -z."""
    pose = torch.diag(like.new_ones(4))
    pose[1, 1] = pose[2, 2] = -1
    pose[0, 3], pose[1, 3] = shift
    return pose[None]


def sample_texture(texture: Tensor, at: UvMap) -> Tensor:
    """Textures (N, C, T, T) seen through a UV map: (N, C, H, W), zero where no surface is; bilinear.

    Differentiable in the texture and in the map's ``uv``.
    """
    seen = F.grid_sample(texture, _to_grid(at.uv), padding_mode="border", align_corners=False)
    return seen * at.mask.unsqueeze(1)


def _to_grid(uv: Tensor) -> Tensor:
    """UV coordinates (v upwards) to those of grid_sample."""
    return torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], dim=-1)


def uv_fragments(uv: Tensor, uv_triangles: Tensor, size: int, *, backend: Backend = "auto") -> Fragments:
    """Which triangle each texel of a (size, size) texture belongs to, and where on it: one picture of Fragments.

    With them ``raster.interpolate`` lays any vertex attribute out on the texture. They depend on the mesh's topology
    alone: compute them once.
    """
    flat = torch.stack([uv[:, 0] * size, (1 - uv[:, 1]) * size, torch.zeros_like(uv[:, 0])], dim=-1)
    return raster.rasterise(flat[None], uv_triangles, size, size, perspective=False, backend=backend)


def on_texture(attributes: Tensor, triangles: Tensor, layout: Fragments) -> Tensor:
    """Vertex attributes (N, V, C) at the texels of :func:`uv_fragments`: (N, T, T, C), zero off the charts."""
    n = len(attributes)
    many = Fragments(*(part.expand(n, *part.shape[1:]) for part in (layout.triangle, layout.barycentric, layout.depth)))
    return raster.interpolate(attributes, triangles, many)


def unwrap(
    pictures: Tensor,
    camera: Tensor,
    vertices: Tensor,
    triangles: Tensor,
    layout: Fragments,
    *,
    backend: Backend = "auto",
    check: bool = True,
) -> tuple[Tensor, Tensor]:
    """Pictures of fitted meshes to textures.

    Args:
        pictures: (N, C, H, W).
        camera: (N, 25) labels.
        vertices: (N, V, 3), triangles: (F, 3) counter-clockwise seen from outside.
        layout: of :func:`uv_fragments`.
        backend, check: see :func:`models.render.raster.rasterise`.

    Returns:
        (N, C, T, T) textures, zero where hidden, and (N, T, T) visibility in [0, 1]: 0 for texels that are hidden,
        outside the picture, turned away or off the charts, and the cosine to the viewer for the others. Textures are
        differentiable in the pictures and, but for visibility, in vertices and camera.
    """
    height, width = pictures.shape[-2:]
    screen = raster.to_screen(vertices, camera, height, width)
    depth = raster.rasterise(screen.detach(), triangles, height, width, backend=backend, check=check).depth
    place = on_texture(vertices, triangles, layout)
    at = raster.to_screen(place.flatten(1, 2), camera, height, width).unflatten(1, place.shape[1:3])
    grid = at[..., :2] * 2 / at.new_tensor([width, height]) - 1
    seen = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    with torch.no_grad():
        near = _nearest_depth(depth, grid)
        eye = camera[:, :16].unflatten(1, (4, 4))[:, None, None, :3, 3]
        normal = F.normalize(on_texture(vertex_normals(vertices, triangles), triangles, layout), dim=-1)
        cosine = (normal * F.normalize(eye - place, dim=-1)).sum(-1)
        good = (at[..., 2] < near + DEPTH_SLACK) & (grid.abs() <= 1).all(-1) & (cosine > FACING) & layout.mask
        visible = torch.where(good, cosine, torch.zeros_like(cosine))
    return seen * good.unsqueeze(1), visible


def _nearest_depth(depth: Tensor, grid: Tensor) -> Tensor:
    """Depth of the surface at grid positions: the farthest of a pixel and its neighbours, so that edges are seen."""
    finite = torch.where(torch.isfinite(depth), depth, torch.zeros_like(depth))
    widened = F.max_pool2d(finite.unsqueeze(1), 3, stride=1, padding=1)
    return F.grid_sample(widened, grid, mode="nearest", padding_mode="zeros", align_corners=False).squeeze(1)


def vertex_normals(vertices: Tensor, triangles: Tensor) -> Tensor:
    """(N, V, 3) unit normals, outward, of vertices (N, V, 3): the mean of their triangles' by area."""
    a, b, c = (vertices[:, triangles[:, corner]] for corner in range(3))
    area = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(1, triangles[:, corner], area)
    return F.normalize(total, dim=-1)


def fill_gaps(texture: Tensor, visible: Tensor, steps: int) -> Tensor:
    """Textures (N, C, T, T) whose visible texels (N, T, T) > 0 spread ``steps`` texels into the gaps.

    Without it, bilinear reading mixes the charts' edges with the empty texels beside them.
    """
    known = (visible > 0).to(texture).unsqueeze(1)
    texture = texture * known
    for _ in range(steps):
        weight = F.avg_pool2d(known, 3, stride=1, padding=1)
        mean = F.avg_pool2d(texture, 3, stride=1, padding=1) / weight.clamp_min(1e-6)
        texture = torch.where(known > 0, texture, mean * (weight > 0))
        known = (weight > 0).to(texture)
    return texture
