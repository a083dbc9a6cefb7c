"""The split discriminator and its momentum copy."""

import pytest
import torch

from models.giraffe import GiraffeConfig
from models.giraffe_discriminator import Discriminator, MomentumEncoder
from models.losses.contrastive import info_nce


def small() -> GiraffeConfig:
    return GiraffeConfig(resolution=32, feature_resolution=8, discriminator_channels=16, projection=8)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_body_and_head_have_the_public_size():
    with torch.device("meta"):
        network = Discriminator(GiraffeConfig())
    assert parameters(network.body) + parameters(network.cnn) == 2_802_432
    assert parameters(network.conv) == 512 * 16 * 128
    assert [conv.out_channels for conv in network.body.convs] == [16, 32, 64, 128, 256, 512]


@pytest.mark.parametrize("resolution", [64, 128, 256])
def test_every_resolution_ends_in_four_by_four(resolution):
    network = Discriminator(GiraffeConfig(resolution=resolution, discriminator_channels=64))
    image = torch.zeros(2, 3, resolution, resolution)
    features = network.encode(image)
    assert features.shape == (2, 64, 4, 4)
    assert network.head(features).shape == (2,)
    assert network.project(features).shape == (2, 128)
    torch.testing.assert_close(network(image), network.head(features))


def test_black_is_zero_inside():
    """Without biases the public network maps the black picture, 0 in [0, 1], to the logit 0."""
    network = Discriminator(small())
    assert network(-torch.ones(1, 3, 32, 32)).item() == 0
    assert network(torch.ones(1, 3, 32, 32)).item() != 0


def test_keys_carry_no_gradient_and_queries_reach_picture_and_body():
    torch.manual_seed(0)
    network = Discriminator(small())
    momentum = MomentumEncoder(network)
    image = torch.randn(4, 3, 32, 32).requires_grad_()
    keys = momentum.keys(image, network)
    assert not keys.requires_grad
    info_nce(network.queries(image), keys, torch.randn(6, 8)).backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.body.parameters())
    assert network.conv.weight.grad.abs().max() > 0
    assert network.cnn.weight.grad is None
    assert all(p.grad is None for p in momentum.parameters())


def test_momentum_encoder_starts_equal_and_follows():
    torch.manual_seed(0)
    network = Discriminator(small())
    momentum = MomentumEncoder(network)
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(momentum.keys(image, network), network.queries(image).detach())
    start = [p.clone() for p in momentum.parameters()]
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1)
    momentum.follow(network, 0.75)
    for before, after in zip(start, momentum.parameters()):
        torch.testing.assert_close(after, before + 0.25)
    assert not torch.equal(momentum.keys(image, network), network.queries(image))


def test_too_few_channels_are_named():
    with pytest.raises(ValueError, match="halved"):
        Discriminator(GiraffeConfig(resolution=256, discriminator_channels=16))
