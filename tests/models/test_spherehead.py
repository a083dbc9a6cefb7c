"""The head generators: parameter counts of the published networks, variants, determinism, and gradients everywhere."""

import pytest
import torch

from models import camera
from models.discriminators import Discriminator, Shown
from models.mapping import MappingConfig
from models.spherehead import HeadConfig, HeadGenerator

SMOKE = {
    "resolution": 64,
    "neural_resolution": 16,
    "mapping": MappingConfig(z_size=32, w_size=32),
    "plane_resolution": 32,
    "plane_channels": 8,
    "channel_base": 512,
    "channel_max": 32,
    "backbone_channels": 32,
    "head_channels": 16,
    "decoder_channels": 16,
    "parsing_classes": 5,
    "superresolution_channels": (16, 8),
    "render": {"coarse": 8, "fine": 8},
}
VARIANTS = ("eg3d", "panohead", "single_sphere", "dual_sphere", "spherehead")


def smoke(variant: str, **changes: object) -> HeadConfig:
    return HeadConfig(variant=variant, **{**SMOKE, **changes})


def labels(*degrees: float) -> torch.Tensor:
    azimuth = torch.tensor(degrees).deg2rad()
    return camera.pack_label(camera.pose_on_sphere(azimuth, 0 * azimuth), camera.intrinsics())


def count(module: torch.nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0


# --- published parameter counts ---------------------------------------------------------------------------------------

PARTS = ("mapping", "backbone", "heads", "background", "superresolution", "to_raw", "decoder", "camera", "to_parsing")
PUBLISHED = {
    ("eg3d", False): (30_662_136, (800_768, 28_207_533, 0, 0, 1_649_578, 0, 4_257, 0, 0)),
    ("panohead", False): (53_741_548, (800_768, 28_774_125, 0, 22_494_667, 1_649_578, 16_515, 4_257, 1_638, 0)),
    ("spherehead", False): (54_713_868, (800_768, 29_435_149, 311_296, 22_494_667, 1_649_578, 16_515, 4_257, 1_638, 0)),
    ("spherehead", True): (
        54_730_944,
        (800_768, 29_435_149, 311_296, 22_494_667, 1_649_578, 16_515, 4_257, 1_638, 17_076),
    ),
}


@pytest.mark.parametrize(("variant", "parsing"), PUBLISHED, ids=lambda v: str(v))
def test_generators_have_the_published_number_of_parameters(variant, parsing):
    total, parts = PUBLISHED[variant, parsing]
    with torch.device("meta"):
        net = HeadGenerator(HeadConfig(variant=variant, parsing=parsing))
    assert tuple(count(getattr(net, part)) for part in PARTS) == parts
    assert count(net) == total


@pytest.mark.parametrize(
    ("config", "total"),
    [
        (HeadConfig(variant="eg3d"), 31_359_744),
        (HeadConfig(variant="panohead"), 31_359_808),
        (HeadConfig(parsing_classes=1), 31_359_872),
        (HeadConfig(parsing_classes=19), 31_361_024),
        (HeadConfig(parsing_classes=20), 31_361_088),
    ],
)
def test_discriminators_have_the_published_number_of_parameters(config, total):
    with torch.device("meta"):
        net = Discriminator(config.discriminator())
    assert count(net) == total
    assert (count(net.mapping), count(net.conv) + count(net.dense) + count(net.out)) == (2_114_560, 6_821_888)


# --- behaviour --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_renders_and_every_parameter_learns(variant):
    torch.manual_seed(0)
    config = smoke(variant)
    net = HeadGenerator(config)
    with torch.no_grad():  # layers that start at zero hide the gradients of what is before them
        for module in net.modules():
            if hasattr(module, "noise_strength"):
                module.noise_strength.fill_(0.1)
        if net.camera is not None:
            net.camera.layers[-1].weight.fill_(0.01)
    out = net(torch.randn(2, 32), labels(0, 140))
    assert out.image.shape == (2, 3, 64, 64)
    assert out.raw.shape == (2, 3, 16, 16)
    assert out.depth.shape == (2, 1, 16, 16)
    assert ((out.depth >= 2.25) & (out.depth <= 3.3)).all()
    assert (out.mask is not None) == (variant != "eg3d")
    assert (out.parsing is not None) == (variant == "spherehead")
    if out.mask is not None:
        assert ((out.mask >= -0.001) & (out.mask <= 1.001)).all()
    if out.parsing is not None:
        torch.testing.assert_close(out.parsing.sum(1), torch.ones(2, 16, 16))
    critic = Discriminator(config.discriminator(precision="float32", mapping_layers=1))
    logits = critic(Shown(out.image, out.raw, out.mask, out.parsing), labels(0, 140))
    loss = torch.nn.functional.softplus(-logits).mean()
    if out.offset is not None:
        loss = loss + out.offset.square().mean()
    loss.backward()
    learned = {n: p.grad for n, p in net.named_parameters() if p.requires_grad}
    assert [n for n, grad in learned.items() if grad is None or not torch.isfinite(grad).all()] == []
    assert [n for n, grad in learned.items() if grad.abs().sum() == 0] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_fast_and_plain_forms_agree_end_to_end(variant):
    torch.manual_seed(0)
    net = HeadGenerator(smoke(variant)).eval()
    z = torch.randn(2, 32)
    with torch.no_grad():
        fast = net(z, labels(30, -120), noise="const")
        plain = net(z, labels(30, -120), noise="const", fast=False)
        parts = net(z, labels(30, -120), noise="const", chunk=100)
    for name in ("image", "raw", "depth", "mask", "parsing"):
        a, b, c = (getattr(o, name) for o in (fast, plain, parts))
        if a is not None:
            torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)
            torch.testing.assert_close(a, c, atol=2e-4, rtol=1e-3)


