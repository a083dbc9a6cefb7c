"""The volume renderer: limits, sampling, the march against a plain loop and against a known integral, merge = sort."""

import math

import pytest
import torch

from models.render import volume
from models.render.volume import RenderConfig, render

CONFIG = RenderConfig(near=0.5, far=2.5, coarse=12, fine=12)


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rays_at_ball(n: int = 2, count: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    origin = torch.randn(n, count, 3, generator=g, dtype=torch.float64)
    origin = 1.5 * origin / origin.norm(dim=-1, keepdim=True)
    aim = 0.3 * torch.randn(n, count, 3, generator=g, dtype=torch.float64)
    return origin, torch.nn.functional.normalize(aim - origin, dim=-1)


def ball(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A soft ball of radius 0.4 coloured by position."""
    density = 40 * (0.4 - points.norm(dim=-1))
    return torch.cat([points, points.square()], dim=-1), density


def loop_march(feature, density, depth):
    """One ray, interval by interval, as the equations read."""
    seen, light, total, distance = torch.zeros_like(feature[0]), 1.0, 0.0, 0.0
    for i in range(len(depth) - 1):
        sigma = math.log1p(math.exp((density[i] + density[i + 1]) / 2 - 1))
        alpha = 1 - math.exp(-sigma * (depth[i + 1] - depth[i]))
        seen = seen + light * alpha * (feature[i] + feature[i + 1]) / 2
        distance += light * alpha * (depth[i] + depth[i + 1]) / 2
        total += light * alpha
        light *= 1 - alpha
    return seen, distance / total, total


def test_march_equals_a_loop():
    feature, density = rows(4, 9, 3), rows(4, 9, seed=1) * 6 - 2
    depth = rows(4, 9, seed=2).sort(dim=-1).values
    out = volume.composite_sorted(feature, density, depth)
    for i in range(4):
        seen, distance, total = loop_march(feature[i], density[i], depth[i])
        torch.testing.assert_close(out.feature[i], seen)
        assert out.depth[i].item() == pytest.approx(float(distance))
        assert out.opacity[i].item() == pytest.approx(float(total))


def test_energy_never_exceeds_one_and_fog_follows_beer_and_lambert():
    depth = rows(100, 40).sort(dim=-1).values * 3
    for scale in (1.0, 100.0, 1e4):
        weight = volume.march((rows(100, 40, seed=1) - 0.5) * scale, depth)
        assert (weight >= 0).all()
        assert weight.sum(-1).max() <= 1 + 1e-12
    sigma, length = 0.7, 2.0
    raw = math.log(math.expm1(sigma)) + 1  # softplus(raw - 1) = sigma
    depth = torch.linspace(1, 1 + length, 11, dtype=torch.float64)
    weight = volume.march(torch.full_like(depth, raw), depth)
    assert weight.sum().item() == pytest.approx(1 - math.exp(-sigma * length))


def test_weights_of_samples_average_neighbouring_features():
    weight, feature = rows(5, 7), rows(5, 8, 3)
    middle = (feature[:, 1:] + feature[:, :-1]) / 2
    shares = volume.weights_of_samples(weight)
    torch.testing.assert_close((shares.unsqueeze(-1) * feature).sum(1), (weight.unsqueeze(-1) * middle).sum(1))


@pytest.mark.parametrize("sizes", [(48, 48), (5, 17), (17, 5), (1, 1)])
def test_merge_is_a_stable_sort(sizes):
    first, second = (
        (rows(2, 50, s, seed=i) * 40).round().sort(dim=-1).values  # rounding makes many ties
        for i, s in enumerate(sizes)
    )
    rank = torch.cat(volume.merge_ranks(first, second), dim=-1)
    joined = torch.cat([first, second], dim=-1)
    order = joined.argsort(dim=-1, stable=True)
    torch.testing.assert_close(rank.gather(-1, order), torch.arange(sum(sizes)).expand_as(order))


def test_box_limits_meet_the_faces_of_the_cube():
    origin, direction = rays_at_ball(1, 500)
    near, far, hit = volume.box_limits(origin, direction, 1.0)
    assert hit.any()
    for depth in (near, far):
        point = (origin + depth.unsqueeze(-1) * direction)[hit]
        torch.testing.assert_close(point.abs().amax(-1), torch.full((int(hit.sum()),), 0.5, dtype=torch.float64))
    assert (far > near).all()
    inside = volume.box_limits(torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]]), 1.0)
    assert [t.item() for t in inside] == [0.0, 0.5, True]
    away = volume.box_limits(torch.tensor([[0.0, 0, 2]]), torch.tensor([[0.0, 0, 1]]), 1.0)
    assert not away[2].item()
    assert away[1].item() > away[0].item()


@pytest.mark.parametrize("jitter", [False, True])
def test_stratified_depths_keep_to_their_strata(jitter):
    torch.manual_seed(0)
    near, far = rows(3, 4), rows(3, 4, seed=1) + 2
    depth = volume.stratified_depths(near, far, 8, jitter)
    cell = ((depth - near.unsqueeze(-1)) / (far - near).unsqueeze(-1) * 8).floor()
    torch.testing.assert_close(cell, torch.arange(8.0, dtype=torch.float64).expand_as(cell))


def test_importance_depths_go_where_the_weight_is():
    depth = torch.linspace(0, 1, 11, dtype=torch.float64).expand(1, 11)
    weight = torch.zeros(1, 10, dtype=torch.float64)
    weight[0, 3] = 1.0
    fine = volume.importance_depths(depth, weight, 200, jitter=False)
    assert (fine.diff(dim=-1) >= 0).all()
    # Widened by one interval to either side: halves, one, halves, plus 0.01 for every interval.
    near_peak = ((fine > 0.2) & (fine < 0.5)).double().mean().item()
    assert near_peak == pytest.approx((0.5 + 1 + 0.5 + 0.03) / (2 + 0.1), abs=0.02)
    torch.manual_seed(0)
    drawn = volume.importance_depths(depth.expand(2000, 11), weight.expand(2000, 10), 4, jitter=True)
    assert ((drawn > 0.2) & (drawn < 0.5)).double().mean().item() == pytest.approx(near_peak, abs=0.02)


def test_importance_depths_of_an_empty_ray_are_spread_evenly():
    depth = torch.linspace(0, 1, 6).expand(1, 6)
    fine = volume.importance_depths(depth, torch.zeros(1, 5), 10, jitter=False)
    torch.testing.assert_close(fine[0], (torch.arange(10) + 0.5) / 10)


def test_fast_renderer_equals_the_plain_one_with_gradients():
    origin, direction = rays_at_ball()
    results = []
    for fast in (False, True):
        scale = torch.tensor([3.0, 1.0], dtype=torch.float64, requires_grad=True)

        def field(points, scale=scale):
            feature, density = ball(points)
            return feature * scale[0], density * scale[1]

        out = render(field, origin, direction, CONFIG, fast=fast)
        (out.feature.sum() + out.depth.sum() + out.opacity.sum()).backward()
        results.append((*[t.detach() for t in out], scale.grad))
    for plain, fast in zip(*results):
        torch.testing.assert_close(fast, plain, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("grad", [False, True])
def test_chunks_change_nothing(grad):
    origin, direction = rays_at_ball()
    results = []
    for chunk in (None, 7):
        scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=grad)
        with torch.set_grad_enabled(grad):
            out = render(lambda p, s=scale: (s * ball(p)[0], s * ball(p)[1]), origin, direction, CONFIG, chunk=chunk)
        if grad:
            out.feature.sum().backward()
        results.append((*[t.detach() for t in out], scale.grad))
    for whole, parts in zip(*results):
        if whole is not None:
            torch.testing.assert_close(parts, whole)


def test_recomputed_chunks_draw_the_same_samples_again():
    origin, direction = rays_at_ball()
    torch.manual_seed(0)
    seen = []

    def field(points):
        seen.append(points.detach().clone())
        feature, density = ball(points)
        return feature * scale, density

    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    render(field, origin, direction, CONFIG, jitter=True, density_noise=0.1, chunk=15).feature.sum().backward()
    assert len(seen) == 8  # two chunks, coarse and fine, forwards and again backwards
    for first, again in zip(seen[:4], [*seen[6:8], *seen[4:6]]):
        torch.testing.assert_close(first, again)


def test_depth_finds_the_surface_of_a_ball():
    origin = torch.tensor([[[0.0, 0, 1.5]]], dtype=torch.float64)
    direction = torch.tensor([[[0.0, 0, -1]]], dtype=torch.float64)

    def hard(points):
        return points, 2000 * (0.4 - points.norm(dim=-1))

    out = render(hard, origin, direction, RenderConfig(near=0.5, far=2.5, coarse=48, fine=48))
    assert out.depth.item() == pytest.approx(1.1, abs=2 / 48)  # one coarse interval
    assert out.opacity.item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(out.feature[0, 0], torch.tensor([0.0, 0, 0.4], dtype=torch.float64), atol=0.03, rtol=0)


def test_empty_space_is_far_and_transparent_and_white_if_asked():
    origin, direction = rays_at_ball()

    def nothing(points):
        return points, torch.full(points.shape[:-1], -1e4, dtype=points.dtype)

    out = render(nothing, origin, direction, CONFIG.model_copy(update={"white_background": True}))
    torch.testing.assert_close(out.opacity, torch.zeros_like(out.opacity))
    assert (out.depth > 2.3).all()
    torch.testing.assert_close(out.feature, torch.ones_like(out.feature))


def test_box_limits_and_guides_see_the_same_ball_as_a_fine_reference():
    origin, direction = rays_at_ball()
    reference = render(ball, origin, direction, CONFIG.model_copy(update={"coarse": 400, "fine": 0}))
    dense = {"coarse": 64, "fine": 64}
    for change in ({}, {"limits": "box"}, {"coarse_pass": "guide"}):
        out = render(ball, origin, direction, CONFIG.model_copy(update={**dense, **change}))
        assert (out.feature - reference.feature).abs().max() < 0.02
        assert (out.opacity - reference.opacity).abs().max() < 0.02
    miss = render(
        lambda p: (p, torch.full(p.shape[:-1], 50.0, dtype=p.dtype)),
        origin + 3,
        torch.nn.functional.normalize(torch.ones_like(direction), dim=-1),
        CONFIG.model_copy(update={"limits": "box"}),
    )
    assert miss.opacity.abs().max() == 0


def test_densities_that_are_no_numbers_spoil_the_picture_and_not_the_process():
    def broken(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        feature, density = ball(points)
        return feature, torch.full_like(density, math.nan)

    origin, direction = rays_at_ball()
    assert render(broken, origin, direction, CONFIG).feature.isnan().any()
