"""The portrait generator: published sizes, identities, fast against plain, gradients in bands and everywhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.portrait import (
    Latents,
    PortraitConfig,
    PortraitGenerator,
    Rays,
    Surface,
    _resize_surface,
    backward_in_bands,
    shade_in_bands,
)
from models.portrait_atlas import AtlasConfig
from models.portrait_cameras import FACE_VIEW, PORTRAIT_VIEW, follow, view_label
from models.portrait_fields import ExpressionConfig, ManifoldConfig, RadianceConfig
from models.portrait_pose import PoseConfig
from tests.models import toy_body

TINY = PortraitConfig(
    identity=6,
    shape=2,
    expression=4,
    joints=4,
    noise=5,
    manifolds=ManifoldConfig(width=32, count=6, samples=16),
    radiance=RadianceConfig(width=16, layers=3, mapping_width=16, features=4),
    expression_field=ExpressionConfig(width=16, layers=2, mapping_width=16),
    pose=PoseConfig(kernel=(3, 5, 5)),
    atlas=AtlasConfig(resolution=16, channels=8, blocks=1, growth=4, up_channels=(8, 4), mapping_width=16),
)


def generator(upsample: bool = False, config: PortraitConfig = TINY) -> PortraitGenerator:
    """A generator with something to see: visible density and an expression field that is no longer at rest."""
    torch.manual_seed(0)
    network = PortraitGenerator(config, upsample)
    torch.nn.init.normal_(network.expression.last.weight, std=0.02)
    torch.nn.init.constant_(network.radiance.last_head.bias, 20.0)
    return network


def latents(n: int = 2, seed: int = 0) -> Latents:
    g = torch.Generator().manual_seed(seed)
    sizes = ((TINY.identity,), (TINY.shape,), (TINY.expression,), (TINY.joints, 3), (TINY.noise,))
    return Latents(*(torch.randn(n, *size, generator=g) for size in sizes))


def portrait_label(n: int = 2) -> Tensor:
    return view_label(PORTRAIT_VIEW, torch.linspace(-0.3, 0.3, n), torch.zeros(n))


def count(module: torch.nn.Module | None) -> int:
    assert module is not None
    return sum(p.numel() for p in module.parameters())


def test_parameters_at_the_papers_size():
    with torch.device("meta"):
        network = PortraitGenerator(PortraitConfig(), upsample=True)
    # YueWuHKUST/AniPortraitGAN 5783d53
    assert count(network.manifolds) == 33_665
    assert count(network.radiance) == 1_949_948
    assert count(network.upsampler) == 3_388_516
    # Its deformer has four inputs that are always zero and four outputs that nobody reads.
    unread = 4 * 128 + 4 * (128 + 1)
    assert count(network.expression) + unread == 185_607
    # Its filters also carry the bottom rows of the transforms, which are constant: 4 of 16 channels.
    constant = 2 * 4 * 5 * 9 * 9
    assert count(network.pose) + constant == 12_960
    assert count(network) + unread + constant == 5_570_696


def test_parameters_at_grams_size():
    with torch.device("meta"):
        config = PortraitConfig(identity=0, noise=256, radiance=RadianceConfig(features=0))
        network = PortraitGenerator(config)
    # microsoft/GRAM 5a5ac8e, FFHQ_default
    assert count(network.radiance) == 1_916_956
    assert count(network.radiance) + count(network.manifolds) == 1_950_621


def test_pictures_have_their_shape_and_range():
    network = generator()
    out = network(latents(), toy_body.body(toy_body.random_angles(2)), portrait_label(), PORTRAIT_VIEW, 16)
    assert out.image.shape == (2, 3, 16, 16)
    assert out.depth.shape == out.opacity.shape == (2, 1, 16, 16)
    assert out.image.abs().max() <= 1 + 1e-5
    assert 0 <= out.opacity.min() < out.opacity.max() <= 1 + 1e-5
    seen = out.opacity > 0.5
    assert seen.float().mean() > 0.2
    assert (out.depth[seen] > PORTRAIT_VIEW.near).all()
    assert (out.depth <= PORTRAIT_VIEW.far + 1e-5).all()


def test_a_generator_that_shows_nothing_paints_the_background():
    network = generator()
    torch.nn.init.constant_(network.radiance.last_head.bias, -1e4)
    out = network(latents(), toy_body.body(toy_body.random_angles(2)), portrait_label(), PORTRAIT_VIEW, 16)
    torch.testing.assert_close(out.image, torch.ones_like(out.image))
    torch.testing.assert_close(out.depth, torch.full_like(out.depth, PORTRAIT_VIEW.far))


@pytest.mark.parametrize("way", ["nearest", "volume"])
def test_the_neutral_pose_leaves_every_sample_where_it_is(way):
    config = TINY.model_copy(update={"pose": TINY.pose.model_copy(update={"lookup": way})})
    network = generator(config=config)
    found = network.pose.lookup(toy_body.body(torch.zeros(2, 4, 3)))
    rays = network.cast(found, portrait_label(), PORTRAIT_VIEW, 16)
    points, _, _ = network.sample_rays(portrait_label(), PORTRAIT_VIEW, 16)
    torch.testing.assert_close(rays.points, points, atol=3e-6, rtol=0)


def test_a_face_camera_that_follows_a_rigid_body_sees_no_change():
    # All joints move alike: the whole world turns, and with it the camera. (Directions turn too, so the radiance's
    # view-dependence is left out.)
    network = generator()
    with torch.no_grad():
        network.radiance.view_layer.weight[:, :3] = 0
    codes, label = latents(1), view_label(FACE_VIEW, torch.tensor([0.2]), torch.tensor([0.1]))
    still = toy_body.body(torch.zeros(1, 4, 3))
    turn = toy_body.joint_transforms(toy_body.random_angles(1))[:, :1].expand(-1, 4, -1, -1)
    turned = still.vertices @ turn[:, 0, :3, :3].transpose(1, 2) + turn[:, None, 0, :3, 3]
    moved = type(still)(turned, still.weights, turn, still.head)
    before = network(codes, still, label, FACE_VIEW, 16).image
    after = network(codes, moved, follow(label, moved.head_transform), FACE_VIEW, 16).image
    assert before.std() > 0.01
    torch.testing.assert_close(after, before, atol=2e-3, rtol=0)


def test_jitter_moves_the_samples_along_their_rays():
    # In the public code the jittered samples are computed and dropped.
    network = generator()
    plain, directions, depths = network.sample_rays(portrait_label(), PORTRAIT_VIEW, 8)
    moved, _, moved_depths = network.sample_rays(
        portrait_label(), PORTRAIT_VIEW, 8, jitter=torch.Generator().manual_seed(0)
    )
    step = (PORTRAIT_VIEW.far - PORTRAIT_VIEW.near) / (TINY.manifolds.samples - 1)
    shift = moved_depths - depths
    assert step * 0.3 < shift.abs().max() <= step / 2 + 1e-6
    torch.testing.assert_close(shift, shift[..., :1].expand_as(shift), atol=1e-6, rtol=0)
    torch.testing.assert_close(moved - plain, directions.unsqueeze(3) * shift.unsqueeze(-1), atol=1e-6, rtol=0)


def test_a_margin_continues_the_grid_of_pixels():
    network = generator()
    inner = network.sample_rays(portrait_label(), PORTRAIT_VIEW, 8)
    outer = network.sample_rays(portrait_label(), PORTRAIT_VIEW, 8, margin=1)
    for a, b in zip(inner, outer):
        torch.testing.assert_close(b[:, 1:-1, 1:-1], a, atol=1e-6, rtol=1e-6)


class Kept:
    """Counts the bytes that autograd keeps for the backward pass, now and at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __enter__(self) -> Kept:
        kept = self

        class Packed:
            def __init__(self, tensor: Tensor):
                self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
                kept.now += self.size
                kept.most = max(kept.most, kept.now)

            def __del__(self) -> None:
                kept.now -= self.size

        self.hooks = torch.autograd.graph.saved_tensors_hooks(Packed, lambda packed: packed.tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)


