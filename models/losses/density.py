"""Density regularisation (EG3D, supplement): nearby points should be about equally dense."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def density_variation(
    density: Callable[[Tensor], Tensor],
    batch: int,
    box: float,
    points: int = 1000,  # EG3D
    distance: float = 0.004,  # EG3D's density_reg_p_dist, world units
    device: torch.device | str = "cpu",
) -> Tensor:
    """Mean absolute difference of density between random points and neighbours at N(0, distance).

    EG3D draws its points in [-1, 1]^3 although its planes span [-1/2, 1/2]^3, so that 7 of 8 fall outside; here they
    are drawn where the planes are.

    Args:
        density: world points (N, P, 3) to raw densities (N, P).
        batch: N.
        box: side of the cube, world units.
        points: drawn per sample.
        distance: standard deviation of the neighbours' offset, world units.
        device: of the points.
    """
    at = (torch.rand(batch, points, 3, device=device) - 0.5) * box
    near = at + torch.randn_like(at) * distance
    first, second = density(torch.cat([at, near], dim=1)).chunk(2, dim=1)
    return (first - second).abs().mean()
