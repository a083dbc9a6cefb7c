"""A small network that finds one head in a square picture, from whatever side it is seen.

It answers eight numbers for a window: whether there is a head, where its centre is, how large it is, and how it is
turned. Looked at again through the window that the last answer suggests, the answer sharpens (ops.perception.headpose).
It stands on the first layers of MobileNetV2 (models.trunk) and learns on the studio's exact truth.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.features import MobileNetV2
from models.trunk import OnTrunk, TrunkConfig

OUTPUTS = ("presence", "x", "y", "log_size", "sin_azimuth", "cos_azimuth", "elevation", "roll")


class HeadPoseConfig(TrunkConfig):
    """Size of the network."""


class HeadPose(OnTrunk):
    """See the module."""

    def __init__(self, config: HeadPoseConfig, trunk: MobileNetV2 | None = None) -> None:
        super().__init__(config, len(OUTPUTS), trunk)

    def answer(self, features: Tensor) -> Tensor:
        """What is seen in windows, from their features; see forward."""
        presence, centre, size, turn, rest = self.read(features).split((1, 2, 1, 2, 2), dim=1)
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
