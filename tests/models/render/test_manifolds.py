"""Crossings lie on their levels, both searches agree, and compositing obeys its law."""

import pytest
import torch

from models.render.manifolds import (
    composite,
    composite_reference,
    crossings,
    crossings_reference,
    level_values,
)

LEVELS = level_values(23.0, 8.0, 24)


def fields(kind: str, rays: int = 60, samples: int = 32) -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    falling = torch.linspace(26, 5, samples).expand(2, rays, samples)
    noise = torch.randn(2, rays, samples, generator=g)
    if kind == "smooth":
        return falling + 0.01 * noise
    if kind == "rough":  # crosses most levels many times
        return falling + 3 * noise
    if kind == "inside":  # starts anywhere among the levels, rises and falls
        start = 5 + 20 * torch.rand(2, rays, 1, generator=g)
        return start + noise.cumsum(-1) * 2
    if kind == "rising":
        return falling.flip(-1).contiguous()
    # Samples exactly on levels, and flat stretches.
    return (falling + noise).round()


@pytest.mark.parametrize("kind", ["smooth", "rough", "inside", "rising", "ties"])
def test_all_levels_at_once_equal_one_by_one(kind):
    levels = LEVELS if kind != "ties" else torch.arange(23.0, 7.0, -1.0)
    fast, plain = crossings(fields(kind), levels), crossings_reference(fields(kind), levels)
    assert torch.equal(fast.valid, plain.valid)
    assert torch.equal(fast.segment[fast.valid], plain.segment[plain.valid])
    assert torch.equal(fast.fraction, plain.fraction)
    assert fast.valid.any() != (kind == "rising")


@pytest.mark.parametrize("kind", ["smooth", "rough", "inside"])
def test_gradients_of_both_searches_are_equal(kind):
    gradients = []
    weight = torch.randn(2, 60, 24, generator=torch.Generator().manual_seed(1))
    for search in (crossings, crossings_reference):
        field = fields(kind).requires_grad_()
        (search(field, LEVELS).fraction * weight).sum().backward()
        gradients.append(field.grad)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    assert gradients[0].abs().sum() > 0


def test_gradient_of_a_crossing_agrees_with_finite_differences():
    field = fields("rough", rays=3, samples=10).double()
    # Away from levels by more than the step, so that no crossing changes its segment.
    levels = LEVELS[::6].double() + 0.0123
    positions = torch.rand(2, 3, 10, 3, dtype=torch.double)

    def moved(values):
        found = crossings(values, levels)
        return found.interpolate(positions) * found.valid.unsqueeze(-1)

    assert torch.autograd.gradcheck(moved, (field.requires_grad_(),))


@pytest.mark.parametrize("kind", ["smooth", "rough", "inside"])
def test_crossings_lie_on_their_level(kind):
    field = fields(kind)
    found = crossings(field, LEVELS)
    value = found.interpolate(field.unsqueeze(-1)).squeeze(-1)
    expected = LEVELS.expand_as(value)
    torch.testing.assert_close(value[found.valid], expected[found.valid], rtol=0, atol=2e-3)


def test_a_flat_segment_still_answers_near_its_level():
    # Public code answers with the far end of any segment that falls by less than 0.05.
    field = torch.tensor([[[20.0, 10.04, 10.0, 5.0]]])
    found = crossings(field, torch.tensor([10.03]))
    assert found.segment.item() == 1
    assert found.fraction.item() == pytest.approx(0.25, abs=1e-3)


def test_crossings_of_a_ray_from_outside_come_in_the_order_of_levels():
    field = fields("rough")
    field[..., 0] = 40
    found = crossings(field, LEVELS)
    where = found.segment + found.fraction
    both = found.valid[..., 1:] & found.valid[..., :-1]
    assert ((where[..., 1:] - where[..., :-1])[both] >= 0).all()
    assert both.any()


def test_sphere_manifolds_are_crossed_where_geometry_says():
    # s = distance to the origin; rays along -z at offset x cross radius r at z = sqrt(r^2 - x^2).
    x = torch.linspace(0, 1.5, 9)
    z = torch.linspace(3, 0, 400)
    points = torch.stack([x[:, None].expand(-1, 400), torch.zeros(9, 400), z.expand(9, -1)], dim=-1)[None]
    radii = torch.tensor([2.5, 2.0, 1.0])
    found = crossings(points.norm(dim=-1), radii)
    expected = (radii**2 - x[:, None] ** 2).clamp_min(0).sqrt()
    hit = radii > x[:, None]
    assert torch.equal(found.valid[0], hit)
    torch.testing.assert_close(found.interpolate(points)[0, ..., 2][hit], expected[hit], atol=1e-3, rtol=0)


def test_one_sample_is_no_ray():
    with pytest.raises(ValueError, match="two samples"):
        crossings(torch.zeros(1, 1, 1), LEVELS)


def layers(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return (
        torch.rand(2, 30, 12, 3, generator=g),
        torch.rand(2, 30, 12, generator=g),
        torch.rand(2, 30, 12, generator=g) + 1,
    )


def test_compositing_equals_its_definition_with_gradients():
    results = []
    for paint in (composite, composite_reference):
        leaves = [part.requires_grad_() for part in layers()]
        out = paint(*leaves, background=0.7, far=3.0)
        (out.colour.sin().sum() + out.depth.cos().sum()).backward()
        results.append((*out, *(leaf.grad for leaf in leaves)))
    for fast, plain in zip(*results):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_equal_depths_are_laid_in_the_order_given():
    colour, alpha, _ = layers()
    depth = torch.ones(2, 30, 12)
    torch.testing.assert_close(composite(colour, alpha, depth).colour, composite_reference(colour, alpha, depth).colour)


def test_weights_never_exceed_one_and_opaque_layers_hide_the_rest():
    colour, alpha, depth = layers()
    total = composite(colour, alpha, depth).weights.sum(-1)
    assert (total <= 1 + 1e-6).all()
    assert (total >= 0).all()
    nearest = depth.argmin(-1, keepdim=True)
    opaque = alpha.scatter(-1, nearest, 1.0)
    seen = composite(colour, opaque, depth)
    front = colour.gather(2, nearest.unsqueeze(-1).expand(-1, -1, -1, 3)).squeeze(2)
    torch.testing.assert_close(seen.colour, front)
    torch.testing.assert_close(seen.depth, depth.min(-1).values)


def test_the_order_of_layers_does_not_matter():
    colour, alpha, depth = layers()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    mixed = composite(colour[:, :, order], alpha[..., order], depth[..., order])
    torch.testing.assert_close(mixed.colour, composite(colour, alpha, depth).colour)


def test_an_empty_ray_shows_the_background_at_the_far_end():
    colour, alpha, depth = layers()
    out = composite(colour, torch.zeros_like(alpha), depth, background=1.0, far=2.5)
    assert torch.equal(out.colour, torch.ones_like(out.colour))
    assert torch.equal(out.depth, torch.full_like(out.depth, 2.5))
