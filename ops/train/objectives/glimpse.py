"""Latents that are read off pictures, so that a short run may learn from the pictures themselves, too.

A glimpse is what the camera leaves unexplained of a thumbnail, in whitened principal components:
linear, fixed, and over the data as long and as varied as random latents. A generator that is given a picture's mesh,
camera and glimpse has been told most of what it shows, and can be asked for that very picture. Unpublished: our choice;
the papers' runs are long enough without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models import fir

SIDE = 8  # pixels of a thumbnail
RIDGE = 1e-3  # of the mean square of what is told
LEAST = 1e-3  # of the largest deviation: what deviates less is left small


class Glimpse(nn.Module):
    """See the module's text.

    Args:
        images: (M, 3, R, R) in [-1, 1], of the data.
        told: (M, K) what a generator is told anyway.
        size: numbers of a latent.
    """

    explained: Tensor
    basis: Tensor

    def __init__(self, images: Tensor, told: Tensor, size: int) -> None:
        super().__init__()
        known, seen = _with_one(told.double()), _thumbnails(images).double()
        square = known.T @ known
        explained = torch.linalg.solve(
            square + RIDGE * square.diagonal().mean() * torch.eye(len(square)), known.T @ seen
        )
        _, length, directions = torch.linalg.svd(seen - known @ explained, full_matrices=False)
        deviation = length.clamp_min(float(LEAST * length[0]) + 1e-12) / len(seen) ** 0.5
        basis = seen.new_zeros(seen.shape[1], size)
        count = min(size, len(length))
        basis[:, :count] = (directions[:count] / deviation[:count, None]).T
        self.register_buffer("explained", explained.float())
        self.register_buffer("basis", basis.float())

    def forward(self, images: Tensor, told: Tensor) -> Tensor:
        """Pictures (N, 3, R, R) and what is told of them (N, K) to latents (N, size)."""
        return (_thumbnails(images) - _with_one(told) @ self.explained) @ self.basis


def _with_one(told: Tensor) -> Tensor:
    return torch.cat([told, torch.ones_like(told[:, :1])], dim=1)


def _thumbnails(images: Tensor) -> Tensor:
    return fir.resize(images, SIDE).flatten(1)