def test_same_seed_same_picture():
    pictures = []
    for _ in range(2):
        torch.manual_seed(5)
        net = HeadGenerator(smoke("spherehead"))
        pictures.append(net(torch.randn(2, 32), labels(0, 90)).image)
    assert torch.equal(*pictures)


def test_cached_planes_render_the_same_head_from_many_cameras():
    torch.manual_seed(0)
    net = HeadGenerator(smoke("spherehead")).eval()
    views = labels(0, 120, 240)
    with torch.no_grad():
        ws = net.mapping(torch.randn(1, 32), labels(0))
        planes = net.planes(ws, "const")
        together = net.synthesise(ws.repeat(3, 1, 1), views, noise="const", planes=planes)
        for i in range(3):
            alone = net.synthesise(ws, views[i : i + 1], noise="const")
            torch.testing.assert_close(together.image[i : i + 1], alone.image, atol=1e-4, rtol=1e-3)


def test_folded_sphere_heads_equal_two_convolutions_on_the_backbone():
    torch.manual_seed(0)
    net = HeadGenerator(smoke("dual_sphere"))
    ws = torch.randn(2, net.w_count, 32)
    plain = net.planes(ws, "none", fast=False)
    torch.testing.assert_close(net.planes(ws, "none"), plain, atol=1e-4, rtol=1e-4)
    # Weights of variance one: planes keep the variance of the backbone.
    assert plain.var().item() == pytest.approx(net.backbone(ws, noise="none").var().item(), rel=0.5)


def test_spheres_alone_differ_from_the_fused_head():
    torch.manual_seed(0)
    net = HeadGenerator(smoke("spherehead")).eval()
    ws = net.mapping(torch.randn(1, 32), labels(0))
    with torch.no_grad():
        raw = {s: net.synthesise(ws, labels(60), noise="none", sphere=s).raw for s in ("fused", "a", "b")}
    assert (raw["a"] - raw["b"]).abs().max() > 1e-3
    assert (raw["a"] - raw["fused"]).abs().max() > 1e-3


def test_camera_offset_starts_at_the_label_and_moves_only_the_translation():
    torch.manual_seed(0)
    net = HeadGenerator(smoke("panohead"))
    label = labels(0, 45)
    z = torch.randn(2, 32)
    same, shift = net.adapt_camera(z, label)
    torch.testing.assert_close(same, label)
    with torch.no_grad():
        net.camera.layers[-1].weight.normal_()
    moved, shift = net.adapt_camera(z, label)
    torch.testing.assert_close((moved - label)[:, [3, 7, 11]], shift)
    rest = [i for i in range(25) if i not in (3, 7, 11)]
    assert torch.equal(moved[:, rest], label[:, rest])
    assert net(z, label).offset is not None
    assert HeadGenerator(smoke("panohead", camera_offset=False))(z, label).offset is None


def test_other_background_changes_the_background_alone():
    torch.manual_seed(0)
    net = HeadGenerator(smoke("panohead")).eval()
    z, label = torch.randn(1, 32), labels(0)
    with torch.no_grad():
        one = net(z, label, noise="none")
        other = net(z, label, noise="none", background=torch.randn(1, 32))
    torch.testing.assert_close(one.mask, other.mask)
    change = (other.feature - one.feature) / (1 - (one.mask + 0.001) / 1.002)
    assert change.abs().max() > 1e-2


def test_conditioning_may_differ_from_the_camera():
    torch.manual_seed(0)
    net = HeadGenerator(smoke("eg3d")).eval()
    z = torch.randn(2, 32)
    with torch.no_grad():
        swapped = net(z, labels(0, 90), conditioning=labels(90, 0), noise="none").image
        straight = net(z, labels(0, 90), noise="none").image
        ws = net.mapping(z, labels(90, 0))
        torch.testing.assert_close(swapped, net.synthesise(ws, labels(0, 90), noise="none").image)
    assert (swapped - straight).abs().max() > 1e-4


def test_parsing_needs_a_foreground_and_can_be_added_to_any_that_has_one():
    with pytest.raises(ValueError, match="no parsing"):
        HeadGenerator(smoke("eg3d", parsing=True))
    assert HeadGenerator(smoke("panohead", parsing=True)).to_parsing is not None
    assert smoke("panohead", parsing=True).discriminator().image_channels == 7 + 5
    assert smoke("spherehead", parsing=False).discriminator().image_channels == 7


@pytest.mark.parametrize("resolution", [64, 128, 256])
def test_small_pictures_double_once_from_half_their_size(resolution):
    config = smoke("eg3d", resolution=resolution).superresolution
    assert (config.doublings, config.input_resolution) == (1, resolution // 2)
    assert HeadConfig().superresolution.input_resolution == 128


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("variant", VARIANTS)
def test_cuda_agrees_with_the_processor(variant):
    torch.manual_seed(0)
    net = HeadGenerator(smoke(variant, superresolution_precision="float32")).eval()
    z = torch.randn(2, 32)
    with torch.no_grad():
        here = net(z, labels(0, 140), noise="const")
        there = net.cuda()(z.cuda(), labels(0, 140).cuda(), noise="const")
    torch.testing.assert_close(there.image.cpu(), here.image, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(there.depth.cpu(), here.depth, atol=1e-3, rtol=1e-3)
