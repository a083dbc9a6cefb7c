"""Plane representations: closed forms of the spheres, a literal look-up, and the fast form against the plain one."""

import math

import pytest
import torch

from models import planes
from models.planes import PlaneConfig, PlaneField

KINDS = [
    PlaneConfig(kind="triplane", channels=4, plane_axes="eg3d"),
    PlaneConfig(kind="triplane", channels=4),
    PlaneConfig(kind="trigrid", channels=4, depth=3),
    PlaneConfig(kind="trigrid", channels=4, depth=3, plane_axes="eg3d"),
    PlaneConfig(kind="single_sphere", channels=4),
    PlaneConfig(kind="dual_sphere", channels=4, box=0.8),
]
FRONT, BACK, LEFT, RIGHT, TOP, BOTTOM = (
    torch.tensor(p, dtype=torch.float64)
    for p in ([0, 0, 1.0], [0, 0, -1.0], [1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0])
)


def directions(n: int, seed: int = 0) -> torch.Tensor:
    p = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return p / p.norm(dim=-1, keepdim=True)


def random_planes(config: PlaneConfig, n: int = 2, size: int = 16, dtype=torch.float64) -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    return torch.randn(n, config.planes * config.channels, size, size, generator=g, dtype=dtype)


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_shares_of_the_spheres_at_the_six_ends():
    shares = [planes.share_of_a(p).item() for p in (FRONT, BACK, LEFT, RIGHT, TOP, BOTTOM)]
    assert shares == pytest.approx([1, 0, 0, 0, 1, 1], abs=1e-4)


def test_weights_sum_to_between_seven_sixteenths_and_one():
    p = directions(200_000)
    total = sum(planes.sphere_weights(p))
    assert total.max() <= 1 + 1e-12
    assert total.min() >= 7 / 16 - 1e-9
    assert total.min() < 7 / 16 + 1e-2  # the bound is reached
    assert total.max() > 1 - 1e-4


def test_closed_form_is_the_cosine_form_of_the_paper():
    p = directions(50_000) * torch.rand(50_000, 1, dtype=torch.float64).clamp_min(0.1)
    in_a, in_b = planes.spherical(planes.to_sphere_a(p)), planes.spherical(planes.to_sphere_b(p))
    w_a, w_b = planes.sphere_weights(p)
    torch.testing.assert_close(w_a, planes.sphere_weight(in_a), atol=1e-9, rtol=0)
    torch.testing.assert_close(w_b, planes.sphere_weight(in_b), atol=1e-9, rtol=0)
    torch.testing.assert_close(planes.share_of_a(p), w_a / (w_a + w_b + planes.EPSILON), atol=1e-7, rtol=0)


def test_frames_of_the_spheres_are_rotations_with_perpendicular_poles_and_opposite_seams():
    for frame, pole, middle in ((planes.to_sphere_a, RIGHT, FRONT), (planes.to_sphere_b, TOP, BACK)):
        matrix = frame(torch.eye(3, dtype=torch.float64)).T
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
        assert torch.linalg.det(matrix).item() == pytest.approx(1)
        assert planes.spherical(frame(pole))[0].item() == pytest.approx(-1)  # theta = 0
        assert planes.spherical(frame(middle))[1].item() == pytest.approx(0)  # phi = 0
        assert abs(planes.spherical(frame(-middle))[1].item()) == pytest.approx(1)  # the seam


def test_spherical_coordinates_round_trip():
    p = (torch.rand(10_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5) * 2
    theta, phi, r = planes.spherical(p).unbind(-1)
    theta, phi, r = (theta + 1) * math.pi / 2, phi * math.pi, (r + 1) * math.sqrt(3) / 2
    back = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], -1) * r.unsqueeze(-1)
    torch.testing.assert_close(back, p, atol=1e-9, rtol=0)


# --- look-ups ---------------------------------------------------------------------------------------------------------


