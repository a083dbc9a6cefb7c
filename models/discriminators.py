"""StyleGAN2's residual discriminator with projection conditioning, and the stack of pictures EG3D's heirs show it.

EG3D shows the final picture and the rendered one side by side in channels; PanoHead adds the foreground mask,
SphereHead (section 3, figure 3) the parsing. What is shown is resized to the final resolution.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models import fir
from models.config import Config
from models.mapping import Mapping, MappingConfig
from models.stylegan import EqualConv2d, EqualLinear, Precision, working_dtype


class DiscriminatorConfig(Config):
    """Sizes of a discriminator."""

    resolution: int = 512
    image_channels: int = 6  # EG3D: picture and rendered picture
    label_size: int = 25  # 0: unconditional
    channel_base: int = 32768  # StyleGAN2: channels(r) = min(base / r, max)
    channel_max: int = 512
    mapping_layers: int = 8  # StyleGAN2
    group: int = 4  # samples per minibatch standard deviation
    precision: Precision = "float16"  # of the `half_blocks` largest resolutions
    half_blocks: int = 4  # EG3D's d_num_fp16_res
    clamp: float = 256.0  # in effect in float16 only

    def channels(self, resolution: int) -> int:
        """Feature channels at ``resolution``."""
        return max(1, min(self.channel_base // resolution, self.channel_max))


class Shown(NamedTuple):
    """What a discriminator is shown; all optional parts must match what it was built for.

    image: (N, 3, H, H) in [-1, 1]. raw: (N, 3, h, h) the rendered picture, or the real one shrunk to h. mask:
    (N, 1, h, h) in [0, 1]. parsing: (N, classes, h, h) probabilities, one-hot for real pictures.
    """

    image: Tensor
    raw: Tensor | None = None
    mask: Tensor | None = None
    parsing: Tensor | None = None

    def stack(self) -> Tensor:
        """(N, C, H, H): all parts at the size of the picture; the mask is brought to [-1, 1] like the pictures."""
        size = self.image.shape[-1]
        mask = None if self.mask is None else self.mask * 2 - 1
        parts = [self.image, *(fir.resize(part, size) for part in (self.raw, mask, self.parsing) if part is not None)]
        return torch.cat(parts, dim=1)


class _Block(nn.Module):
    """Residual block that halves the size; the first one of the network also reads the picture."""

    def __init__(self, inputs: int, outputs: int, image_channels: int, precision: Precision, clamp: float):
        super().__init__()
        self.precision = precision
        bound = clamp if precision == "float16" else None
        self.from_image = EqualConv2d(image_channels, inputs, 1, clamp=bound) if image_channels else None
        self.conv0 = EqualConv2d(inputs, inputs, 3, clamp=bound)
        self.conv1 = EqualConv2d(inputs, outputs, 3, down=True, clamp=bound)
        self.skip = EqualConv2d(inputs, outputs, 1, bias=False, linear=True, down=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, H), or the picture, to (N, outputs, H/2, H/2)."""
        dtype = working_dtype(self.precision, self.conv0.weight)
        memory = torch.channels_last if dtype.itemsize == 2 else torch.contiguous_format
        x = x.to(dtype=dtype, memory_format=memory)
        if self.from_image is not None:
            x = self.from_image(x)
        short = self.skip(x, gain=math.sqrt(0.5))
        return short + self.conv1(self.conv0(x), gain=math.sqrt(0.5))


def minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """Append to (N, C, H, W) one channel with the mean standard deviation over groups of samples.

    The group is the largest divisor of N that does not exceed ``group``.
    """
    n, _, h, w = x.shape
    size = max(divisor for divisor in range(1, min(group, n) + 1) if n % divisor == 0)
    grouped = x.reshape(size, n // size, *x.shape[1:])
    deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return torch.cat([x, deviation.repeat(size).view(n, 1, 1, 1).expand(n, 1, h, w)], dim=1)


class Discriminator(nn.Module):
    """Pictures and labels to realness.

    Raises:
        ValueError: in the forward pass, if the picture's channels or size are not those it was built for.
    """

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        levels = config.resolution.bit_length() - 1
        if config.resolution != 2**levels or levels < 3:
            raise ValueError(f"a discriminator's resolution is a power of two of at least 8, not {config.resolution}")
        sides = [2**i for i in range(levels, 2, -1)]
        self.blocks = nn.Sequential(
            *(
                _Block(
                    config.channels(side),
                    config.channels(side // 2),
                    config.image_channels if n == 0 else 0,
                    config.precision if n < config.half_blocks else "float32",
                    config.clamp,
                )
                for n, side in enumerate(sides)
            )
        )
        width = config.channels(4)
        self.conv = EqualConv2d(width + 1, width, 3)
        self.dense = EqualLinear(width * 16, width, linear=False)
        self.out = EqualLinear(width, width if config.label_size else 1)
        self.mapping = (
            Mapping(
                MappingConfig(z_size=0, w_size=width, layers=config.mapping_layers),
                config.label_size,
                keep_average=False,
            )
            if config.label_size
            else None
        )

    def forward(self, shown: Tensor | Shown, label: Tensor | None = None) -> Tensor:
        """(N, C, H, W) pictures in [-1, 1], or their parts, and (N, label_size) labels to (N,) logits."""
        return self.decide(self.look(shown), label)

    def look(self, shown: Tensor | Shown) -> Tensor:
        """What the pictures hold, (N, features), whatever label they come with: nearly all of the work."""
        x = shown.stack() if isinstance(shown, Shown) else shown
        expected = (self.config.image_channels, self.config.resolution, self.config.resolution)
        if x.shape[1:] != expected:
            raise ValueError(f"this discriminator was built for pictures {expected}, not {tuple(x.shape[1:])}")
        x = self.blocks(x).to(self.out.weight.dtype)
        x = self.conv(minibatch_deviation(x, self.config.group))
        return self.out(self.dense(x.flatten(1)))

    def decide(self, seen: Tensor, label: Tensor | None = None) -> Tensor:
        """(N, features) of :meth:`look` and (N, label_size) labels to (N,) logits."""
        if self.mapping is None:
            return seen.squeeze(1)
        return (seen * self.mapping(None, label)).sum(dim=1) / math.sqrt(seen.shape[1])
