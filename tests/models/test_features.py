"""MobileNetV2 against values of an independent implementation, and the perceptual distance made of it."""

import numpy as np
import pytest
import torch

from models.features import MobileNetV2, perceptual_distance
from ops.evaluate.identity import read_tensors

# torchvision 0.28.0's mobilenet_v2 with these weights, on the picture of wave(), normalised as ImageNet: pooled
# features 0, 107, 214 ..., their sum and deviation, and mean and deviation of the maps after blocks 1, 3, 6, 13, 17.
REFERENCE = (0, 0, 0.331578, 0.132775, 0, 0, 0, 0, 0, 1.288696, 0, 0)
REFERENCE_SUM, REFERENCE_DEVIATION = 245.877914, 0.384968
MAPS = (
    ((16, 48), 0.02486, 1.294185),
    ((24, 24), -0.082988, 1.319481),
    ((32, 12), 0.09685, 1.262372),
    ((96, 6), 0.002514, 0.453752),
    ((320, 3), 0.005154, 0.137462),
)


@pytest.fixture(scope="module")
def state(weights):
    return read_tensors(weights / "mobilenet_v2-b0353104.pth")


@pytest.fixture(scope="module")
def network(state):
    return MobileNetV2.from_state(state)


def wave() -> torch.Tensor:
    i = torch.arange(3 * 96 * 96, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(i * 0.37) * torch.cos(i * 0.011)).float().view(1, 3, 96, 96)


@torch.no_grad()
def test_features_are_those_of_the_reference(network):
    features = network(wave())
    assert features.shape == (1, 1280)
    assert features[0, ::107].tolist() == pytest.approx(REFERENCE, abs=2e-4)
    assert features.sum().item() == pytest.approx(REFERENCE_SUM, rel=1e-4)
    assert features.std().item() == pytest.approx(REFERENCE_DEVIATION, rel=1e-4)
    for made, ((channels, side), mean, deviation) in zip(network.maps(wave()), MAPS):
        assert made.shape == (1, channels, side, side)
        assert made.mean().item() == pytest.approx(mean, abs=1e-4)
        assert made.std().item() == pytest.approx(deviation, rel=1e-4)


def test_perceptual_distance_is_a_distance_of_looks(network, astronaut):
    picture = torch.from_numpy(astronaut[::4, ::4].copy()).permute(2, 0, 1)[None] / 255
    shifted = picture.roll(1, dims=3)
    noisy = (picture + 0.2 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    same, near, far = (perceptual_distance(network, picture, other).item() for other in (picture, shifted, noisy))
    assert same == 0
    assert 0 < near < far
    assert perceptual_distance(network, noisy, picture).item() == pytest.approx(far, rel=1e-5)


def test_gradients_reach_the_picture(network):
    picture = wave().requires_grad_()
    (slope,) = torch.autograd.grad(perceptual_distance(network, picture, wave().flip(3)).sum(), picture)
    assert slope.isfinite().all()
    assert slope.abs().max() > 0


def test_other_weights_are_refused(state):
    with pytest.raises(ValueError, match="51 convolutions, not 52"):
        MobileNetV2.from_state({k: v for k, v in state.items() if k != "features.18.0.weight"})
    with pytest.raises(ValueError, match=r"features\.0\.1\.running_var is missing"):
        MobileNetV2.from_state({k: v for k, v in state.items() if k != "features.0.1.running_var"})
    with pytest.raises(ValueError, match=r"features\.0\.0\.weight has shape"):
        MobileNetV2.from_state({**state, "features.0.0.weight": torch.zeros(32, 1, 3, 3)})


def test_features_do_not_depend_on_the_batch(network):
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        alone = torch.cat([network(p[None]) for p in pictures])
        assert np.allclose(network(pictures), alone, atol=1e-5)
