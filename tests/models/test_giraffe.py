"""GIRAFFE's generator: published sizes, fast path against plain path, geometry of views, determinism."""

import math

import pytest
import torch
from pydantic import ValidationError

from models import camera
from models.giraffe import (
    FieldConfig,
    Generator,
    GiraffeConfig,
    Noise,
    encode,
    rotation_about_y,
    turn_object,
    view_label,
)
from models.render.neural import NeuralRenderer, enlarge_rgb, enlarging_matrix


def small(**changes) -> GiraffeConfig:
    values = {
        "resolution": 32,
        "feature_resolution": 8,
        "feature_channels": 16,
        "min_channels": 4,
        "z_dim": 8,
        "z_dim_background": 6,
        "object_field": FieldConfig(hidden=16),
        "background_field": FieldConfig(hidden=12, blocks=4, skips=(), divisor=12.0),
        "samples": 32,
        "discriminator_channels": 32,
        "projection": 8,
    }
    return GiraffeConfig(**{**values, **changes})


def scene(config: GiraffeConfig, n: int = 3, seed: int = 0, dense: bool = True):
    """A generator and one set of inputs; ``dense`` gives the untrained fields a density worth rendering."""
    torch.manual_seed(seed)
    network = Generator(config)
    if dense:
        with torch.no_grad():
            for field in (network.object_field, network.background_field):
                field.density.weight *= 10
    random = torch.Generator().manual_seed(seed)
    return network, network.sample_latents(n, random), network.sample_view(n, random), network.sample_noise(n, random)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_are_the_public_codes():
    with torch.device("meta"):
        network = Generator(GiraffeConfig())
    assert parameters(network) == 748_497
    assert parameters(network.object_field) == 282_753
    assert parameters(network.background_field) == 55_361
    assert parameters(network.renderer) == 410_383


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"object_field": FieldConfig(hidden=16, skips=(2, 4, 5))},
        {"box_scale": (0.05, 0.4), "box_translation": ((-0.1, 0.1), (-0.1, 0.1), (-0.1, 0.1))},
        {"box_scale": (1e-5, 1e-5), "box_translation": ((0.5, 0.5), (0, 0), (0, 0))},  # no sample hits the object
        {"resolution": 16, "feature_resolution": 8},
    ],
)
def test_fast_path_equals_plain_path_with_gradients(noisy, changes):
    network, latents, view, noise = scene(small(**changes))
    latents = type(latents)(*(z.requires_grad_() for z in latents))
    view = view._replace(translation=view.translation.clone().requires_grad_())
    wanted = [*network.parameters(), *latents, view.translation]
    target = torch.randn(3, 3, *[network.config.resolution] * 2, generator=torch.Generator().manual_seed(9))
    images, gradients = [], []
    for render in (network, network.reference):
        image = render(latents, view, noise if noisy else None)
        images.append(image)
        gradients.append(torch.autograd.grad((image * target).mean(), wanted, materialize_grads=True))
    assert images[1].std() > 0.01
    torch.testing.assert_close(images[0], images[1], rtol=0, atol=1e-5)
    for fast, plain in zip(*gradients):
        scale = plain.abs().amax().clamp_min(1e-3)
        torch.testing.assert_close(fast / scale, plain / scale, rtol=0, atol=1e-3)
    cosine = torch.nn.functional.cosine_similarity(
        *(torch.cat([g.flatten() for g in side]) for side in gradients), dim=0
    )
    assert cosine > 0.99999


def test_fast_path_equals_plain_path_at_the_papers_size():
    network, latents, view, noise = scene(GiraffeConfig(), n=1)
    with torch.no_grad():
        fast, plain = network(latents, view, noise), network.reference(latents, view, noise)
    assert fast.shape == (1, 3, 256, 256)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)


def test_derivatives_by_the_codes_match_finite_differences():
    config = small(resolution=16, feature_resolution=4, samples=4, object_field=FieldConfig(hidden=6, point_octaves=2))
    network, latents, view, _ = scene(config, n=1)
    network, view = network.double(), type(view)(*(x.double() for x in view))

    def picture(shape: torch.Tensor, appearance: torch.Tensor) -> torch.Tensor:
        codes = latents._replace(
            shape=shape,
            appearance=appearance,
            background_shape=latents.background_shape.double(),
            background_appearance=latents.background_appearance.double(),
        )
        return network.renderer(network.feature_image(codes, view, None))[..., ::5, ::5]

    codes = (latents.shape.double().requires_grad_(), latents.appearance.double().requires_grad_())
    assert torch.autograd.gradcheck(picture, codes, eps=1e-5, atol=1e-4)


