"""Two small U-Nets that name each pixel of a head's crop: hair, skin, eyes … 19 classes.

One sees the whole crop. Eyes, brows and glasses are a few pixels there, so the other, smaller one looks at the face
alone, from nearer, and says which part of the face is which.

Four pixels become one at the door and one becomes four at the exit, so the work happens at half the resolution while
the answer is as fine as the picture. Its weights come out of this pipeline itself: it learns on the studio's exact
truth.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Config


class ParserConfig(Config):
    """Size of the network. All unpublished: our choice; BiSeNet, the papers' first parser, sees 512 pixels."""

    side: int = Field(default=128, ge=16, multiple_of=16, description="of the crops it sees, pixels")
    channels: tuple[int, int, int, int] = (16, 32, 64, 96)
    face_side: int = Field(default=64, ge=16, multiple_of=16, description="of the look at the face, pixels")
    face_channels: tuple[int, int, int, int] = (12, 24, 32, 48)
    face_share: float = Field(default=0.5, gt=0, le=1, description="side of the look at the face by the crop's")
    classes: int = Field(default=19, ge=2)  # CelebAMask-HQ


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (before, after):
        layers += [nn.Conv2d(width, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


class Parser(nn.Module):
    """See the module: ``crop`` and ``face`` are the two networks."""

    def __init__(self, config: ParserConfig) -> None:
        super().__init__()
        self.config = config
        self.crop = UNet(config.channels, config.classes)
        self.face = UNet(config.face_channels, config.classes)


class UNet(nn.Module):
    """A U-Net that works at half the resolution of its pictures."""

    def __init__(self, channels: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        first, *others = channels
        self.door = _block(12, first)
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(channels, others))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in zip(channels, others))
        self.out = nn.Conv2d(first, 4 * classes, 1)

    def forward(self, crop: Tensor) -> Tensor:
        """Logits of the classes.

        Args:
            crop: (N, 3, side, side) in [-1, 1], the side a multiple of 16.

        Returns:
            (N, classes, side, side).
        """
        # Neighbouring channels in memory: a quarter faster on the CPU.
        levels = [self.door(F.pixel_unshuffle(crop, 2).contiguous(memory_format=torch.channels_last))]
        for block in self.down:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for block in reversed(self.up):
            skip = levels.pop()
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([skip, x], dim=1))
        # The four pixels of a cell are four channels that know nothing of each other: the mean joins them, and there
        # is no comb along borders.
        return F.avg_pool2d(F.pixel_shuffle(self.out(x), 2), 3, stride=1, padding=1, count_include_pad=False)
