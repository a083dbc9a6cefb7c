"""The decoder: the block-wise form against the plain one."""

import pytest
import torch

from models import decoder
from models.decoder import Decoder


@pytest.mark.parametrize("margin", [None, 0.001])
@pytest.mark.parametrize("inputs_learn", [False, True])
def test_blocks_give_the_values_and_gradients_of_the_plain_form(margin, inputs_learn, monkeypatch):
    monkeypatch.setitem(decoder._BLOCK, "cpu", 16)  # 2 x 25 rows: three full blocks and a rest
    torch.manual_seed(0)
    net = Decoder(4, 7, 5, margin).double()
    x = torch.randn(2, 25, 4, dtype=torch.float64, requires_grad=inputs_learn)
    learned = [*net.parameters(), *([x] if inputs_learn else [])]
    weight = torch.randn(2, 25, 5, dtype=torch.float64)
    results = []
    for fast in (False, True):
        colour, density = net(x, fast)
        results.append((colour, density, *torch.autograd.grad((colour * weight).sum() + density.sin().sum(), learned)))
    for plain, fast in zip(*results):
        torch.testing.assert_close(fast, plain)


def test_a_margin_bounds_the_colours_and_nothing_bounds_linear_ones():
    torch.manual_seed(0)
    x = 100 * torch.randn(1, 200, 4)
    colour, density = Decoder(4, 8, 3, margin=0.001)(x)
    assert colour.min() >= -0.001
    assert colour.max() <= 1.001
    assert colour.max() > 1
    assert density.shape == (1, 200)
    assert Decoder(4, 8, 3, margin=None)(x)[0].abs().max() > 2