def test_pictures_are_a_function_of_their_inputs():
    network, latents, view, noise = scene(small())
    torch.manual_seed(1)
    first = network(latents, view, noise)
    torch.manual_seed(2)
    assert torch.equal(network(latents, view, noise), first)
    assert first.shape == (3, 3, 32, 32)
    assert first.abs().max() <= 1
    assert not torch.equal(network(latents, view), first)


def test_draws_depend_on_the_generator_alone():
    network = Generator(small())
    for draw in (network.sample_latents, network.sample_view, network.sample_noise):
        a, b = (draw(3, torch.Generator().manual_seed(5)) for _ in range(2))
        other = draw(3, torch.Generator().manual_seed(6))
        assert all(torch.equal(x, y) for x, y in zip(a, b))
        assert not torch.equal(a[0], other[0])


def test_scenes_of_a_batch_do_not_mix():
    network, latents, view, noise = scene(small())
    whole = network(latents, view, noise)
    for i in range(3):
        one = network(
            type(latents)(*(z[i : i + 1] for z in latents)),
            type(view)(*(v[i : i + 1] for v in view)),
            Noise(noise.jitter[i : i + 1], noise.density[:, i : i + 1]),
        )
        torch.testing.assert_close(one[0], whole[i], rtol=0, atol=2e-6)


def test_views_cover_the_published_range():
    config = GiraffeConfig()
    network = Generator(small())
    view = network.sample_view(4000, torch.Generator().manual_seed(0))
    azimuth, elevation, radius = camera.spherical_angles(view.camera[:, :16].unflatten(1, (4, 4)))
    torch.testing.assert_close(azimuth, torch.zeros(4000), atol=1e-5, rtol=0)  # the camera stays in front
    torch.testing.assert_close(radius, torch.full((4000,), 2.732), atol=1e-5, rtol=0)
    seen_from = view.rotation.transpose(1, 2) @ view.camera[:, [3, 7, 11], None]  # the camera in the object's axes
    turn = torch.rad2deg(torch.atan2(seen_from[:, 0, 0], seen_from[:, 2, 0]))
    # The public numbers: rotation within [0.375, 0.625] of a turn, cos of the polar angle within 1 - 2 [0.4167, 0.5].
    assert -45 <= turn.min() < -44.5
    assert 44.5 < turn.max() <= 45
    assert turn.std().item() == pytest.approx(90 / math.sqrt(12), rel=0.03)
    height = elevation.sin()
    assert height.min() >= 0
    assert height.max().item() == pytest.approx(1 - 2 * 0.4167, abs=1e-3)
    assert height.mean().item() == pytest.approx((1 - 2 * 0.4167) / 2, rel=0.03)
    assert (view.scale == 0.21).all()
    focal = 0.5 / math.tan(math.radians(config.fov) / 2)
    torch.testing.assert_close(view.camera[:, 16], torch.full((4000,), focal))


