"""StyleGAN2's parts: modulation against a per-sample convolution, equal learning rates, truncation, projection."""

import math

import pytest
import torch
import torch.nn.functional as F

from models import fir
from models.mapping import Mapping, MappingConfig
from models.stylegan import (
    EqualConv2d,
    EqualLinear,
    StyledConv,
    Synthesis,
    SynthesisBlock,
    SynthesisConfig,
    modulated_conv,
)

SMALL = SynthesisConfig(resolution=16, channel_base=128, channel_max=8)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution_equals_a_convolution_per_sample(up, demodulate):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    weight, style = torch.randn(5, 4, 3, 3, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    out = modulated_conv(x, weight, style, up=up, demodulate=demodulate, fused=False)
    for i in range(3):
        w = weight * style[i].view(1, -1, 1, 1)
        if demodulate:
            w = w / (w.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            stuffed = x.new_zeros(1, 4, 12, 12)
            stuffed[..., ::2, ::2] = x[i]
            # Zeros between pixels, then a true convolution: the kernel of a correlation is turned round.
            expected = fir.low_pass(F.conv2d(F.pad(stuffed, (2, 1, 2, 1)), w.flip(2, 3)), padding=1, gain=4.0)
        else:
            expected = F.conv2d(x[i : i + 1], w, padding=1)
        fused = modulated_conv(x[i : i + 1], weight, style[i : i + 1], up=up, demodulate=demodulate, fused=True)
        torch.testing.assert_close(fused, out[i : i + 1])
        torch.testing.assert_close(out[i : i + 1], expected[..., : out.shape[-2], : out.shape[-1]])


def test_fusing_a_batch_is_refused():
    with pytest.raises(ValueError, match="one sample"):
        modulated_conv(torch.ones(2, 1, 4, 4), torch.ones(1, 1, 3, 3), torch.ones(2, 1), False, True, fused=True)


def test_half_precision_normalisation_does_not_change_the_result():
    torch.manual_seed(0)
    x, weight, style = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 3, 3), torch.randn(2, 4) * 3
    full = modulated_conv(x, weight, style, up=False, demodulate=True, fused=False)
    half = modulated_conv(x.half(), weight, style, up=False, demodulate=True, fused=False)
    torch.testing.assert_close(half.float(), full, atol=2e-2, rtol=2e-2)
    huge = modulated_conv(x.half(), weight * 1e6, style, up=False, demodulate=True, fused=False)
    torch.testing.assert_close(huge.float(), full, atol=2e-2, rtol=2e-2)


def test_inference_of_one_picture_equals_training_form():
    torch.manual_seed(0)
    layer = StyledConv(4, 6, 8, 8, up=True)
    with torch.no_grad():
        layer.noise_strength.fill_(0.3)
    x, w = torch.randn(1, 4, 4, 4), torch.randn(1, 8)
    trained = layer(x, w, noise="const")
    layer.eval()
    with torch.no_grad():
        torch.testing.assert_close(layer(x, w, noise="const"), trained)


@pytest.mark.parametrize("count", [1, 3])
def test_inference_gives_the_numbers_of_training_and_leaves_its_input(count):
    torch.manual_seed(4)
    block = SynthesisBlock(4, 6, 3, 8, 16).eval()
    for layer in (block.conv0, block.conv1):
        torch.nn.init.normal_(layer.bias)
        torch.nn.init.constant_(layer.noise_strength, 0.3)
    torch.nn.init.normal_(block.to_image.bias)
    inputs = torch.randn(count, 4, 8, 8), torch.randn(count, 3, 8, 8)
    kept, styles = [x.clone() for x in inputs], [torch.randn(count, 8) for _ in range(3)]
    learned = block(*inputs, styles, noise="const")
    with torch.no_grad():
        shown = block(*inputs, styles, noise="const")
    torch.testing.assert_close(shown, learned)
    assert all(map(torch.equal, inputs, kept))


def test_layers_keep_the_variance():
    torch.manual_seed(0)
    x = torch.randn(256, 512)
    assert abs(EqualLinear(512, 256, lr_multiplier=0.01)(x).var().item() - 1) < 0.1
    y = EqualConv2d(64, 64, 3, linear=True)(torch.randn(2, 64, 16, 16))[..., 1:-1, 1:-1]
    assert abs(y.var().item() - 1) < 0.15
    z = StyledConv(64, 64, 8, 16)(torch.randn(4, 64, 16, 16), torch.randn(4, 8), noise="none")
    assert abs(z[..., 1:-1, 1:-1].square().mean().item() - 1) < 0.2


def test_learning_rate_multiplier_scales_the_step_in_output():
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    steps = []
    for multiplier in (1.0, 0.01):
        torch.manual_seed(1)
        layer = EqualLinear(8, 8, lr_multiplier=multiplier)
        before = layer(x)
        optimiser = torch.optim.Adam(layer.parameters(), lr=1e-3, betas=(0.0, 0.99))
        before.sum().backward()
        optimiser.step()
        steps.append((layer(x) - before).norm().item())
    assert steps[1] == pytest.approx(0.01 * steps[0], rel=1e-2)


def test_mapping_ignores_the_scale_of_the_latent_and_truncates_towards_its_average():
    torch.manual_seed(0)
    mapping = Mapping(MappingConfig(z_size=16, w_size=8), label_size=25, w_count=5)
    z, c = torch.randn(6, 16), torch.randn(6, 25)
    torch.testing.assert_close(mapping(z * 3, c), mapping(z, c), atol=1e-5, rtol=1e-4)
    for _ in range(1500):
        mapping(z, c, update_average=True)
    w = mapping(z, c)
    torch.testing.assert_close(mapping.average, w[:, 0].mean(0), atol=8e-2, rtol=0)
    torch.testing.assert_close(mapping(z, c, truncation=0.0), mapping.average.expand(6, 5, 8))
    half = mapping(z, c, truncation=0.5, truncation_cutoff=2)
    torch.testing.assert_close(half[:, 2:], w[:, 2:])
    torch.testing.assert_close(half[:, :2], (w[:, :2] + mapping.average) / 2)


def test_mapping_says_what_it_lacks():
    mapping = Mapping(MappingConfig(z_size=4, w_size=4), label_size=25, keep_average=False)
    with pytest.raises(ValueError, match="label"):
        mapping(torch.randn(1, 4), None)
    with pytest.raises(ValueError, match="average"):
        mapping(torch.randn(1, 4), torch.randn(1, 25), truncation=0.5)
    with pytest.raises(ValueError, match="latent or a label"):
        Mapping(MappingConfig(z_size=0), label_size=0)


def test_synthesis_uses_each_style_and_projects_as_after_the_fact():
    torch.manual_seed(0)
    net = Synthesis(SMALL, image_channels=7, w_size=8)
    assert net.w_count == 2 * int(math.log2(16)) - 2
    ws = torch.randn(2, net.w_count, 8, requires_grad=True)
    picture = net(ws, noise="none")
    assert picture.shape == (2, 7, 16, 16)
    (grad,) = torch.autograd.grad(picture.square().sum(), ws)
    assert (grad.abs().sum(dim=(0, 2)) > 0).all()
    matrix = torch.randn(3, 7)
    torch.testing.assert_close(
        net(ws, noise="none", project=matrix), torch.einsum("pc,nchw->nphw", matrix, picture), atol=1e-4, rtol=1e-4
    )


def test_noise_is_random_constant_or_none():
    torch.manual_seed(0)
    net = Synthesis(SMALL, image_channels=3, w_size=8)
    ws = torch.randn(1, net.w_count, 8)
    torch.testing.assert_close(net(ws, noise="random"), net(ws, noise="none"))  # strengths start at zero
    with torch.no_grad():
        for block in net.blocks:
            block.conv1.noise_strength.fill_(0.5)
    assert not torch.equal(net(ws, noise="random"), net(ws, noise="random"))
    torch.testing.assert_close(net(ws, noise="const"), net(ws, noise="const"))
    assert not torch.equal(net(ws, noise="const"), net(ws, noise="none"))


def test_bfloat16_blocks_stay_near_full_precision():
    torch.manual_seed(0)
    full = Synthesis(SMALL, image_channels=3, w_size=8)
    half = Synthesis(SMALL.model_copy(update={"precision": "bfloat16", "half_blocks": 2}), image_channels=3, w_size=8)
    half.load_state_dict(full.state_dict())
    ws = torch.randn(2, full.w_count, 8)
    a, b = full(ws, noise="none"), half(ws, noise="none")
    assert b.dtype == torch.float32
    assert 0 < (a - b).norm() / a.norm() < 0.02


def test_a_resolution_that_is_no_power_of_two_is_refused():
    with pytest.raises(ValueError, match="power of two"):
        Synthesis(SynthesisConfig(resolution=48), image_channels=3, w_size=8)
    net = Synthesis(SMALL, image_channels=3, w_size=8)
    with pytest.raises(ValueError, match="styles"):
        net(torch.randn(1, 2, 8))
