"""Small networks on the first layers of MobileNetV2, which have seen a million photos and stay as they are.

What is above them learns from a few hundred pictures. The frozen layers' answers can be computed once, ahead.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.config import Config
from models.features import MobileNetV2

STAGES, CHANNELS, STRIDE = 5, 96, 16  # of MobileNetV2, to where a pixel sees enough and places still count


class TrunkConfig(Config):
    """Size of a network. All unpublished: our choice; WHENet's EfficientNet-B0 sees 224 pixels."""

    side: int = Field(default=96, ge=32, multiple_of=16, description="of the window it sees, pixels")
    channels: int = Field(default=64, ge=1, description="of the layers that learn")
    hidden: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    trunk: Literal["mobilenetv2"] = "mobilenetv2"


class OnTrunk(nn.Module):
    """See the module. ``trunk`` is frozen; ``centre`` and ``spread`` normalise what it sees, and are measured once.

    Args:
        config: sizes.
        outputs: numbers that it answers.
        trunk: the network whose first layers are taken; None where a checkpoint will fill them.
    """

    centre: Tensor
    spread: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: TrunkConfig, outputs: int, trunk: MobileNetV2 | None = None) -> None:
        super().__init__()
        self.config = config
        whole = trunk
        if whole is None:
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
            nn.Linear(config.hidden, outputs),
        )

    def features(self, window: Tensor) -> Tensor:
        """(N, 3, side, side) windows in [-1, 1] to (N, 96, side / 16, side / 16) of the frozen layers."""
        seen = ((window + 1) / 2 - self.mean) / self.deviation
        return self.trunk(seen.contiguous(memory_format=torch.channels_last))  # half the time on the CPU

    @torch.no_grad()
    def normalise(self, features: Tensor) -> None:
        """Measure what the frozen layers answer: (N, 96, h, w)."""
        self.centre.copy_(features.mean((0, 2, 3), keepdim=True))
        self.spread.copy_(features.std((0, 2, 3), keepdim=True).clamp_min(1e-3))

    def read(self, features: Tensor) -> Tensor:
        """(N, 96, h, w) answers of the frozen layers to (N, outputs)."""
        return self.look((features - self.centre) / self.spread)
