"""A small network that finds one head in a square picture, from whatever side it is seen.

It answers eight numbers for a window: whether there is a head, where its centre is, how large it is, and how it is
turned. Looked at again through the window that the last answer suggests, the answer sharpens (ops.perception.headpose).
Its weights come out of this pipeline itself: it learns on the studio's exact truth.
"""

from __future__ import annotations

import itertools

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Config

OUTPUTS = ("presence", "x", "y", "log_size", "sin_azimuth", "cos_azimuth", "elevation", "roll")


class HeadPoseConfig(Config):
    """Size of the network. All unpublished: our choice; WHENet's EfficientNet-B0 sees 224 pixels."""

    side: int = Field(default=64, ge=16, multiple_of=16, description="of the window it sees, pixels")
    channels: tuple[int, int, int] = (48, 96, 128)


def _half(before: int, after: int) -> nn.Sequential:
    """Half the side, other channels."""
    down = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(down, nn.BatchNorm2d(after), nn.ReLU())


class _Again(nn.Module):
    """Looks once more and adds what it sees."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.look(x)))


class HeadPose(nn.Module):
    """See the module. Patches of 4 pixels, convolutions down to 1/16 of the side, one linear layer over all places."""

    def __init__(self, config: HeadPoseConfig) -> None:
        super().__init__()
        self.config = config
        first = config.channels[0]
        door = nn.Conv2d(48, first, 3, padding=1, bias=False)
        levels: list[nn.Module] = [nn.PixelUnshuffle(4), door, nn.BatchNorm2d(first), nn.ReLU(), _Again(first)]
        for before, after in itertools.pairwise(config.channels):
            levels += [_half(before, after), _Again(after)]
        self.levels = nn.Sequential(*levels)
        cells = (config.side // 16) ** 2
        self.hidden = nn.Linear(config.channels[-1] * cells, 128)
        self.out = nn.Linear(128, len(OUTPUTS))

    def forward(self, window: Tensor) -> Tensor:
        """What is seen in windows.

        Args:
            window: (N, 3, side, side) in [-1, 1].

        Returns:
            (N, 8), in the order of OUTPUTS: logit of there being a head; its centre from the window's middle and the
            logarithm of its square's side, both in units of the window's side; sine and cosine of the azimuth
            (normalised); elevation of the camera and roll of the head in the window (clockwise), radians.
        """
        features = F.relu(self.hidden(self.levels(window).flatten(1)))
        presence, centre, size, turn, rest = self.out(features).split((1, 2, 1, 2, 2), dim=1)
        return torch.cat([presence, centre, size, F.normalize(turn, dim=1), rest], dim=1)
