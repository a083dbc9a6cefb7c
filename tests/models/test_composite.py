"""Compositing of fields along rays: energy, limits, and the weights against the spelt-out sum."""

import math

import pytest
import torch

from models.render.composite import composite, field_weights, interval_lengths


def scene(fields: int = 2, rays: int = 7, samples: int = 12, channels: int = 5, seed: int = 0, empty: bool = True):
    g = torch.Generator().manual_seed(seed)
    density = torch.rand(fields, rays, samples, generator=g, dtype=torch.float64) * 4
    if empty:
        density = density * (torch.rand(density.shape, generator=g) > 0.4)
    feature = torch.randn(fields, rays, samples, channels, generator=g, dtype=torch.float64)
    depth = torch.sort(torch.rand(rays, samples, generator=g, dtype=torch.float64) * 3).values
    return density, feature, depth


def weighted(density, feature, depth):
    return (field_weights(density, depth).unsqueeze(-1) * feature).sum((0, -2))


@pytest.mark.parametrize("fields", [1, 2, 3])
def test_weights_equal_the_plain_sum_with_gradients(fields):
    density, feature, depth = scene(fields)
    outputs, gradients = [], []
    for render in (composite, weighted):
        inputs = [x.clone().requires_grad_() for x in (density, feature, depth)]
        out = render(*inputs)
        outputs.append(out)
        gradients.append(torch.autograd.grad(out.square().sum(), inputs))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-10)
    for fast, plain in zip(gradients[1], gradients[0]):
        torch.testing.assert_close(fast, plain, rtol=1e-6, atol=1e-8)


def test_gradients_match_finite_differences():
    density, feature, depth = scene(2, 2, 4, 2, empty=False)
    inputs = [x.requires_grad_() for x in (density, feature, depth)]
    assert torch.autograd.gradcheck(weighted, inputs)


def test_energy_is_at_most_one_and_one_before_an_occupied_end():
    density, _, depth = scene(rays=40)
    weights = field_weights(density, depth)
    total = weights.sum((0, -1))
    assert (weights >= 0).all()
    assert (total <= 1 + 1e-12).all()
    full = density.sum(0)[:, -1] > 0
    assert full.any()
    assert (~full).any()
    torch.testing.assert_close(total[full], torch.ones_like(total[full]))


def test_uniform_fog_absorbs_exponentially():
    depth = torch.linspace(0, 2, 101, dtype=torch.float64)[None]
    density = torch.full((1, 1, 101), 0.7, dtype=torch.float64)
    before = field_weights(density, depth)[0, 0].cumsum(0)[:-1]
    torch.testing.assert_close(before, 1 - torch.exp(-0.7 * depth[0, 1:]))


def test_splitting_a_field_in_two_changes_nothing():
    density, feature, depth = scene(1)
    halves = torch.cat([density * 0.3, density * 0.7])
    torch.testing.assert_close(
        weighted(halves, feature.expand(2, -1, -1, -1), depth), weighted(density, feature, depth)
    )


def test_order_of_fields_does_not_count():
    density, feature, depth = scene(3)
    torch.testing.assert_close(weighted(density.flip(0), feature.flip(0), depth), weighted(density, feature, depth))


def test_a_wall_hides_what_lies_behind():
    density, feature, depth = scene(2, 3, 8, empty=False)
    density[0, :, 2] = 1e6
    density[1, :, 2] = 0
    changed = feature.clone()
    changed[:, :, 3:] += 100
    torch.testing.assert_close(weighted(density, changed, depth), weighted(density, feature, depth))


def test_equal_depths_and_empty_rays_are_finite():
    density = torch.zeros(2, 2, 4)
    density[:, 1] = 1
    depth = torch.ones(2, 4)
    density.requires_grad_()
    weights = field_weights(density, depth)
    weights.sum().backward()
    assert weights[:, 0].abs().max() == 0
    assert torch.isfinite(density.grad).all()
    torch.testing.assert_close(weights[:, 1, -1].detach(), torch.full((2,), 0.5))


def test_interval_lengths():
    lengths = interval_lengths(torch.tensor([0.5, 1.0, 3.0]))
    assert lengths[:2].tolist() == [0.5, 2.0]
    assert math.isclose(lengths[2].item(), 1e10)
