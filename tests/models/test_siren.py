"""FiLM-SIREN: the published initialisations, the gradient, truncation."""

import math

import pytest
import torch

from models.siren import FilmLayer, FilmMapping, Mapping, sine_init


def test_initial_weights_stay_within_the_published_bounds_and_fill_them():
    torch.manual_seed(0)
    first, inner = FilmLayer(3, 256, first=True), FilmLayer(256, 256)
    for layer, bound in ((first, 1 / 3), (inner, math.sqrt(6 / 256) / 25)):
        assert layer.weight.abs().max() <= bound
        assert layer.weight.abs().max() > 0.95 * bound
    head = torch.nn.Linear(256, 4)
    sine_init(head)
    assert head.weight.abs().max() <= math.sqrt(6 / 256) / 25


def test_the_arguments_of_deep_sines_keep_their_spread_at_the_start():
    torch.manual_seed(0)
    layers = [FilmLayer(3 if i == 0 else 128, 128, first=i == 0) for i in range(6)]
    x = torch.rand(1, 2000, 3) * 2 - 1
    frequency, phase = torch.full((1, 128), 30.0), torch.zeros(1, 128)
    spread = []
    for layer in layers:
        spread.append(float((30 * torch.nn.Linear.forward(layer, x)).detach().std()))
        x = layer(x, frequency, phase)
    # SIREN, Theorem 1.8: a normal argument of deviation near 1; 30 / 25 of it with GRAM's bound, and biases on top.
    assert all(0.8 < s < 2.5 for s in spread[1:])


def test_a_layer_is_the_sine_of_the_modulated_line():
    torch.manual_seed(0)
    layer = FilmLayer(3, 5)
    x, frequency, phase = torch.randn(2, 7, 3), torch.randn(2, 5), torch.randn(2, 5)
    expected = torch.sin(frequency[:, None] * (x @ layer.weight.T + layer.bias) + phase[:, None])
    torch.testing.assert_close(layer(x, frequency, phase), expected)


def test_gradients_agree_with_finite_differences():
    torch.manual_seed(0)
    layer = FilmLayer(3, 4).double()
    leaves = [torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in ((2, 3, 3), (2, 4), (2, 4))]
    assert torch.autograd.gradcheck(layer, leaves)


def test_codes_start_near_thirty_and_quarter_strength():
    torch.manual_seed(0)
    film = FilmMapping(16, 64, layers=3, width=32).requires_grad_(False)(torch.randn(500, 16))
    assert film.frequency.shape == film.phase.shape == (500, 3, 32)
    assert abs(float(film.frequency.mean()) - 30) < 2
    assert 0.1 < float(film.phase.std()) < 0.8
    assert float(film.frequency.std()) == pytest.approx(15 * float(film.phase.std()), rel=0.1)


def test_truncation_runs_from_the_mean_to_the_code():
    torch.manual_seed(0)
    film = FilmMapping(16, 64, layers=3, width=32)(torch.randn(8, 16))
    mean = film.mean()
    for value, expected in ((1.0, film), (0.0, mean)):
        for got, want in zip(film.towards(mean, value), expected):
            torch.testing.assert_close(got, want.expand_as(got))
    half = film.towards(mean, 0.5)
    torch.testing.assert_close(half.frequency, (film.frequency + mean.frequency) / 2)


def test_a_code_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match="16 values, not 17"):
        Mapping(16, 8, 4)(torch.zeros(1, 17))
