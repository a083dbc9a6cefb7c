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
from torch.autograd.function import once_differentiable

# Points at a time: texels that are read again for gradients should fit a processor's cache.
_BLOCK = 1 << 11
_LARGE_BLOCK = 1 << 16


def texel_table(planes: Tensor) -> Tensor:
    """Lay out planes for :func:`gather`: channels last, with a border of zeros.

    Args:
        planes: (N, K, C, H, H).

    Returns:
        (N, K, H + 2, H + 2, C), contiguous.
    """
    n, k, c, h, w = planes.shape
    table = planes.new_empty(n, k, h + 2, w + 2, c)
    table[:, :, :: h + 1] = 0
    table[:, :, :, :: w + 1] = 0
    table[:, :, 1:-1, 1:-1] = planes.permute(0, 1, 3, 4, 2)
    return table


def cell_and_fraction(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where a normalised coordinate falls among padded texels.

    Args:
        coordinate: any shape, [-1, 1] spans the plane from edge to edge (align_corners=False).
        size: texels along the axis, without the border.

    Returns:
        The index of the texel on the low side in the padded plane, [0, size], int32; and the fraction towards the
        next one, which carries the gradient. Coordinates beyond the border rest in it, where features are zero. One
        that is no number gets a cell of the plane and a fraction that is no number, so that the result tells.
    """
    position = ((coordinate + 1) * (size / 2) - 0.5).clamp(-1, size)  # rounded as grid_sample rounds
    low = torch.fmin(position.detach().floor(), position.new_full((), size - 1))
    return low.to(torch.int32) + 1, position - low


def _weights(across: Tensor, down: Tensor, weight: Tensor) -> Tensor:
    """(B, K) fractions and weights to (B, 4 K) weights of the texels: low corners first, then right, below, both."""
    below = down * weight
    above = weight - below
    right, right_below = above * across, below * across
    return torch.cat([above - right, right, below - right_below, right_below], dim=1)


def _taps(cell: Tensor, stride: int) -> Tensor:
    """(B, K) cells to (B, 4 K) rows of the table, in the same order."""
    return torch.cat([cell, cell + 1, cell + stride, cell + stride + 1], dim=1)


class _Gather(torch.autograd.Function):
    """Forward: one weighted bag of rows a point. Backward: to the table, to the fractions and to the weights."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, cell: Tensor, across: Tensor, down: Tensor, weight: Tensor, stride: int
    ) -> Tensor:
        ctx.save_for_backward(rows, cell, across, down, weight)
        ctx.stride = stride
        out = rows.new_empty(len(cell), rows.shape[1])
        parts = (part.expand_as(cell).split(_LARGE_BLOCK) for part in (across, down, weight))
        for into, c, *fractions in zip(out.split(_LARGE_BLOCK), cell.split(_LARGE_BLOCK), *parts):
            into.copy_(F.embedding_bag(_taps(c, stride), rows, mode="sum", per_sample_weights=_weights(*fractions)))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, cell, across, down, weight = ctx.saved_tensors
        to_rows = to_across = to_down = to_weight = None
        if ctx.needs_input_grad[0]:
            to_rows = _to_table(grad, cell, across, down, weight, rows.shape[0], ctx.stride)
        if any(ctx.needs_input_grad[2:5]):
            # What each texel would contribute with weight one, (B, K) each: y low or high, x low or high.
            ll, lh, hl, hh = _contributions(grad, rows, cell, ctx.stride).unbind(1)
            low, high = torch.lerp(ll, lh, across), torch.lerp(hl, hh, across)
            to_weight = torch.lerp(low, high, down).sum_to_size(weight.shape)
            to_down = (high - low) * weight
            to_across = torch.lerp(lh - ll, hh - hl, down) * weight
        return to_rows, None, to_across, to_down, to_weight, None


def _to_table(
    grad: Tensor, cell: Tensor, across: Tensor, down: Tensor, weight: Tensor, rows: int, stride: int
) -> Tensor:
    """(B, C) gradients back to the (rows, C) table: cells are sorted, and a texel sums four bags, one for each tap."""
    ordered, order = cell.reshape(-1).sort()
    starts = torch.searchsorted(ordered, torch.arange(rows, device=cell.device, dtype=cell.dtype), out_int32=True)
    x, y, scale = (part.expand_as(cell).reshape(-1)[order] for part in (across, down, weight))
    source = (order // cell.shape[1]).to(starts.dtype)
    del ordered, order
    total = grad.new_empty(rows, grad.shape[1])
    for channels, into in zip(grad.chunk(2, dim=1), total.chunk(2, dim=1)):  # in halves: less memory at a time
        channels = channels.contiguous()
        for offset, is_right, is_below in ((0, 0, 0), (1, 1, 0), (stride, 0, 1), (stride + 1, 1, 1)):
            share = (x if is_right else 1 - x) * (y if is_below else 1 - y) * scale
            bags = F.embedding_bag(source, channels, starts, mode="sum", per_sample_weights=share)
            if offset == 0:
                into.copy_(bags)
            else:
                into[offset:] += bags[:-offset]
    return total


def _contributions(grad: Tensor, rows: Tensor, cell: Tensor, stride: int) -> Tensor:
    """(B, 4, K) scalar products of each point's gradient with the texels it read, block by block."""
    out = grad.new_empty(len(cell), 4, cell.shape[1])
    block = _BLOCK if grad.device.type == "cpu" else _LARGE_BLOCK
    for g, c, into in zip(grad.split(block), cell.split(block), out.split(block)):
        texels = rows.index_select(0, _taps(c, stride).flatten()).view(*into.shape, -1)
        torch.sum(texels.mul_(g[:, None, None]), dim=-1, out=into)
    return out


def gather(table: Tensor, cell: Tensor, across: Tensor, down: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of bilinear look-ups.

    Args:
        table: (N, K', H', H', C) from :func:`texel_table`, differentiable.
        cell: (N, P, K) int32, row of the flattened table that holds the low corner of each look-up.
        across, down: (N, P, K) fractions from that texel towards the next, along x and y, differentiable.
        weight: (N, P, K), or anything that broadcasts to it: weights of the look-ups, differentiable.

    Returns:
        (N, P, C).
    """
    n, p, k = cell.shape
    rows = table.reshape(-1, table.shape[-1])
    weight = weight.flatten(0, 1) if weight.ndim == 3 else weight
    flat = (part.reshape(n * p, k) for part in (cell, across, down))
    return _Gather.apply(rows, *flat, weight, table.shape[3]).view(n, p, -1)
