"""The rasteriser: fast path against reference, and both against geometry."""

import math

import pytest
import torch

from models.camera import intrinsics, pack_label, pose_on_sphere, rays
from models.render import raster


def sphere(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    theta, phi = torch.meshgrid(
        torch.linspace(0, math.pi, rows), torch.linspace(0, 2 * math.pi, 2 * rows), indexing="ij"
    )
    points = torch.stack([theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], -1).reshape(-1, 3)
    corner = (torch.arange(rows - 1)[:, None] * 2 * rows + torch.arange(2 * rows - 1)[None]).reshape(-1)
    across, down = corner + 1, corner + 2 * rows
    return points, torch.cat([torch.stack([corner, across, down], -1), torch.stack([across, down + 1, down], -1)])


def soup(seed: int, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Triangles that intersect, are tiny, are slivers, or share coordinates exactly."""
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(2, 150, 3, generator=g) * 1.2 - 0.6
    if kind == "tiny":
        points = points * 0.15
    elif kind == "slivers":
        points[:, 1::2] = points[:, ::2] + 0.01 * torch.randn(2, 75, 3, generator=g)
    elif kind == "grid":
        points = (points * 20).round() / 20
    return points, torch.randint(0, 150, (260, 3), generator=g)


@pytest.fixture
def cameras() -> torch.Tensor:
    angles = torch.tensor([[0.3, 0.2], [-1.0, 0.1]])
    return pack_label(pose_on_sphere(angles[:, 0], angles[:, 1]), intrinsics(2.4))


@pytest.mark.parametrize("kind", ["plain", "tiny", "slivers", "grid"])
@pytest.mark.parametrize("perspective", [True, False])
def test_fast_path_sees_what_the_reference_sees(kind, perspective, cameras):
    points, triangles = soup(1, kind)
    if perspective:
        screen = raster.to_screen(points, cameras, 32, 40)
    else:  # a camera plane amid the points, so that depths of both signs occur
        pose = pose_on_sphere(torch.tensor([0.3, -1.0]), torch.tensor([0.2, 0.1]), radius=0.1)
        screen = raster.to_screen_orthographic(points, pose, 1.4, 32, 40)
    fast = raster.rasterise(screen, triangles, 32, 40, perspective=perspective, backend="warp")
    slow = raster.rasterise(screen, triangles, 32, 40, perspective=perspective, backend="torch")
    assert fast.mask.any()
    agree = fast.triangle == slow.triangle
    assert agree.float().mean() > 0.999
    torch.testing.assert_close(fast.barycentric[agree], slow.barycentric[agree], atol=1e-3, rtol=0)
    torch.testing.assert_close(fast.depth[agree], slow.depth[agree], atol=1e-4, rtol=0)


def test_sphere_depth_is_that_of_the_ray(cameras):
    points, triangles = sphere(90)
    side = 64
    screen = raster.to_screen(0.4 * points[None].expand(2, -1, -1), cameras, side, side)
    seen = raster.rasterise(screen, triangles, side, side)
    origin, direction = rays(cameras, side)
    along = -(origin * direction).sum(-1)
    miss = origin.square().sum(-1) - along**2
    inside = miss < 0.39**2
    hit = along - (0.4**2 - miss).clamp_min(0).sqrt()
    pose = cameras[:, :16].reshape(-1, 4, 4)
    depth = hit * (direction @ pose[:, :3, 2:3]).squeeze(-1)
    flat = seen.depth.reshape(2, -1)
    assert seen.mask.reshape(2, -1)[inside].all()
    assert not seen.mask.reshape(2, -1)[miss > 0.41**2].any()
    assert (flat[inside] - depth[inside]).abs().max() < 2e-3


@pytest.mark.parametrize("backend", ["warp", "torch"])
def test_nearest_triangle_wins_and_ties_go_to_the_first(backend):
    far, near = [[2.0, 2, 3], [30, 2, 3], [2, 30, 3]], [[2.0, 2, 1], [30, 2, 1], [2, 30, 1]]
    screen = torch.tensor([far + near + near])
    triangles = torch.arange(9).reshape(3, 3)
    seen = raster.rasterise(screen, triangles, 32, 32, backend=backend)
    assert set(seen.triangle.unique().tolist()) == {-1, 1}
    flipped = raster.rasterise(screen, triangles[:, [0, 2, 1]], 32, 32, backend=backend)
    assert torch.equal(flipped.triangle, seen.triangle)


@pytest.mark.parametrize("backend", ["warp", "torch"])
def test_shared_edges_leave_no_gaps(backend, cameras):
    points, triangles = sphere(13)
    screen = raster.to_screen(0.9 * points[None].expand(2, -1, -1), cameras, 32, 32)
    seen = raster.rasterise(screen, triangles, 32, 32, backend=backend).mask
    rows = seen.any(2)
    for picture, filled in zip(seen, rows, strict=True):
        for row in picture[filled]:
            columns = row.nonzero().squeeze(1)
            assert columns[-1] - columns[0] + 1 == len(columns)


def test_triangles_behind_or_through_the_camera_are_left_out(cameras):
    points = torch.tensor([[[0.0, 0, 5], [1, 0, 5], [0, 1, 5], [0, 0, 0], [1, 0, 9], [0, 1, 9]]])
    for backend in ("warp", "torch"):
        screen = raster.to_screen(points, cameras[:1], 16, 16)
        assert not raster.rasterise(screen, torch.arange(6).reshape(2, 3), 16, 16, backend=backend).mask.any()


def test_interpolation_is_exact_for_linear_fields_in_perspective(cameras):
    points, triangles = soup(2, "plain")
    screen = raster.to_screen(points, cameras, 40, 40)
    seen = raster.rasterise(screen, triangles, 40, 40)
    position = raster.interpolate(points, triangles, seen)
    again = raster.to_screen(position.reshape(2, -1, 3), cameras, 40, 40).reshape(2, 40, 40, 3)
    centres = raster.to_screen(position.reshape(2, -1, 3), cameras, 40, 40)
    assert torch.isfinite(centres[seen.mask.reshape(2, -1)]).all()
    rows, columns = torch.meshgrid(torch.arange(40.0) + 0.5, torch.arange(40.0) + 0.5, indexing="ij")
    off = (again[..., :2] - torch.stack([columns, rows], -1))[seen.mask]
    assert off.abs().max() < 1e-2


def test_gradients_agree_with_finite_differences_and_between_paths(cameras):
    points, triangles = soup(3, "plain")
    colours = torch.rand(150, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    weight = torch.rand(2, 16, 16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    labels = cameras.double()

    def value(p, c, backend="warp"):
        screen = raster.to_screen(p, labels, 16, 16)
        seen = raster.rasterise(screen, triangles, 16, 16, backend=backend)
        # Slivers make the inverse barycentric map stiff: keep the pixels of well-shaped triangles.
        keep = seen.barycentric.amin(-1, keepdim=True) > 0.05
        return (raster.interpolate(c, triangles, seen) * weight * keep.detach()).sum()

    p = points.double().requires_grad_()
    c = colours.clone().requires_grad_()
    by_points, by_colours = torch.autograd.grad(value(p, c), (p, c))
    other = torch.autograd.grad(value(p, c, "torch"), (p, c))
    torch.testing.assert_close(by_points, other[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(by_colours, other[1], rtol=1e-4, atol=1e-4)

    step = torch.randn(150, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6)) * 1e-6
    change = value(p.detach(), colours + step) - value(p.detach(), colours - step)
    torch.testing.assert_close(change / 2, (by_colours * step).sum(), rtol=1e-6, atol=1e-12)


def test_barycentric_gradient_with_respect_to_vertices(cameras):
    triangle = torch.tensor([[[-0.3, -0.3, 0.1], [0.4, -0.2, -0.1], [0.0, 0.4, 0.2]]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]])
    values = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    camera = cameras[:1].double()

    def centre_value(p):
        seen = raster.rasterise(raster.to_screen(p, camera, 9, 9), faces, 9, 9)
        assert seen.triangle[0, 4, 4] == 0
        return raster.interpolate(values, faces, seen)[0, 4, 4, 0] + seen.depth[0, 4, 4]

    assert torch.autograd.gradcheck(centre_value, triangle.clone().requires_grad_(), eps=1e-7, atol=1e-5)


def test_mirrored_scene_gives_the_mirrored_picture():
    points, triangles = soup(7, "plain")
    camera = pack_label(pose_on_sphere(torch.tensor([0.0]), torch.tensor([0.0])), intrinsics(2.4)).expand(2, -1)
    flipped = points * torch.tensor([-1.0, 1, 1])
    a = raster.rasterise(raster.to_screen(points, camera, 32, 32), triangles, 32, 32).triangle
    b = raster.rasterise(raster.to_screen(flipped, camera, 32, 32), triangles, 32, 32).triangle
    assert (a == b.flip(-1)).float().mean() > 0.999


def test_depth_map_is_the_depth_of_the_fragments():
    points, triangles = soup(8, "plain")
    pose = pose_on_sphere(torch.tensor([0.5, 2.0]), torch.tensor([0.3, -0.2]), radius=0.2)
    screen = raster.to_screen_orthographic(points, pose, 1.5, 32, 32)
    seen = raster.rasterise(screen, triangles, 32, 32, perspective=False)
    for backend in ("warp", "torch"):
        depth = raster.depth_map(screen, triangles, 32, 32, backend=backend)
        torch.testing.assert_close(depth, seen.depth, atol=1e-5, rtol=0)


def test_wrong_shapes_and_indices_are_named():
    good = torch.zeros(1, 3, 3)
    with pytest.raises(ValueError, match=r"\(N, V, 3\)"):
        raster.rasterise(good[0], torch.zeros(1, 3, dtype=torch.long), 4, 4)
    with pytest.raises(ValueError, match=r"\(F, 3\)"):
        raster.rasterise(good, torch.zeros(3, dtype=torch.long), 4, 4)
    with pytest.raises(ValueError, match="outside 0..2"):
        raster.rasterise(good, torch.tensor([[0, 1, 3]]), 4, 4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_cuda_gives_the_cpu_picture(cameras):
    points, triangles = soup(9, "plain")
    screen = raster.to_screen(points, cameras, 48, 48)
    cpu = raster.rasterise(screen, triangles, 48, 48)
    gpu = raster.rasterise(screen.cuda(), triangles.cuda(), 48, 48)
    assert (gpu.triangle.cpu() == cpu.triangle).float().mean() > 0.999
