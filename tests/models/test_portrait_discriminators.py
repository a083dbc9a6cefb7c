"""The discriminators: GRAM's parameter count, sizes, coordinates, second-order gradients."""

import pytest
import torch

from models.portrait_discriminators import (
    CoordConv,
    CoordDiscriminator,
    DiscriminatorConfig,
    PortraitDiscriminators,
)

TINY = DiscriminatorConfig(channels=16, budget=128)


def test_parameters_of_gram_at_256():
    with torch.device("meta"):
        network = CoordDiscriminator(DiscriminatorConfig(angles=2), 256, 256)
    assert sum(p.numel() for p in network.parameters()) == 12_391_827  # microsoft/GRAM 5a5ac8e, FFHQ_default


def test_each_discriminator_sees_its_own_view():
    networks = PortraitDiscriminators(TINY, portrait=32, face=16)
    views = networks.views(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 16, 16))
    assert {name: tuple(view.shape[2:]) for name, view in views.items()} == {
        "whole": (32, 32),
        "torso": (8, 32),
        "face": (16, 16),
    }
    for name, view in views.items():
        assert networks[name](view).shape == (2,)


def test_angles_come_beside_the_logit():
    network = CoordDiscriminator(TINY.model_copy(update={"angles": 2}), 8, 8)
    verdict = network.judge(torch.rand(3, 3, 8, 8))
    assert verdict.logit.shape == (3,)
    assert verdict.angles.shape == (3, 2)


def test_convolutions_know_where_they_look():
    torch.manual_seed(0)
    layer = CoordConv(1, 4, 1)
    y = layer(torch.zeros(1, 1, 5, 9)).detach()
    weight = layer.weight[:, :, 0, 0].detach()
    for row, column, v, u in ((0, 0, -1, -1), (4, 8, 1, 1), (2, 4, 0, 0), (0, 8, -1, 1)):
        expected = u * weight[:, 1] + v * weight[:, 2] + layer.bias.detach()
        torch.testing.assert_close(y[0, :, row, column], expected)


def test_the_initial_network_neither_dims_nor_blows_up():
    torch.manual_seed(0)
    network = CoordDiscriminator(DiscriminatorConfig(channels=64, budget=2048), 64, 64)
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    deep = network.blocks(torch.nn.functional.leaky_relu(network.first(x), 0.2))
    assert 0.1 < float(deep.detach().std()) < 10


def test_the_gradient_penalty_reaches_every_weight():
    torch.manual_seed(0)
    network = CoordDiscriminator(TINY, 8, 32)
    image = torch.rand(2, 3, 8, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(image).sum(), image, create_graph=True)
    gradient.square().sum().backward()
    weights = {name: p for name, p in network.named_parameters() if name.endswith("weight")}
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in weights.values())


@pytest.mark.parametrize(("height", "width"), [(48, 48), (2, 8), (32, 16)])
def test_sizes_it_cannot_halve_are_refused(height, width):
    with pytest.raises(ValueError, match="powers of two"):
        CoordDiscriminator(TINY, height, width)


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(8, 8\), not \(16, 16\)"):
        CoordDiscriminator(TINY, 8, 8)(torch.zeros(1, 3, 16, 16))
