"""UV maps, textures on meshes, pictures unwrapped: round trips, gradients, and the fast path against the reference."""

import math

import pytest
import torch

from models.camera import intrinsics, pack_label, pose_on_sphere
from models.render import raster, texture


def ball(rows: int = 24, radius: float = 0.4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A sphere whose texture vertices are its mesh vertices: u around, v from pole to pole."""
    v, u = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, 2 * rows), indexing="ij")
    theta, phi = v * math.pi, (2 * u - 1) * math.pi
    points = torch.stack([theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], -1).reshape(1, -1, 3)
    corner = (torch.arange(rows - 1)[:, None] * 2 * rows + torch.arange(2 * rows - 1)[None]).reshape(-1)
    below = corner + 2 * rows
    triangles = torch.cat(
        [torch.stack([corner, below, corner + 1], -1), torch.stack([corner + 1, below, below + 1], -1)]
    )
    return radius * points, triangles, torch.stack([u, 1 - v], -1).reshape(-1, 2)


def smooth_texture(size: int) -> torch.Tensor:
    """Smooth on the ball: equal at u = 0 and 1, and constant at the poles."""
    place = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(place, place, indexing="ij")
    return torch.stack([torch.sin(2 * math.pi * u) * torch.sin(math.pi * v), v - 0.5, torch.cos(3 * v)])[None]


def camera_at(azimuth: float, elevation: float = 0.2) -> torch.Tensor:
    return pack_label(pose_on_sphere(torch.tensor([azimuth]), torch.tensor([elevation])), intrinsics(2.7 / 1.0))


def test_the_front_plane_shows_what_the_formula_says():
    vertices, triangles, uv = ball(64)
    at = texture.frontal_uv_map(vertices, triangles, uv, triangles, 64, extent=1.0, shift=(0.1, 0.0))
    place = (torch.arange(64) + 0.5) / 64 - 0.5
    x, y = place[None, :] + 0.1, -place[:, None]
    inside = (x**2 + y**2) < 0.37**2
    assert torch.equal(at.mask[0] & inside, inside)
    assert not at.mask[0][(x**2 + y**2) > 0.41**2].any()
    z = (0.4**2 - x**2 - y**2).clamp_min(1e-6).sqrt()
    u = torch.atan2(x.expand_as(z), z) / (2 * math.pi) + 0.5
    v = 1 - torch.acos((y / 0.4).clamp(-1, 1).expand_as(z)) / math.pi
    middle = (x**2 + y**2) < 0.3**2
    torch.testing.assert_close(at.uv[0][middle], torch.stack([u, v], -1)[middle], atol=4e-3, rtol=0)
    assert at.uv[0, 32, 50, 0] > at.uv[0, 32, 20, 0]  # the subject's left is on the right


@pytest.mark.parametrize("size", [16, 48])
def test_fast_and_reference_give_the_same_uv_map(size):
    vertices, triangles, uv = ball(12)
    pair = [
        texture.frontal_uv_map(vertices, triangles, uv, triangles, size, extent=1.0, backend=backend)
        for backend in ("warp", "torch")
    ]
    assert (pair[0].mask == pair[1].mask).float().mean() > 0.999
    agree = (pair[0].uv - pair[1].uv).abs().amax(-1) < 1e-4
    assert agree.float().mean() > 0.995


def test_one_map_reads_textures_of_any_size():
    vertices, triangles, uv = ball()
    at = texture.frontal_uv_map(vertices, triangles, uv, triangles, 32, extent=1.0)
    coarse, fine = (texture.sample_texture(smooth_texture(size), at) for size in (64, 256))
    assert coarse.shape == fine.shape == (1, 3, 32, 32)
    assert (coarse - fine).abs().max() < 0.05
    assert fine[:, :, ~at.mask[0]].abs().max() == 0


def test_unwrapping_undoes_texturing():
    vertices, triangles, uv = ball(40)
    painted, camera = smooth_texture(128), camera_at(0.5)
    seen = raster.rasterise(raster.to_screen(vertices, camera, 256, 256), triangles, 256, 256)
    picture = texture.sample_texture(painted, texture.uv_map(seen, uv, triangles))
    layout = texture.uv_fragments(uv, triangles, 128)
    assert layout.mask.all()
    found, visible = texture.unwrap(picture, camera, vertices, triangles, layout)
    clear = visible[0] > 0.35
    assert 0.2 < clear.float().mean() < 0.5  # a camera sees less than half a ball
    assert (found - painted)[0, :, clear].abs().max() < 0.04
    assert found[0, :, visible[0] == 0].abs().max() == 0


def test_hidden_and_outside_texels_are_not_seen():
    """A board behind a smaller one: what the front board covers is hidden, what the picture cuts off too."""
    square = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    behind, front = square * torch.tensor([0.6, 0.6, 1]), square * 0.2 + torch.tensor([0.0, 0, 0.3])
    vertices = torch.cat([behind, front])[None]
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    corners = square[:, :2] * 0.5 + 0.5
    uv = torch.cat([corners * torch.tensor([0.5, 1]), corners * torch.tensor([0.5, 1]) + torch.tensor([0.5, 0])])
    layout = texture.uv_fragments(uv, triangles, 64)
    _, visible = texture.unwrap(torch.ones(1, 1, 96, 96), camera_at(0.0, 0.0), vertices, triangles, layout)
    left, right = visible[0, :, :32] > 0, visible[0, :, 32:] > 0
    assert right.all()  # all of the front board
    assert not left[30:34, 14:18].any()  # behind its middle
    assert left[8:14, 4:6].all()  # beside it
    assert not left[:, 0].any()  # beyond the picture's edge: 1.2 units in a picture of 1.0
    turned = vertices * torch.tensor([-1.0, 1, -1])
    _, away = texture.unwrap(torch.ones(1, 1, 96, 96), camera_at(0.0, 0.0), turned, triangles, layout)
    assert not (away > 0).any()


def test_gradients_agree_with_differences():
    """Through the plane, in the texture and in the vertices, away from the silhouette."""
    vertices, triangles, uv = (part.double() if part.is_floating_point() else part for part in ball(8))
    g = torch.Generator().manual_seed(0)
    paint = smooth_texture(32).double()
    weight = torch.randn(3, 12, 12, generator=g, dtype=torch.float64)

    def value(points: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
        at = texture.frontal_uv_map(points, triangles, uv, triangles, 12, extent=0.5, backend="torch")
        return (texture.sample_texture(colours, at)[0] * weight).sum()

    vertices.requires_grad_()
    paint.requires_grad_()
    gradients = torch.autograd.grad(value(vertices, paint), (vertices, paint))
    for place, gradient in enumerate(gradients):
        direction = torch.randn(gradient.shape, generator=g, dtype=torch.float64)
        step = 1e-7
        with torch.no_grad():
            moved = [
                value(*(t + sign * step * direction if i == place else t for i, t in enumerate((vertices, paint))))
                for sign in (1, -1)
            ]
        torch.testing.assert_close(
            (moved[0] - moved[1]) / (2 * step), (gradient * direction).sum(), rtol=1e-4, atol=1e-6
        )


def test_unwrapped_colours_carry_gradients_to_the_mesh_and_the_picture():
    vertices, triangles, uv = (part.double() if part.is_floating_point() else part for part in ball(10))
    layout = texture.uv_fragments(uv, triangles, 16, backend="torch")
    picture = torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    picture = torch.nn.functional.avg_pool2d(picture, 5, 1, 2)
    camera = camera_at(0.1).double()

    def value(points: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return texture.unwrap(image, camera, points, triangles, layout, backend="torch")[0].square().sum()

    vertices.requires_grad_()
    picture.requires_grad_()
    gradients = torch.autograd.grad(value(vertices, picture), (vertices, picture))
    for place, gradient in enumerate(gradients):
        direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        with torch.no_grad():
            ahead, behind = (
                value(*(t + s * 1e-7 * direction if i == place else t for i, t in enumerate((vertices, picture))))
                for s in (1, -1)
            )
        torch.testing.assert_close((ahead - behind) / 2e-7, (gradient * direction).sum(), rtol=1e-4, atol=1e-6)


def test_gaps_fill_from_their_borders():
    colours = torch.zeros(1, 2, 16, 16)
    visible = torch.zeros(1, 16, 16)
    colours[:, 0, 4:8, 4:8], colours[:, 1, 4:8, 4:8] = 2.0, -1.0
    visible[:, 4:8, 4:8] = 1
    filled = texture.fill_gaps(colours, visible, 2)
    torch.testing.assert_close(filled[0, 0, 2:10, 2:10], torch.full((8, 8), 2.0))
    torch.testing.assert_close(filled[0, 1, 2:10, 2:10], torch.full((8, 8), -1.0))
    assert filled[0, :, 0].abs().max() == 0
    torch.testing.assert_close(filled[0, :, 4:8, 4:8], colours[0, :, 4:8, 4:8])


def test_normals_point_outwards():
    vertices, triangles, _ = ball(20)
    normals = texture.vertex_normals(vertices, triangles)
    inner = (vertices[0, :, 1].abs() < 0.35) & (vertices[0, :, 2] > -0.35)  # away from the poles and the seam
    assert ((normals * vertices / 0.4).sum(-1)[0, inner] > 0.99).all()


def test_the_person_unwraps():
    """On the real mesh: what a picture shows of the face comes back from its texture."""
    from models.parametric.person import load_person

    person = load_person()
    vertices = person.vertices(torch.zeros(1, 80))
    camera = camera_at(0.2)
    screen = raster.to_screen(vertices, camera, 128, 128)
    seen = raster.rasterise(screen, person.triangles, 128, 128)
    picture = raster.interpolate(vertices, person.triangles, seen).permute(0, 3, 1, 2)
    layout = texture.uv_fragments(person.uv, person.uv_triangles, 256)
    found, visible = texture.unwrap(picture, camera, vertices, person.triangles, layout)
    again = texture.sample_texture(
        texture.fill_gaps(found, visible, 2), texture.uv_map(seen, person.uv, person.uv_triangles)
    )
    error = (again - picture).norm(dim=1)[0][seen.mask[0]]
    assert error.median() < 0.01  # world units: 4 mm, less than a pixel's 8 mm
    assert error.quantile(0.8) < 0.03


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nothing_waits_for_the_device():
    vertices, triangles, uv = (part.cuda() for part in ball())
    paint = smooth_texture(64).cuda()
    texture.frontal_uv_map(vertices, triangles, uv, triangles, 32, extent=1.0, check=False)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        at = texture.frontal_uv_map(vertices, triangles, uv, triangles, 32, extent=1.0, check=False)
        texture.sample_texture(paint, at)
    finally:
        torch.cuda.set_sync_debug_mode("default")
