"""FiLM-SIREN: sine layers whose frequencies and phases come from a latent code (pi-GAN, Section 3.2; GRAM).

A layer computes ``sin(f * (W x + b) + p)``; a mapping network turns a latent code into one frequency and one phase
for each channel of each layer. The initialisations are the published ones: they keep the input of every sine at a
standard deviation near one, without which such networks do not train.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

HEAD_FREQUENCY = 25.0  # microsoft/GRAM: weights in U(+-sqrt(6 / n) / 25)
_FREQUENCY_SCALE, _FREQUENCY_SHIFT = 15.0, 30.0  # microsoft/GRAM: frequency = 15 * network + 30
_LAST_GAIN = 0.25  # microsoft/GRAM: the last layer of the mapping starts at a quarter of its usual size
_SLOPE = 0.2


class Film(NamedTuple):
    """What a mapping network asks of a stack of FiLM layers.

    Attributes:
        frequency: (N, L, C), about 30 at the start.
        phase: (N, L, C), radians.
    """

    frequency: Tensor
    phase: Tensor

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """(N, C) frequency and phase of one layer."""
        return self.frequency[:, index], self.phase[:, index]

    def towards(self, mean: Film, psi: float) -> Film:
        """Truncation: ``mean + psi * (self - mean)``. 1 leaves the codes alone, 0 gives the mean."""
        return Film(mean.frequency.lerp(self.frequency, psi), mean.phase.lerp(self.phase, psi))

    def mean(self) -> Film:
        """(1, L, C) averages over the batch, the centre of truncation."""
        return Film(self.frequency.mean(0, keepdim=True), self.phase.mean(0, keepdim=True))


@torch.no_grad()
def sine_init(layer: nn.Linear, frequency: float = HEAD_FREQUENCY) -> None:
    """Weights of a layer behind a sine: U(+-sqrt(6 / n) / frequency) with n inputs. The bias stays as it is."""
    bound = math.sqrt(6 / layer.in_features) / frequency
    layer.weight.uniform_(-bound, bound)


class FilmLayer(nn.Linear):
    """``sin(f * (W x + b) + p)``.

    Args:
        inputs: channels in.
        outputs: channels out.
        first: whether the layer reads coordinates; then its weights start in U(+-1 / n), SIREN's Section 3.2.
    """

    def __init__(self, inputs: int, outputs: int, first: bool = False):
        super().__init__(inputs, outputs)
        if first:
            nn.init.uniform_(self.weight, -1 / inputs, 1 / inputs)
        else:
            sine_init(self)

    def forward(self, x: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:  # type: ignore[override]
        """(N, P, inputs) points with (N, outputs) frequencies and phases to (N, P, outputs) in [-1, 1].

        The points' precision is that of the product and of the answer.
        """
        # Frequency and phase go into the weights, of which there are few, and not over the points, of which there are
        # many: one product, and nothing to multiply afterwards, there and back.
        weight = frequency.unsqueeze(-1) * self.weight
        shift = torch.addcmul(phase, frequency, self.bias)
        angle = torch.baddbmm(shift.unsqueeze(1).to(x.dtype), x, weight.transpose(1, 2).to(x.dtype))
        return angle.sin() if angle.requires_grad else angle.sin_()


class Mapping(nn.Module):
    """A latent code through three hidden layers of leaky ReLU (GRAM, AniPortraitGAN Figure 10).

    Args:
        latent: size of the code.
        hidden: width of the hidden layers.
        outputs: size of the answer.
        last_gain: factor on the last layer's initial weights.
    """

    def __init__(self, latent: int, hidden: int, outputs: int, last_gain: float = 1.0):
        super().__init__()
        self.latent = latent
        layers: list[nn.Module] = []
        for inputs in (latent, hidden, hidden):
            layers += [nn.Linear(inputs, hidden), nn.LeakyReLU(_SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, outputs))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
        with torch.no_grad():
            self.layers[-1].weight.mul_(last_gain)  # type: ignore[operator]

    def forward(self, z: Tensor) -> Tensor:
        """(N, latent) to (N, outputs).

        Raises:
            ValueError: if the code has another size.
        """
        if z.shape[-1] != self.latent:
            raise ValueError(f"the mapping network reads codes of {self.latent} values, not {z.shape[-1]}")
        return self.layers(z)


class FilmMapping(Mapping):
    """The mapping network of a stack of FiLM layers.

    Args:
        latent: size of the code.
        hidden: width of the hidden layers.
        layers: number of FiLM layers served.
        width: channels of each.
    """

    def __init__(self, latent: int, hidden: int, layers: int, width: int):
        super().__init__(latent, hidden, 2 * layers * width, _LAST_GAIN)
        self.shape = (2, layers, width)

    def forward(self, z: Tensor) -> Film:  # type: ignore[override]
        """(N, latent) codes to the frequencies and phases of all layers."""
        frequency, phase = super().forward(z).unflatten(-1, self.shape).unbind(1)
        return Film(frequency * _FREQUENCY_SCALE + _FREQUENCY_SHIFT, phase)
