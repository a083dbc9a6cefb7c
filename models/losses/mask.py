"""Losses on the foreground mask, the accumulated opacity of the rendered head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_MARGIN = 1e-4  # keeps the logarithms finite


def mask_agreement(mask: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy between a rendered mask and a known one, both (N, 1, h, h) in [0, 1]."""
    return F.binary_cross_entropy(mask.clamp(_MARGIN, 1 - _MARGIN), target)


def mask_decision(mask: Tensor) -> Tensor:
    """Mean entropy, in nats, of (N, 1, h, h) masks: low where every pixel is clearly head or clearly background.

    A beta prior on opacity in the manner of Neural Volumes (Lombardi et al. 2019): without it, fog passes for hair.
    """
    p = mask.clamp(_MARGIN, 1 - _MARGIN)
    return -(p * p.log() + (1 - p) * (1 - p).log()).mean()
