"""View-image consistency (SphereHead, section 3.2, equation 2): real pictures under the wrong camera are fakes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models import camera


def view_angles(first: Tensor, second: Tensor) -> Tensor:
    """Angles (N,) in radians, [0, pi], between the viewing axes of two sets of (N, 25) camera labels."""
    a, b = (camera.unpack_label(label)[0][:, :3, 2] for label in (first, second))
    return torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1))


def mismatch(label: Tensor, least_degrees: float = 15.0) -> tuple[Tensor, Tensor]:
    """Shuffle camera labels.

    Args:
        label: (N, 25).
        least_degrees: pairs closer than this see nearly the same view: calling them wrong would punish right ones.
            Unpublished, the paper just shuffles: our choice.

    Returns:
        The shuffled labels (N, 25), and whether each differs enough from the one it replaces (N,) bool.
    """
    shuffled = label[torch.randperm(label.shape[0], device=label.device)]
    return shuffled, view_angles(label, shuffled) >= math.radians(least_degrees)


def view_consistency_loss(
    discriminator: Callable[[Tensor], Tensor], label: Tensor, least_degrees: float = 15.0
) -> Tensor:
    """Equation 2: mean softplus(D(real, mask, parsing | shuffled cameras)), for the discriminator only.

    Args:
        discriminator: (N, 25) labels to logits (N,) of the batch of real pictures.
        label: (N, 25) the right labels.
        least_degrees: see :func:`mismatch`.

    Returns:
        Mean over the pairs that do not match; zero if there is none.
    """
    shuffled, wrong = mismatch(label, least_degrees)
    loss = F.softplus(discriminator(shuffled)) * wrong
    return loss.sum() / wrong.sum().clamp_min(1)