def look_up(plane: torch.Tensor, u: float, v: float) -> torch.Tensor:
    """Bilinear look-up in one (C, H, W) plane with zeros outside, written out."""
    c, h, w = plane.shape
    x, y = ((u + 1) * w - 1) / 2, ((v + 1) * h - 1) / 2
    total = torch.zeros(c, dtype=plane.dtype)
    for i in (math.floor(x), math.floor(x) + 1):
        for j in (math.floor(y), math.floor(y) + 1):
            if 0 <= i < w and 0 <= j < h:
                total += (1 - abs(x - i)) * (1 - abs(y - j)) * plane[:, j, i]
    return total


def literal(store: torch.Tensor, point: list[float], config: PlaneConfig) -> torch.Tensor:
    """Features of one identity (K, C, H, H) at one world point, point by point from the formulas."""
    x, y, z = (2 / config.box * value for value in point)

    def sphere(first: int, px: float, py: float, pz: float) -> tuple[torch.Tensor, float]:
        r = math.sqrt(px**2 + py**2 + pz**2)
        theta, phi = math.atan2(math.hypot(px, py), pz), math.atan2(py, px)
        t, f, q = 2 * theta / math.pi - 1, phi / math.pi, 2 * r / math.sqrt(3) - 1
        features = sum(look_up(store[first + i], *uv) for i, uv in enumerate([(t, f), (t, q), (f, q)])) / 3
        return features, math.sin(theta) ** 2 * math.cos(phi / 2) ** 2

    if config.kind == "triplane":
        pairs = [(x, y), (x, z), (z, x) if config.plane_axes == "eg3d" else (y, z)]
        return sum(look_up(store[i], *uv) for i, uv in enumerate(pairs)) / 3
    if config.kind == "trigrid":
        depth_of = [z, y, y if config.plane_axes == "eg3d" else x]
        pairs = [(x, y), (x, z), (z, x) if config.plane_axes == "eg3d" else (y, z)]
        total = torch.zeros(config.channels, dtype=store.dtype)
        for i, (uv, d) in enumerate(zip(pairs, depth_of)):
            at = ((d + 1) * config.depth - 1) / 2
            for s in range(config.depth):
                total += max(0.0, 1 - abs(at - s)) * look_up(store[i * config.depth + s], *uv)
        return total / 3
    f_a, w_a = sphere(0, z, y, -x)
    if config.kind == "single_sphere":
        return f_a
    f_b, w_b = sphere(3, -z, -x, y)
    return (w_a * f_a + w_b * f_b) / (w_a + w_b + 1e-8)


