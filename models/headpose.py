"""A small network that finds one head in a square picture, from whatever side it is seen.

It answers eight numbers for a window: whether there is a head, where its centre is, how large it is, and how it is
turned. Looked at again through the window that the last answer suggests, the answer sharpens (ops.perception.headpose).
It looks through the first layers of MobileNetV2, which have seen a million photos and stay as they are; what is above
them learns on the studio's exact truth.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Config
from models.features import MobileNetV2

OUTPUTS = ("presence", "x", "y", "log_size", "sin_azimuth", "cos_azimuth", "elevation", "roll")
STAGES, CHANNELS, STRIDE = 5, 96, 16  # of MobileNetV2, to where a pixel sees enough and places still count


class HeadPoseConfig(Config):
    """Size of the network. All unpublished: our choice; WHENet's EfficientNet-B0 sees 224 pixels."""

    side: int = Field(default=96, ge=32, multiple_of=16, description="of the window it sees, pixels")
    channels: int = Field(default=64, ge=1, description="of the layers that learn")
    hidden: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    trunk: Literal["mobilenetv2"] = "mobilenetv2"


class HeadPose(nn.Module):
    """See the module. ``trunk`` is frozen; ``centre`` and ``spread`` normalise what it sees, and are measured once."""

    centre: Tensor
    spread: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: HeadPoseConfig, trunk: MobileNetV2 | None = None) -> None:
        super().__init__()
        self.config = config
        whole = trunk
        if whole is None:  # to be filled from a checkpoint
            whole = MobileNetV2()
            for parameter in whole.parameters():
                nn.init.normal_(parameter, std=0.1)
        self.register_buffer("mean", whole.mean.clone(), persistent=False)
        self.register_buffer("deviation", whole.deviation.clone(), persistent=False)
        self.trunk = nn.Sequential(whole.first, *list(whole.stages)[:STAGES]).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(1, CHANNELS, 1, 1))
        self.register_buffer("spread", torch.ones(1, CHANNELS, 1, 1))
        width = config.channels
        self.look = nn.Sequential(
            nn.Conv2d(CHANNELS, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(config.dropout),
            nn.Linear(width * (config.side // STRIDE) ** 2, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, len(OUTPUTS)),
        )

    def features(self, window: Tensor) -> Tensor:
        """(N, 3, side, side) windows in [-1, 1] to (N, 96, side / 16, side / 16) of the frozen layers."""
        return self.trunk(((window + 1) / 2 - self.mean) / self.deviation)

    def answer(self, features: Tensor) -> Tensor:
        """What is seen in windows, from their features; see forward."""
        seen = self.look((features - self.centre) / self.spread)
        presence, centre, size, turn, rest = seen.split((1, 2, 1, 2, 2), dim=1)
        return torch.cat([presence, centre, size, F.normalize(turn, dim=1), rest], dim=1)

    def forward(self, window: Tensor) -> Tensor:
        """What is seen in windows.

        Args:
            window: (N, 3, side, side) in [-1, 1].

        Returns:
            (N, 8), in the order of OUTPUTS: logit of there being a head; its centre from the window's middle and the
            logarithm of its square's side, both in units of the window's side; sine and cosine of the azimuth
            (normalised); elevation of the camera and roll of the head in the window (clockwise), radians.
        """
        return self.answer(self.features(window))
