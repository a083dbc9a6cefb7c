"""A small network that reads identity and expression codes off face pictures.

It stands behind AniPortraitGAN's landmark loss (paper Eq. 9), where the paper has Deep3DFaceRecon: the codes that it
finds in a generated face should give the landmarks that were asked for. It is differentiable in the picture, stands on
the first layers of MobileNetV2 (models.trunk), and learns on the studio's exact truth.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.features import MobileNetV2
from models.trunk import OnTrunk, TrunkConfig


class CoefficientsConfig(TrunkConfig):
    """Size of the network, and of the codes that it reads."""

    identity: int = 80  # models.parametric.person
    expression: int = 52  # models.parametric.person


class Coefficients(OnTrunk):
    """See the module.

    Attributes:
        middle, width: (identity + expression,) mean and deviation of the codes it was taught, measured once. A code
            that never changed in its lessons is always answered with its mean.
    """

    middle: Tensor
    width: Tensor
    config: CoefficientsConfig

    def __init__(self, config: CoefficientsConfig, trunk: MobileNetV2 | None = None) -> None:
        codes = config.identity + config.expression
        super().__init__(config, codes, trunk)
        self.register_buffer("middle", torch.zeros(codes))
        self.register_buffer("width", torch.ones(codes))

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of faces.

        Args:
            face: (N, 3, r, r) in [-1, 1] of any size, framed as FFHQ's square and upright with the head, before white.

        Returns:
            identity (N, 80) and expression (N, 52); not clamped to their ranges, so that gradients pass.
        """
        side = self.config.side
        if face.shape[-1] != side:
            face = F.interpolate(face, (side, side), mode="bilinear", antialias=True, align_corners=False)
        codes = self.middle + self.width * self.read(self.features(face))
        return codes[:, : self.config.identity], codes[:, self.config.identity :]
