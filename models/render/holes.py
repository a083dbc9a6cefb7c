"""Holes of a silhouette: what the mesh leaves open inside the face, such as the mouth."""

from __future__ import annotations

import torch
from torch import Tensor


def outside(covered: Tensor, rounds: int = 4) -> Tensor:
    """Which uncovered pixels are joined to the border.

    The border's free pixels spread along rows and columns until something covered stops them, ``rounds`` times in each
    of the four directions, for the whole batch at once and without asking the device for an answer. A pixel that can
    only be reached by a path of more than ``4 * rounds`` straight pieces counts as a hole; silhouettes of faces need
    two or three.

    Args:
        covered: (..., H, W) bool.

    Returns:
        (..., H, W) bool.
    """
    reached = torch.zeros_like(covered)
    reached[..., 0, :] = reached[..., -1, :] = True
    reached[..., :, 0] = reached[..., :, -1] = True
    reached = reached & ~covered
    for _ in range(rounds):
        for axis in (-1, -2):
            for flip in (False, True):
                reached = _spread(reached, covered, axis, flip)
    return reached


def _spread(reached: Tensor, covered: Tensor, axis: int, flip: bool) -> Tensor:
    """One direction: a pixel is reached if the last mark before it is a reached pixel, not a covered one."""
    if flip:
        reached, covered = reached.flip(axis), covered.flip(axis)
    size = reached.shape[axis]
    place = torch.arange(1, size + 1, device=reached.device).view(-1, *[1] * (-1 - axis))
    last_reached = (reached * place).cummax(axis).values
    last_covered = (covered * place).cummax(axis).values
    reached = last_reached > last_covered
    return reached.flip(axis) if flip else reached


def holes(alpha: Tensor, threshold: float = 0.5) -> Tensor:
    """Holes (N, 1, H, W), 0 or 1 in alpha's type, of coverages (N, 1, H, W) in [0, 1]."""
    covered = alpha > threshold
    return (~covered & ~outside(covered)).to(alpha.dtype)
