"""Manifold super-resolution: atlases are read where they were laid, and the network keeps its promises."""

import pytest
import torch
from torch.nn import functional as F

from models.portrait_atlas import AtlasConfig, Upsampler, _StyledConv, atlas_points, sample_atlases

TINY = AtlasConfig(resolution=8, channels=8, blocks=1, growth=4, up_channels=(8, 4), mapping_width=16)


def test_every_texel_is_read_back_at_its_own_point():
    # The public code lays texels from edge to edge but reads cells: off by up to half a texel.
    points = atlas_points(TINY, samples=3)
    atlas = torch.rand(1, 2, 5, 8, 8)
    where = points[None, :, :2]  # two manifolds, anywhere along the ray
    found = sample_atlases(atlas, where, TINY)
    torch.testing.assert_close(found, atlas.flatten(3).permute(0, 3, 1, 2), atol=1e-5, rtol=0)


def test_reading_is_the_same_at_every_resolution():
    # A linear ramp in x and y, laid at 8 and at 32 texels.
    def ramp(config):
        plane = atlas_points(config, 2)[:, 0, :2]
        return plane.T.reshape(1, 1, 2, config.resolution, config.resolution)

    points = (torch.rand(1, 50, 1, 3) - 0.5) * 0.3
    for config in (TINY, TINY.model_copy(update={"resolution": 32})):
        torch.testing.assert_close(sample_atlases(ramp(config), points, TINY)[:, :, 0], points[:, :, 0, :2])


def test_rays_of_an_atlas_run_backwards_through_the_window():
    points = atlas_points(TINY, samples=5).unflatten(0, (8, 8))
    assert (points[..., 1:, 2] < points[..., :-1, 2]).all()
    assert points[0, 0, 0, 0] < 0 < points[0, 0, 0, 1]  # top left of the picture
    edge = TINY.half_side * (1 - 1 / 8)
    assert points[-1, -1, 0].tolist() == pytest.approx([edge, TINY.centre_y - edge, TINY.near_z])


def test_styled_convolution_equals_its_definition_by_weights():
    torch.manual_seed(0)
    conv = _StyledConv(6, 5, 3, padding=1)
    x, style = torch.randn(2, 6, 7, 7), torch.randn(6)
    # As StyleGAN 2 has it: inputs scaled, then outputs brought back to unit variance.
    size = (conv.weight.square().sum(dim=(2, 3)) * style.square()).sum(-1)
    expected = F.conv2d(x * style.view(-1, 1, 1), conv.weight, padding=1) * (size + 1e-8).rsqrt().view(-1, 1, 1)
    torch.testing.assert_close(conv(x, style), expected + conv.bias.view(-1, 1, 1), atol=1e-5, rtol=1e-4)


def test_pictures_without_gradients_differ_from_those_with_by_less_than_a_grey_level():
    torch.manual_seed(0)
    network = Upsampler(10, 3, TINY)
    atlases, style = torch.rand(2, 3, 7, 8, 8), network.mapping(torch.randn(2, 10))
    exact = network(atlases, style).detach()
    with torch.no_grad():
        fast = network(atlases, style)
    assert exact.std() > 0.01
    assert fast.dtype == torch.float32
    assert 0 < (fast - exact).abs().max() < 1 / 255


def test_sheets_in_parts_give_the_same_answer_and_gradients():
    torch.manual_seed(0)
    whole = Upsampler(10, 3, TINY)
    parts = Upsampler(10, 3, TINY.model_copy(update={"sheets_at_once": 2}))
    parts.load_state_dict(whole.state_dict())
    atlases, code = torch.rand(2, 3, 7, 8, 8), torch.randn(2, 10)
    out = []
    for network in (whole, parts):
        large = network(atlases, network.mapping(code))
        assert large.shape == (2, 3, 4, 32, 32)
        large.square().sum().backward()
        out.append(large.detach())
    torch.testing.assert_close(*out)
    for a, b in zip(whole.parameters(), parts.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
        assert a.grad.abs().max() > 0


def test_values_are_colours_and_opacities():
    large = Upsampler(10, 3, TINY)(torch.randn(1, 2, 7, 8, 8), torch.randn(1, 8 + 8 + 4 + 4) * 5)
    assert large.min() >= 0
    assert large.max() <= 1


def test_a_residual_network_starts_with_bilinear_enlargement_and_learns_away_from_it():
    torch.manual_seed(0)
    network = Upsampler(10, 3, TINY.model_copy(update={"residual": True}))
    atlases, style = torch.rand(1, 2, 7, 8, 8), network.mapping(torch.randn(1, 10))
    large = network(atlases, style)
    smooth = F.interpolate(atlases[0, :, :4], (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(large[0], smooth, atol=2e-4, rtol=0)
    assert Upsampler(10, 3, TINY).gain is None, "the paper's network has no such weight"
    with torch.no_grad():
        network.gain.fill_(0.5)
    network(atlases, network.mapping(torch.randn(1, 10))).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
