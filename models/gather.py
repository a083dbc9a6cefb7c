"""Weighted bilinear look-ups in many feature planes at once: the inner loop of every plane representation.

One point reads K planes at four texels each and sums them: a weighted bag of 4K rows of a table. ``embedding_bag`` does
exactly that, reads whole rows (a row holds a texel's channels side by side) and never forms the K intermediate
results that ``grid_sample`` would write. The gradient to the table sorts the *cells* once and sums four bags per
texel, which is deterministic and needs no atomics.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def texel_table(planes: Tensor) -> Tensor:
    """Lay out planes for :func:`gather`: channels last, with a border of zeros.

    Args:
        planes: (N, K, C, H, H).

    Returns:
        (N, K, H + 2, H + 2, C), contiguous.
    """
    n, k, c, h, w = planes.shape
    table = planes.new_zeros(n, k, h + 2, w + 2, c)
    table[:, :, 1:-1, 1:-1] = planes.permute(0, 1, 3, 4, 2)
    return table


def cell_and_fraction(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where a normalised coordinate falls among padded texels.

    Args:
        coordinate: any shape, [-1, 1] spans the plane from edge to edge (align_corners=False).
        size: texels along the axis, without the border.

    Returns:
        The index of the texel on the low side in the padded plane, [0, size], int32; and the fraction towards the
        next one, which carries the gradient. Coordinates beyond the border rest in it, where features are zero.
    """
    position = ((coordinate + 1) * (size / 2) - 0.5).clamp(-1, size)  # rounded as grid_sample rounds
    low = position.detach().floor().clamp_max(size - 1)
    return low.to(torch.int32) + 1, position - low


class _TableGradient(torch.autograd.Function):
    """Pass ``out`` through unchanged; backwards, also send the gradient of the look-up to the table."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, table: Tensor, cell: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(cell, weight)
        ctx.rows, ctx.stride = table.shape[0], stride
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.needs_input_grad[1]:
            return grad, None, None, None, None
        cell, weight = ctx.saved_tensors
        planes = cell.shape[1]
        ordered, order = cell.reshape(-1).sort()
        starts = torch.searchsorted(ordered, torch.arange(ctx.rows, device=cell.device, dtype=cell.dtype))
        source = order // planes
        total = grad.new_empty(ctx.rows, grad.shape[1])
        shares = weight.flatten(0, 1)[order]
        for channels, into in zip(grad.chunk(2, dim=1), total.chunk(2, dim=1)):  # in halves: less memory at a time
            channels = channels.contiguous()
            for tap, offset in enumerate((0, 1, ctx.stride, ctx.stride + 1)):
                bags = F.embedding_bag(
                    source, channels, starts, mode="sum", per_sample_weights=shares[:, tap].contiguous()
                )
                if tap == 0:
                    into.copy_(bags)
                else:
                    into[offset:] += bags[:-offset]
        return grad, total, None, None, None


def gather(table: Tensor, cell: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of bilinear look-ups.

    Args:
        table: (N, K', H', H', C) from :func:`texel_table`.
        cell: (N, P, K) int32, row of the flattened table that holds the low corner of each look-up.
        weight: (N, P, K, 2, 2) weights of the four texels (y, then x), differentiable.

    Returns:
        (N, P, C).
    """
    n, p, k = cell.shape
    stride, channels = table.shape[3], table.shape[4]
    rows = table.reshape(-1, channels)
    cell, weight = cell.reshape(n * p, k), weight.reshape(n * p, k, 4)
    taps = torch.tensor([0, 1, stride, stride + 1], dtype=cell.dtype, device=cell.device)
    index = (cell.unsqueeze(-1) + taps).view(n * p, 4 * k)
    out = F.embedding_bag(index, rows.detach(), mode="sum", per_sample_weights=weight.reshape(n * p, 4 * k))
    if rows.requires_grad and torch.is_grad_enabled():
        out = _TableGradient.apply(out, rows, cell, weight.detach(), stride)
    return out.view(n, p, channels)