def test_bands_give_the_gradients_of_the_whole_picture_with_less_memory():
    body, codes = toy_body.body(toy_body.random_angles(2)), latents()
    gradient = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    results, memory = [], []
    for rows in (16, 5):
        network = generator()
        with Kept() as kept:
            styles = network.styles(codes)
            rays = network.cast(network.pose.lookup(body), portrait_label(), PORTRAIT_VIEW, 16)
            if rows == 16:
                network.shade(rays, styles, PORTRAIT_VIEW.far).image.backward(gradient)
            else:
                backward_in_bands(network, rays, styles, PORTRAIT_VIEW.far, gradient, rows)
        memory.append(kept.most)
        results.append({name: p.grad for name, p in network.named_parameters()})
    whole, banded = results
    for name, expected in whole.items():
        scale = float(expected.abs().max())
        assert scale > 0, name
        torch.testing.assert_close(
            banded[name], expected, rtol=1e-3, atol=1e-4 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert memory[1] < 0.6 * memory[0]


def test_shading_in_bands_is_shading():
    network = generator()
    rays = network.cast(
        network.pose.lookup(toy_body.body(toy_body.random_angles(2))), portrait_label(), PORTRAIT_VIEW, 16
    )
    styles = network.styles(latents())

    def shade(part: Rays):
        return network.shade(part, styles, PORTRAIT_VIEW.far)

    for got, want in zip(shade_in_bands(shade, rays, 7)[:3], shade(rays)[:3]):
        torch.testing.assert_close(got, want.detach(), atol=1e-6, rtol=1e-5)


def test_large_pictures_agree_with_plain_ones_where_enlargement_is_plain():
    # With U replaced by bilinear enlargement, a large picture is a smooth version of the atlas picture, which in
    # turn must look like the one without atlases (radiance without view-dependence).
    config = TINY.model_copy(
        update={
            "atlas": TINY.atlas.model_copy(update={"resolution": 64}),
            "manifolds": TINY.manifolds.model_copy(update={"samples": 32}),
        }
    )
    network = generator(upsample=True, config=config)
    with torch.no_grad():
        network.radiance.view_layer.weight[:, :3] = 0
        for layer in network.radiance.layers:  # low frequencies, that 64 texels can hold
            layer.weight.mul_(0.1)
        network.expression.last.weight.zero_()
        codes, body = latents(), toy_body.body(torch.zeros(2, 4, 3))
        label = view_label(PORTRAIT_VIEW, torch.zeros(2), torch.zeros(2))
        styles = network.styles(codes)
        atlases = network.atlases(styles)
        large = torch.nn.functional.interpolate(atlases[:, :, :4].flatten(0, 1), scale_factor=4, mode="bilinear")
        rays = network.cast(network.pose.lookup(body), label, PORTRAIT_VIEW, 16, margin=1)
        out = network.shade_atlases(rays, styles, atlases, large.unflatten(0, (2, -1)), PORTRAIT_VIEW.far)
        plain = network(codes, body, label, PORTRAIT_VIEW, 16)
    assert out.image.shape == (2, 3, 64, 64)
    assert plain.image.std() > 0.05
    assert (out.coarse - plain.image).abs().mean() < 0.02
    shrunk = torch.nn.functional.avg_pool2d(out.image, 4)
    assert (shrunk - plain.image).abs().mean() < 0.02


def test_resized_crossings_continue_a_plane_exactly_up_to_the_border():
    line = torch.arange(6.0)
    y, x = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([x, y, x + 2 * y], dim=-1).reshape(1, 36, 1, 3)
    surface = _resize_surface(make_surface(points), 6, 6, 4)
    centres = (torch.arange(16) + 0.5) / 4 + 0.5
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    expected = torch.stack([x, y, x + 2 * y], dim=-1).reshape(1, 256, 1, 3)
    torch.testing.assert_close(surface.points, expected)
    torch.testing.assert_close(surface.valid, torch.ones(1, 256, 1))


def test_missing_crossings_do_not_pull_their_neighbours():
    points = torch.full((1, 36, 1, 3), 0.5)
    valid = torch.ones(1, 36, 1)
    valid[:, ::2] = 0
    points[valid == 0] = 1e6
    surface = _resize_surface(make_surface(points, valid), 6, 6, 4)
    seen = surface.valid > 0
    torch.testing.assert_close(surface.points[seen], torch.full_like(surface.points[seen], 0.5))
    assert 0 < surface.valid.mean() < 1


def make_surface(points: Tensor, valid: Tensor | None = None):
    valid = torch.ones_like(points[..., 0]) if valid is None else valid
    return Surface(points, torch.ones_like(valid), valid)


def test_every_network_gets_gradients():
    network = generator(upsample=True)
    body, codes = toy_body.body(toy_body.random_angles(2)), latents()
    image = network(codes, body, portrait_label(), PORTRAIT_VIEW, 16).image
    image.square().mean().backward()
    for part in (network.manifolds, network.radiance, network.pose, network.expression):
        reached = [p.grad is not None and bool(p.grad.abs().max() > 0) for p in part.parameters()]
        assert all(reached)
    network.zero_grad(set_to_none=True)
    large = network.render_large(codes, body, portrait_label(), PORTRAIT_VIEW, 64)
    assert large.image.shape == (2, 3, 64, 64)
    assert large.coarse.shape == (2, 3, 16, 16)
    large.image.square().mean().backward()
    for part in (network.upsampler, network.manifolds, network.pose, network.expression, network.radiance.mapping):
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())


