"""The split discriminator and its momentum copy."""

import pytest
import torch

from models.giraffe import GiraffeConfig
from models.giraffe_discriminator import Contrast, Discriminator
from models.losses.contrastive import info_nce


def small() -> GiraffeConfig:
    return GiraffeConfig(resolution=32, feature_resolution=8, discriminator_channels=16, projection=8)


def pair() -> tuple[Discriminator, Contrast]:
    torch.manual_seed(0)
    network = Discriminator(small())
    return network, Contrast(small(), network, queue=16)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_body_and_head_have_the_public_size():
    with torch.device("meta"):
        network = Discriminator(GiraffeConfig())
        contrast = Contrast(GiraffeConfig(), network)
    assert parameters(network) == 2_802_432
    assert parameters(contrast.conv) == 512 * 16 * 128
    assert parameters(contrast.body) == parameters(network) - 512 * 16
    assert contrast.queue.keys.shape == (4096, 128)
    assert [conv.out_channels for conv in network.body.convs] == [16, 32, 64, 128, 256, 512]


@pytest.mark.parametrize("resolution", [64, 128, 256])
def test_every_resolution_ends_in_four_by_four(resolution):
    config = GiraffeConfig(resolution=resolution, discriminator_channels=64)
    network = Discriminator(config)
    image = torch.zeros(2, 3, resolution, resolution)
    features = network.encode(image)
    assert features.shape == (2, 64, 4, 4)
    assert network.head(features).shape == (2,)
    assert Contrast(config, network).project(features).shape == (2, 128)
    torch.testing.assert_close(network(image), network.head(features))


def test_black_is_zero_inside():
    """Without biases the public network maps the black picture, 0 in [0, 1], to the logit 0."""
    network = Discriminator(small())
    assert network(-torch.ones(1, 3, 32, 32)).item() == 0
    assert network(torch.ones(1, 3, 32, 32)).item() != 0


def test_keys_carry_no_gradient_and_queries_reach_picture_and_body():
    network, contrast = pair()
    image = torch.randn(4, 3, 32, 32).requires_grad_()
    keys = contrast.keys(image)
    assert not keys.requires_grad
    info_nce(contrast.queries(image, network), keys, torch.randn(6, 8)).backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.body.parameters())
    assert contrast.conv.weight.grad.abs().max() > 0
    assert network.cnn.weight.grad is None
    assert all(p.grad is None for p in contrast.body.parameters())


def test_momentum_encoder_starts_equal_and_follows():
    network, contrast = pair()
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(contrast.keys(image), contrast.queries(image, network).detach())
    start = [p.clone() for p in contrast.body.parameters()]
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1)
    contrast.follow(network, 0.75)
    for before, after in zip(start, contrast.body.parameters()):
        torch.testing.assert_close(after, before + 0.25)
    assert not torch.equal(contrast.keys(image), contrast.queries(image, network))


def test_too_few_channels_are_named():
    with pytest.raises(ValueError, match="halved"):
        Discriminator(GiraffeConfig(resolution=256, discriminator_channels=16))
