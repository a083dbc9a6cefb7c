"""Volume rendering of several feature fields in one scene, as GIRAFFE composes them.

Along a ray with samples i, every field k has a density sigma_k,i >= 0 and a feature f_k,i. The scene has their summed
density and their density-weighted mean feature (GIRAFFE, Sec. 3.2), and is then rendered as NeRF does:

    sigma_i = sum_k sigma_k,i      f_i = sum_k sigma_k,i f_k,i / sigma_i
    alpha_i = 1 - exp(-sigma_i delta_i)      T_i = prod_{j<i} (1 - alpha_j)      F = sum_i T_i alpha_i f_i

:func:`composite` spells this out. :func:`field_weights` gives the scalars w_k,i with F = sum_k,i w_k,i f_k,i, so that
whoever holds the fields can sum what is cheapest: a linear last layer commutes with the sum and is then applied once a
ray instead of once a sample, and samples of weight zero need no feature at all.
"""

from __future__ import annotations

import torch
from torch import Tensor

FAR = 1e10  # NeRF: the last sample stands for all that lies behind it


def interval_lengths(depth: Tensor) -> Tensor:
    """delta: (..., S) distances from each of (..., S) ascending depths to the next; ``FAR`` after the last."""
    return torch.cat([depth.diff(dim=-1), torch.full_like(depth[..., :1], FAR)], dim=-1)


def composite(density: Tensor, feature: Tensor, depth: Tensor) -> Tensor:
    """The plain reference: the features a camera sees.

    Args:
        density: (K, ..., S) non-negative densities of K fields.
        feature: (K, ..., S, C) their features.
        depth: (..., S) ascending distances along the ray, world units.

    Returns:
        (..., C) rendered features.
    """
    total = density.sum(0)
    share = density / torch.where(total > 0, total, torch.ones_like(total))
    mixed = (share.unsqueeze(-1) * feature).sum(0)
    alpha = 1 - torch.exp(-total * interval_lengths(depth))
    passed = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha[..., :-1]], dim=-1), dim=-1)
    return ((passed * alpha).unsqueeze(-1) * mixed).sum(-2)


def field_weights(density: Tensor, depth: Tensor) -> Tensor:
    """What each sample of each field contributes to the ray: ``w_k,i = T_i alpha_i sigma_k,i / sigma_i``.

    Args:
        density: (K, ..., S) non-negative densities of K fields.
        depth: (..., S) ascending distances along the ray, world units.

    Returns:
        (K, ..., S) non-negative weights whose sum over K and S is at most 1, and 1 where the last sample is occupied.
    """
    total = density.sum(0)
    thickness = total * interval_lengths(depth)
    before = torch.cumsum(thickness[..., :-1], dim=-1)
    passed = torch.exp(-torch.cat([torch.zeros_like(before[..., :1]), before], dim=-1))
    share = density / torch.where(total > 0, total, torch.ones_like(total))
    return share * (-torch.expm1(-thickness) * passed)