def test_truncation_pulls_appearance_but_not_expression():
    network = generator(upsample=True)
    styles, mean = network.styles(latents()), network.mean_styles(latents(50, seed=1))
    same, centre = styles.truncated(mean, 1.0), styles.truncated(mean, 0.0)
    torch.testing.assert_close(same.radiance.phase, styles.radiance.phase)
    torch.testing.assert_close(centre.radiance.phase, mean.radiance.phase.expand(2, -1, -1))
    torch.testing.assert_close(centre.atlas, mean.atlas.expand(2, -1))
    assert centre.expression is styles.expression


def test_expression_and_noise_reach_only_their_networks():
    network = generator()
    codes, other = latents(), latents(seed=9)
    mixed = Latents(codes.identity, codes.shape, other.expression, codes.pose, codes.noise)
    a, b = network.styles(codes), network.styles(mixed)
    assert torch.equal(a.radiance.phase, b.radiance.phase)
    assert not torch.equal(a.expression.phase, b.expression.phase)


def test_the_same_codes_give_the_same_picture():
    body = toy_body.body(toy_body.random_angles(2))
    pictures = [generator()(latents(), body, portrait_label(), PORTRAIT_VIEW, 16).image for _ in range(2)]
    assert torch.equal(*pictures)


def test_enlarging_without_the_network_is_refused():
    network = generator()
    with pytest.raises(ValueError, match="upsample=True"):
        network.render_large(latents(), toy_body.body(torch.zeros(2, 4, 3)), portrait_label(), PORTRAIT_VIEW, 64)
    with pytest.raises(ValueError, match="multiple of 8"):
        generator(True).render_large(
            latents(), toy_body.body(torch.zeros(2, 4, 3)), portrait_label(), PORTRAIT_VIEW, 60
        )
