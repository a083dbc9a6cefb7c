"""A small network that reads identity and expression codes off face pictures.

It stands behind AniPortraitGAN's landmark loss (paper Eq. 9), where the paper has Deep3DFaceRecon: the codes that it
finds in a generated face should give the landmarks that were asked for. It is differentiable in the picture and stands
on the first layers of FaceMesh, which have seen many real faces and stay as they are; what is above them learns on the
studio's exact truth.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Config
from models.facemesh import CHANNELS, PLACES, SIDE, FaceMesh


class CoefficientsConfig(Config):
    """Size of the network, and of the codes that it reads. Sizes unpublished: our choice."""

    identity: int = 80  # models.parametric.person
    expression: int = 52  # models.parametric.person
    identity_channels: int = Field(default=16, ge=1)
    identity_hidden: int = Field(default=64, ge=1)
    expression_channels: int = Field(default=32, ge=1)
    expression_hidden: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)


class Coefficients(nn.Module):
    """See the module.

    Args:
        config: sizes.
        facemesh: whose first layers are taken; None where a checkpoint will fill them.

    Attributes:
        trunk: frozen.
        centre, spread: (1, 128, 1, 1) of what the trunk sees, measured once.
        middle, width: (identity + expression,) mean and deviation of the codes it was taught, measured once. A code
            that never changed in its lessons is always answered with its mean.
    """

    centre: Tensor
    spread: Tensor
    middle: Tensor
    width: Tensor

    def __init__(self, config: CoefficientsConfig, facemesh: FaceMesh | None = None) -> None:
        super().__init__()
        self.config = config
        # Neighbouring channels in memory: filters by depth are twice as fast so, there and back.
        trunk = (facemesh or FaceMesh()).trunk.requires_grad_(False)
        self.trunk = trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.identity = self._head(config.identity_channels, config.identity_hidden, config.identity)
        self.expression = self._head(config.expression_channels, config.expression_hidden, config.expression)
        codes = config.identity + config.expression
        for name, value in (("middle", torch.zeros(codes)), ("width", torch.ones(codes))):
            self.register_buffer(name, value)
        for name, value in (("centre", torch.zeros(CHANNELS)), ("spread", torch.ones(CHANNELS))):
            self.register_buffer(name, value.view(1, -1, 1, 1))

    def _head(self, channels: int, hidden: int, codes: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(CHANNELS, channels, 1),
            nn.ReLU(),
            nn.Dropout(self.config.dropout),
            nn.Flatten(),
            nn.Linear(channels * PLACES**2, hidden),
            nn.ReLU(),
            nn.Dropout(self.config.dropout),
            nn.Linear(hidden, codes),
        )

    def features(self, face: Tensor) -> Tensor:
        """(N, 3, r, r) pictures in [-1, 1] of any size to (N, 128, 6, 6) of the frozen layers."""
        if face.shape[-1] != SIDE:
            shrinks = face.shape[-1] > SIDE
            face = F.interpolate(face, (SIDE, SIDE), mode="bilinear", antialias=shrinks, align_corners=False)
        return self.trunk(((face + 1) / 2).contiguous(memory_format=torch.channels_last)).contiguous()

    @torch.no_grad()
    def measure(self, features: Tensor, codes: Tensor) -> None:
        """Measure what the frozen layers see, (N, 128, 6, 6), and the codes that are taught, (N, codes)."""
        self.centre.copy_(features.mean((0, 2, 3), keepdim=True))
        self.spread.copy_(features.std((0, 2, 3), keepdim=True).clamp_min(1e-2))
        self.middle.copy_(codes.mean(0))
        self.width.copy_(codes.std(0, unbiased=False))

    def read(self, features: Tensor) -> Tensor:
        """(N, 128, 6, 6) of the frozen layers to codes (N, identity + expression), in deviations from their mean."""
        seen = (features - self.centre) / self.spread
        return torch.cat([self.identity(seen), self.expression(seen)], dim=1)

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of faces.

        Args:
            face: (N, 3, r, r) in [-1, 1] of any size, framed as FFHQ's square and upright with the head, before white.

        Returns:
            identity (N, 80) and expression (N, 52); not clamped to their ranges, so that gradients pass.
        """
        codes = self.middle + self.width * self.read(self.features(face))
        return codes[:, : self.config.identity], codes[:, self.config.identity :]
