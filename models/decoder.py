"""The decoder of plane features: one hidden layer with softplus (EG3D, section 4.3).

It runs on every sample of every ray, and its hidden layer is the largest thing a renderer would keep for the backward
pass. The fast form works through the points block by block, keeps nothing but its input, and computes the hidden layer
again when gradients come back: two small matrix products, on numbers that are still in the cache.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.stylegan import EqualLinear

# Points at a time: a block's hidden layer fits a processor's cache; an accelerator wants fewer, larger launches.
_BLOCK = {"cpu": 1 << 13}
_LARGE_BLOCK = 1 << 17


class _Perceptron(torch.autograd.Function):
    """softplus(x W1 + b1) W2 + b2 on (P, I) rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        ctx.save_for_backward(x, w1, b1, w2)
        out = x.new_empty(x.shape[0], w2.shape[0])
        for rows, into in zip(_blocks(x), _blocks(out)):
            torch.addmm(b2, F.softplus(F.linear(rows, w1, b1)), w2.t(), out=into)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2 = ctx.saved_tensors
        to_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        to_w1, to_b1, to_w2 = torch.zeros_like(w1), torch.zeros_like(b1), torch.zeros_like(w2)
        into = _blocks(to_x) if to_x is not None else _blocks(x)
        for rows, g, target in zip(_blocks(x), _blocks(grad), into):
            hidden = F.softplus(F.linear(rows, w1, b1))
            to_w2.addmm_(g.t(), hidden)
            inner = (g @ w2).mul_(hidden.neg_().expm1_().neg_())  # softplus' = 1 - exp(-softplus)
            to_w1.addmm_(inner.t(), rows)
            to_b1 += inner.sum(dim=0)
            if to_x is not None:
                torch.mm(inner, w1, out=target)
        return to_x, to_w1, to_b1, to_w2, grad.sum(dim=0)


def _blocks(x: Tensor) -> tuple[Tensor, ...]:
    return x.split(_BLOCK.get(x.device.type, _LARGE_BLOCK))


class Decoder(nn.Module):
    """Features at a point to colour features and density.

    Args:
        inputs: plane channels.
        hidden: width of the hidden layer.
        outputs: colour features.
        margin: squash colours to [-margin, 1 + margin] by a sigmoid, as EG3D does; None leaves them linear (PanoHead).
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, margin: float | None):
        super().__init__()
        self.margin = margin
        self.hidden = EqualLinear(inputs, hidden)
        self.out = EqualLinear(hidden, outputs + 1)

    def forward(self, feature: Tensor, fast: bool = True) -> tuple[Tensor, Tensor]:
        """(N, P, inputs) to colour features (N, P, outputs) and raw densities (N, P)."""
        if fast:
            first, last = self.hidden.weight * self.hidden.weight_gain, self.out.weight * self.out.weight_gain
            x = _Perceptron.apply(feature.flatten(0, 1), first, self.hidden.bias, last, self.out.bias)
            x = x.unflatten(0, feature.shape[:2])
        else:
            x = self.out(F.softplus(self.hidden(feature)))
        colour = x[..., 1:]
        if self.margin is not None:
            colour = torch.sigmoid(colour) * (1 + 2 * self.margin) - self.margin
        return colour, x[..., 0]
