"""IR-SE-50: the residual network with squeeze-and-excitation that face recognition uses (ArcFace, Deng et al. 2019).

InvertAvatar's encoders take their first layers from it (appendix A.3). Names of parameters are ours.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from models.config import Config


class BodyConfig(Config):
    """Sizes of the body: four stages, each halving the side with its first unit."""

    widths: tuple[int, int, int, int, int] = (64, 64, 128, 256, 512)  # IR-SE-50: stem, then the four stages
    units: tuple[int, int, int, int] = (3, 4, 14, 3)
    squeeze: int = 16  # channels a number of the squeezed vector


class BodyFeatures(NamedTuple):
    """Of a picture with side S: S/2, S/4, S/8, the first unit at S/16, and the last one at S/16."""

    half: Tensor
    quarter: Tensor
    eighth: Tensor
    first_sixteenth: Tensor
    sixteenth: Tensor


class _Squeeze(nn.Module):
    """Scale channels by what their means say."""

    def __init__(self, channels: int, ratio: int):
        super().__init__()
        inner = max(1, channels // ratio)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class _Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, ratio: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            _Squeeze(outputs, ratio),
        )
        self.short: nn.Module = (
            nn.MaxPool2d(1, stride)
            if inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.short(x) + self.residual(x)


class Body(nn.Module):
    """A picture (N, inputs, S, S) to :class:`BodyFeatures`; S is a multiple of 16."""

    def __init__(self, config: BodyConfig, inputs: int = 3):
        super().__init__()
        self.config = config
        stem = config.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(inputs, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem), nn.PReLU(stem)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(_Unit(a if n == 0 else b, b, 2 if n == 0 else 1, config.squeeze) for n in range(units))
            for a, b, units in zip(config.widths, config.widths[1:], config.units)
        )

    def forward(self, x: Tensor) -> BodyFeatures:
        """See the class."""
        if x.shape[-1] % 16 or x.shape[-2] % 16:
            raise ValueError(f"the side of an encoder's picture is a multiple of 16, not {tuple(x.shape[-2:])}")
        x = self.stem(x)
        out: list[Tensor] = []
        first = x
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleList)
            for n, unit in enumerate(stage):
                x = unit(x)
                first = x if n == 0 else first
            out.append(x)
        return BodyFeatures(out[0], out[1], out[2], first, out[3])