@pytest.mark.parametrize("config", KINDS, ids=lambda c: f"{c.kind}-{c.plane_axes}")
@pytest.mark.parametrize("fast", [False, True])
def test_query_equals_a_literal_look_up(config, fast):
    stack = random_planes(config)
    points = (torch.rand(2, 40, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64) - 0.5) * 1.3
    out = PlaneField(stack, config, fast).query(points)
    for n in range(2):
        store = stack[n].unflatten(0, (config.planes, config.channels))
        for i, point in enumerate(points[n].tolist()):
            torch.testing.assert_close(out[n, i], literal(store, point, config), atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", KINDS, ids=lambda c: f"{c.kind}-{c.plane_axes}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fast_form_has_the_values_and_gradients_of_the_plain_form(config, dtype):
    points = (torch.rand(2, 3000, 3, generator=torch.Generator().manual_seed(5)) - 0.5).to(dtype) * 1.2
    points[0, :3] = torch.tensor([[0, 0, 0], [0, 0.3, 0], [0.2, 0, 0]], dtype=dtype)
    results = []
    for fast in (False, True):
        stack = random_planes(config, dtype=dtype).requires_grad_()
        at = points.clone().requires_grad_()
        out = PlaneField(stack, config, fast).query(at)
        generator = torch.Generator().manual_seed(7)
        out.backward(torch.randn(out.shape, generator=generator, dtype=dtype))
        results.append((out.detach(), stack.grad, at.grad))
    (value, by_plane, by_point), (value_, by_plane_, by_point_) = results
    tolerance = 1e-5 if dtype == torch.float32 else 1e-7
    torch.testing.assert_close(value_, value, atol=tolerance, rtol=0)
    torch.testing.assert_close(by_plane_, by_plane, atol=1e-4, rtol=1e-4)
    assert (by_point_ - by_point).abs().max() <= 1e-4 * by_point.abs().max()


@pytest.mark.parametrize("sphere", ["a", "b"])
def test_one_sphere_alone_has_the_same_fast_and_plain_form_and_dominates_where_its_share_is_one(sphere):
    config = KINDS[-1]
    stack = random_planes(config)
    points = directions(500).view(1, 500, 3).repeat(2, 1, 1) * 0.3
    plain = PlaneField(stack, config, False).query(points, sphere)
    torch.testing.assert_close(PlaneField(stack, config).query(points, sphere), plain, atol=1e-9, rtol=0)
    end = (FRONT if sphere == "a" else BACK).view(1, 1, 3).repeat(2, 1, 1) * 0.3
    field = PlaneField(stack, config)
    torch.testing.assert_close(field.query(end), field.query(end, sphere), atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", KINDS, ids=lambda c: f"{c.kind}-{c.plane_axes}")
def test_gradients_are_those_of_finite_differences(config):
    stack = random_planes(config, n=1, size=5).requires_grad_()
    points = (torch.rand(1, 6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5) * 0.6
    points.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s, p: PlaneField(s, config).query(p), (stack, points), eps=1e-7, atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("config", KINDS[-2:], ids=lambda c: c.kind)
@pytest.mark.parametrize("fast", [False, True])
def test_gradients_are_finite_on_the_axes_and_at_the_origin(config, fast):
    ends = torch.stack([FRONT, BACK, LEFT, RIGHT, TOP, BOTTOM, 0 * TOP, 1e-7 * TOP + 1e-9 * LEFT]).float()
    points = torch.cat([ends * s for s in (0.4, 1e-3, 1e-8)])[None].requires_grad_()
    stack = random_planes(config, n=1, dtype=torch.float32).requires_grad_()
    out = PlaneField(stack, config, fast).query(points)
    assert torch.isfinite(out).all()
    out.square().sum().backward()
    assert torch.isfinite(points.grad).all()
    assert torch.isfinite(stack.grad).all()


# --- what the representations are for ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [False, True])
def test_constant_planes_of_a_dual_sphere_give_a_constant_over_seams_and_poles(fast):
    config = PlaneConfig(channels=2)
    stack = torch.full((1, 12, 64, 64), 1.7, dtype=torch.float64)
    p = torch.cat([directions(20_000) * 0.3, torch.stack([FRONT, BACK, LEFT, RIGHT, TOP, BOTTOM]) * 0.3])
    out = PlaneField(stack, config, fast).query(p[None])
    # The border texel fades to zero: by at most one half, where a sphere's weight is at most (pi / 128)^2.
    torch.testing.assert_close(out, torch.full_like(out, 1.7), atol=1.7 * (math.pi / 128) ** 2, rtol=0)


def crossing(axis_pole: torch.Tensor, start: torch.Tensor, step: float) -> torch.Tensor:
    side = torch.linalg.cross(axis_pole, start)
    angle = torch.tensor([-step, step], dtype=torch.float64)
    return (start * angle.cos().unsqueeze(-1) + side * angle.sin().unsqueeze(-1)) * 0.3


@pytest.mark.parametrize(
    ("pole", "start"),
    [(RIGHT, BACK), (TOP, FRONT), (FRONT, RIGHT), (FRONT, TOP)],
    ids=["seam A", "seam B", "ear", "top"],
)
def test_the_fused_field_is_continuous_where_a_single_sphere_jumps(pole, start):
    config = PlaneConfig(channels=4)
    stack = random_planes(config, n=1)
    field = PlaneField(stack, config)
    jump = [(a := field.query(crossing(pole, start, s)[None]))[0, 0].sub(a[0, 1]).abs().max() for s in (1e-2, 1e-4)]
    assert jump[1] < 2e-2
    assert jump[1] < jump[0] / 20 + 1e-6
    alone = "a" if start is BACK or (pole is FRONT and start is RIGHT) else "b"
    broken = field.query(crossing(pole, start, 1e-4)[None], alone)[0]
    assert (broken[0] - broken[1]).abs().max() > 0.1


def mirrored_share(config: PlaneConfig) -> float:
    """Of the texels that answer for a point in front, the greatest share that also answers for its mirror behind."""
    shared = []
    for point in (directions(20, 3) * torch.tensor([0.5, 0.5, 1.0])).tolist():
        reads = []
        for sign in (1, -1):
            stack = torch.zeros(1, config.planes * config.channels, 32, 32, dtype=torch.float64, requires_grad=True)
            at = torch.tensor([[[0.35 * point[0], 0.35 * point[1], sign * (0.1 + 0.2 * abs(point[2]))]]]).double()
            PlaneField(stack, config).query(at).sum().backward()
            # The plane over (theta, r) or (phi, r) tells shells apart, not places: the paper's claim is the surface.
            surface = (0, 3) if config.kind == "dual_sphere" else range(config.planes)
            reads.append(stack.grad.unflatten(1, (config.planes, config.channels))[:, list(surface)])
        shared.append(torch.minimum(*reads).sum() / reads[0].sum())
    return float(torch.stack(shared).max())


def test_mirrored_points_share_no_surface_feature_on_spheres_but_do_on_planes():
    assert mirrored_share(PlaneConfig(channels=1)) == 0
    assert mirrored_share(PlaneConfig(kind="triplane", channels=1)) > 0.3


def test_one_identity_serves_many_cameras():
    config = PlaneConfig(channels=4)
    stack = random_planes(config, n=1)
    points = directions(60).view(3, 20, 3) * 0.4
    for fast in (False, True):
        once = PlaneField(stack, config, fast).query(points)
        each = PlaneField(stack.repeat(3, 1, 1, 1), config, fast).query(points)
        torch.testing.assert_close(once, each)


def test_the_gradient_of_the_table_is_the_same_twice():
    config = PlaneConfig(channels=8)
    points = directions(5000).view(1, 5000, 3).float() * 0.4
    grads = []
    for _ in range(2):
        stack = random_planes(config, n=1, dtype=torch.float32).requires_grad_()
        PlaneField(stack, config).query(points).square().sum().backward()
        grads.append(stack.grad)
    assert torch.equal(*grads)


def test_errors_name_what_is_wrong():
    config = PlaneConfig(kind="triplane", channels=4)
    with pytest.raises(ValueError, match="12 channels"):
        PlaneField(torch.zeros(1, 13, 8, 8), config)
    field = PlaneField(torch.zeros(2, 12, 8, 8), config)
    with pytest.raises(ValueError, match="no sphere"):
        field.query(torch.zeros(2, 1, 3), "a")
    with pytest.raises(ValueError, match="identities"):
        field.query(torch.zeros(3, 1, 3))


@pytest.mark.parametrize("config", KINDS, ids=lambda c: f"{c.kind}-{c.plane_axes}")
def test_a_point_that_is_no_number_gives_no_number_and_leaves_the_others_alone(config):
    field = PlaneField(random_planes(config, 1), config)
    points = directions(6)[None] * 0.3
    plain = field.query(points)
    points = points.clone()
    points[0, 2] = float("nan")
    seen = field.query(points)
    assert seen[0, 2].isnan().all()
    assert torch.equal(seen[:, [0, 1, 3, 4, 5]], plain[:, [0, 1, 3, 4, 5]])
