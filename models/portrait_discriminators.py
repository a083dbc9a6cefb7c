"""The discriminators of AniPortraitGAN: D_whole and D_torso on the portrait, D_face on the face camera's picture.

The paper publishes none of them; it builds on GRAM, so these are GRAM's residual networks of coordinate convolutions
(CoordConv: each convolution is told where it looks), with its sizes.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Config
from models.portrait_cameras import torso

_SLOPE = 0.2


class DiscriminatorConfig(Config):
    """Sizes of one discriminator."""

    channels: int = 400  # microsoft/GRAM discriminators.py: at most
    budget: int = 8192  # microsoft/GRAM discriminators.py: channels at the picture's size = budget / side
    angles: int = 0  # 2 in microsoft/GRAM (it regresses azimuth and elevation); the paper's loss has no such term


class Verdict(NamedTuple):
    """(N,) logits, positive for "real", and (N, A) guesses of the camera's angles."""

    logit: Tensor
    angles: Tensor


class CoordConv(nn.Conv2d):
    """A convolution with two more input channels: x and y from -1 at one edge to 1 at the other.

    Weights start with He's normal distribution for leaky ReLUs. (The public code means to do so, but its test for
    the layer's type never matches a convolution, which leaves it PyTorch's smaller default.)
    """

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__(inputs + 2, outputs, kernel, padding=kernel // 2)
        nn.init.kaiming_normal_(self.weight, a=_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        height, width = x.shape[2:]
        column = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype).expand(len(x), 1, height, width)
        row = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)[:, None].expand(len(x), 1, height, width)
        return super().forward(torch.cat([x, column, row], dim=1))


class _Block(nn.Module):
    """Two coordinate convolutions beside a shortcut; half the size."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = CoordConv(inputs, outputs, 3)
        self.second = CoordConv(outputs, outputs, 3)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.second(F.leaky_relu(self.first(x), _SLOPE)), _SLOPE)
        return (F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))) / math.sqrt(2)


class CoordDiscriminator(nn.Module):
    """A residual CoordConv discriminator for pictures of one size.

    Args:
        config: sizes.
        height: rows, a power of two and at least 4.
        width: columns, ``height`` times a power of two.
        channels: of the pictures.

    Raises:
        ValueError: if the sizes are none of these.
    """

    def __init__(self, config: DiscriminatorConfig, height: int, width: int, channels: int = 3):
        super().__init__()
        if height < 4 or any(side & (side - 1) for side in (height, width)) or width < height:
            raise ValueError(
                f"a discriminator's picture has sides of powers of two, 4 <= height <= width; got {height} x {width}"
            )
        self.size = (height, width)
        count = height.bit_length() - 2  # halvings until 2 rows are left
        sizes = [min(config.channels, config.budget // width * 2**i) for i in range(count + 1)]
        self.first = nn.Conv2d(channels, sizes[0], 1)
        self.blocks = nn.Sequential(*(_Block(a, b) for a, b in pairwise(sizes)))
        self.last = nn.Conv2d(sizes[-1], 1 + config.angles, (2, 2 * width // height))

    def judge(self, image: Tensor) -> Verdict:
        """(N, C, height, width) pictures in [-1, 1] to logits and angles.

        Raises:
            ValueError: if the pictures have another size.
        """
        if tuple(image.shape[2:]) != self.size:
            raise ValueError(f"this discriminator judges pictures of {self.size}, not {tuple(image.shape[2:])}")
        x = self.last(self.blocks(F.leaky_relu(self.first(image), _SLOPE))).flatten(1)
        return Verdict(x[:, 0], x[:, 1:])

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, height, width) pictures in [-1, 1] to (N,) logits."""
        return self.judge(image).logit


class PortraitDiscriminators(nn.ModuleDict):
    """The three discriminators, by the names ``whole``, ``torso`` and ``face``.

    Args:
        config: sizes, the same for all.
        portrait: side of the portraits.
        face: side of the face pictures.
    """

    def __init__(self, config: DiscriminatorConfig, portrait: int, face: int):
        super().__init__(
            {
                "whole": CoordDiscriminator(config, portrait, portrait),
                "torso": CoordDiscriminator(config, portrait // 4, portrait),
                "face": CoordDiscriminator(config, face, face),
            }
        )

    def views(self, portrait: Tensor, face: Tensor) -> dict[str, Tensor]:
        """What each of the three looks at: (N, 3, R, R) portraits and (N, 3, r, r) faces by name."""
        return {"whole": portrait, "torso": torso(portrait), "face": face}
