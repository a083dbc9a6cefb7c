"""Fields of points, a few points at a time where no gradient is wanted.

A picture of 256 x 256 pixels asks a field millions of times. Layer after layer over all of them goes through main
memory each time and holds gigabytes; layer after layer over a few thousand stays in a processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PIECE = 2048  # points at a time on a processor: 2 MB of 256 channels; unpublished: our choice


def in_pieces(field: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``field(*inputs)`` of inputs (N, P, ...), whose answer (N, P, C) for a point depends on that point alone.

    With gradients, and on accelerators, at once: there activations must be kept, here few large products are best.
    """
    count = max(1, PIECE // max(1, len(inputs[0])))
    if torch.is_grad_enabled() or inputs[0].device.type != "cpu" or inputs[0].shape[1] <= count:
        return field(*inputs)
    return torch.cat([field(*piece) for piece in zip(*(x.split(count, dim=1) for x in inputs))], dim=1)