def test_a_label_and_the_turned_object_show_the_same_box():
    """A corner of the box projects to the same pixel, whether the camera walks round or the object turns."""
    config = GiraffeConfig()
    azimuth = torch.linspace(-3, 3, 9, dtype=torch.float64)
    label = view_label(config, azimuth, torch.linspace(-0.5, 0.5, 9, dtype=torch.float64))
    view = turn_object(config, label)
    corners = torch.randn(9, 20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.2
    turned = corners @ view.rotation.transpose(1, 2)
    for expected, got in zip(camera.project(label, corners), camera.project(view.camera, turned)):
        torch.testing.assert_close(got, expected)
    camera.check_label(view.camera)


def test_the_left_of_the_face_is_seen_from_positive_azimuth():
    """The object's +x side comes nearer to the camera; the same answer as the project's camera gives."""
    view = turn_object(GiraffeConfig(), view_label(GiraffeConfig(), torch.tensor([math.radians(40.0)])))
    left = view.rotation[0] @ torch.tensor([1.0, 0.0, 0.0])
    assert left[2] > 0.5


def test_frontal_view_leaves_the_object_as_it_is():
    view = turn_object(GiraffeConfig(), view_label(GiraffeConfig(), torch.zeros(2)))
    torch.testing.assert_close(view.rotation, torch.eye(3).expand(2, 3, 3))
    _, elevation, _ = camera.spherical_angles(view.camera[:, :16].unflatten(1, (4, 4)))
    torch.testing.assert_close(elevation.sin(), torch.full((2,), 0.1666 / 2), atol=1e-4, rtol=0)


def test_background_stays_and_object_turns_with_the_azimuth():
    network, latents, _, _ = scene(small())
    labels = [view_label(network.config, torch.full((3,), a)) for a in (0.0, 0.7)]
    one, other = (network.samples(turn_object(network.config, label), None) for label in labels)
    torch.testing.assert_close(one.world_points, other.world_points, atol=1e-5, rtol=0)
    assert (one.object_points - other.object_points).abs().amax() > 0.5
    turn = rotation_about_y(torch.tensor(0.7))
    torch.testing.assert_close(other.object_points, one.object_points @ turn.T, atol=1e-4, rtol=0)
    assert (network(latents, labels[0]) - network(latents, labels[1])).abs().amax() > 1e-3


def test_view_and_label_are_the_same_request():
    network, latents, _, _ = scene(small())
    label = view_label(network.config, torch.tensor([0.3, -0.2, 0.0]))
    assert torch.equal(network(latents, label), network(latents, turn_object(network.config, label)))


def test_samples_outside_the_box_are_not_asked_of_the_object():
    network, latents, view, _ = scene(small())
    asked = []
    network.object_field.entry.register_forward_pre_hook(lambda *_: asked.append("plain"))
    trunk = network.object_field.trunk
    network.object_field.trunk = lambda points, style: (asked.append(points), trunk(points, style))[1]
    network(latents, view)
    (points,) = asked
    assert points.abs().max() <= 1.1
    assert 0 < len(points) < 0.15 * 3 * 64 * 32


def test_jitter_keeps_samples_in_their_strata():
    network, _, view, noise = scene(small())
    plain, jittered = network.samples(view, None).depth, network.samples(view, noise).depth
    assert (jittered.diff(dim=-1) >= 0).all()
    half = (plain[..., 1] - plain[..., 0]).max() / 2
    assert (jittered - plain).abs().max() <= half + 1e-5
    assert plain.min() == 0.5
    assert plain.max() == 6.0
    assert not torch.equal(plain, jittered)


def test_encoding_doubles_its_frequency_each_octave():
    x = torch.rand(5, 3, dtype=torch.float64)
    code = encode(x, 4)
    assert code.shape == (5, 24)
    sines, cosines = code[:, :12].unflatten(1, (3, 4)), code[:, 12:].unflatten(1, (3, 4))
    torch.testing.assert_close(sines[..., 0], torch.sin(math.pi * x))
    torch.testing.assert_close(sines[..., 1:], 2 * sines[..., :-1] * cosines[..., :-1])
    torch.testing.assert_close(sines.square() + cosines.square(), torch.ones(5, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize(("side", "resolution"), [(4, 8), (4, 32), (16, 64)])
def test_neural_renderer_equals_its_plain_form(side, resolution):
    torch.manual_seed(0)
    network = NeuralRenderer(12, side, resolution, 4).double()
    features = torch.randn(2, 12, side, side, dtype=torch.float64)
    torch.testing.assert_close(network(features), network.reference(features))
    assert network(features).shape == (2, 3, resolution, resolution)


def test_enlarging_matrix_enlarges_and_keeps_constants():
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    matrix = enlarging_matrix(8).double()
    torch.testing.assert_close(matrix @ image @ matrix.T, enlarge_rgb(image), atol=1e-6, rtol=0)
    torch.testing.assert_close(matrix.sum(1), torch.ones(16, dtype=torch.float64), atol=1e-6, rtol=0)


def test_half_precision_stays_close():
    network, latents, view, noise = scene(small())
    exact = network(latents, view, noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(latents, view, noise)
    assert torch.isfinite(rough).all()
    assert (rough.float() - exact).abs().mean() < 0.02


def test_half_precision_does_not_move_the_points():
    network, _, _, noise = scene(small())
    label = view_label(network.config, torch.tensor([0.3, -0.2, 0.0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network.samples(label, noise)
    for got, expected in zip(rough, network.samples(label, noise)):
        assert torch.equal(got, expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_device_makes_no_difference():
    network, latents, view, noise = scene(small())
    expected = network(latents, view, noise)
    network = network.cuda()
    moved = [type(x)(*(y.cuda() for y in x)) for x in (latents, view, noise)]
    torch.testing.assert_close(network(*moved).cpu(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 24}, "doubled"),
        ({"resolution": 8}, "doubled"),
        ({"resolution": 48, "feature_resolution": 12}, "power of two"),
        ({"near": 7.0}, "not nearer"),
        ({"azimuth": (45.0, -45.0)}, "azimuth runs"),
        ({"box_translation": ((0.0, 0.0),)}, "three ranges"),
        ({"fov": 0.0}, "fov"),
        ({"z_dims": 3}, "z_dims"),
    ],
)
def test_impossible_numbers_are_named(changes, message):
    with pytest.raises(ValidationError, match=message):
        small(**changes)
