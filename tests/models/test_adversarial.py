"""The adversarial losses: closed forms and the gradient penalty against its definition."""

import math

import pytest
import torch

from models.losses.adversarial import discriminator_loss, generator_loss, r1_penalty


def test_undecided_discriminator_costs_log_two_a_picture():
    zero = torch.zeros(5)
    assert generator_loss(zero).item() == pytest.approx(math.log(2))
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))


def test_losses_are_binary_cross_entropies():
    real, fake = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    expected = bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
    torch.testing.assert_close(discriminator_loss(real, fake), expected)
    torch.testing.assert_close(generator_loss(fake), bce(fake, torch.ones_like(fake)))


def test_losses_are_finite_and_push_at_extreme_logits():
    fake = torch.tensor([-200.0, 200.0], requires_grad=True)
    generator_loss(fake).backward()
    torch.testing.assert_close(fake.grad, torch.tensor([-0.5, 0.0]))  # no vanishing gradient where D is sure: "fake"


def test_r1_of_a_linear_discriminator_is_its_squared_weight():
    weight = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    penalty = r1_penalty((images * weight).sum((1, 2, 3)), images)
    torch.testing.assert_close(penalty, weight.square().sum())


def test_r1_of_several_inputs_adds_up():
    a, b = (torch.randn(5, 2, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(2))
    logits = (3 * a + 4 * b)[:, :1]
    torch.testing.assert_close(r1_penalty(logits, a, b), torch.tensor(25.0))


def test_r1_trains_the_discriminator():
    """Its derivative by the weights against finite differences, through the second derivative of the network."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    images = torch.randn(4, 3, dtype=torch.float64).requires_grad_()

    def penalty(weight: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(net, {"0.weight": weight}, images)
        return r1_penalty(logits, images)

    assert torch.autograd.gradcheck(penalty, net[0].weight.detach().clone().requires_grad_())


def test_r1_names_pictures_without_gradients():
    images = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="requires_grad_"):
        r1_penalty(images.sum(1), images)
    with pytest.raises(ValueError, match="requires_grad_"):
        r1_penalty(images.sum(1))
