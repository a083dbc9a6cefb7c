"""A head generator with random weights whose field is a solid ball: empty space around it, as a trained one has."""

from __future__ import annotations

import torch
from torch import Tensor

from models.spherehead import HeadGenerator
from models.stylegan import Noise

STEEP = 200.0  # density gained over one half of the box


@torch.no_grad()
def make_solid(net: HeadGenerator, radius: float = 0.5) -> HeadGenerator:
    """Make ``net``'s density a ball of ``radius`` (in halves of the box) about the origin; colours stay as they are.

    The first plane channel becomes a function of the distance, and the decoder's density one of that channel.
    """
    config, original = net.config, net.planes

    def planes(ws: Tensor, noise: Noise = "random", fast: bool = True) -> Tensor:
        made = original(ws, noise, fast)
        stack = made.unflatten(1, (config.planes.planes, config.plane_channels)).clone()
        side = made.shape[-1]
        axis = (torch.arange(side, device=made.device) + 0.5) * (2 / side) - 1
        if config.spherical:
            inside = (radius - (axis + 1) * (3**0.5 / 2))[:, None].expand(side, side)  # rows are distances
            stack[:, 0::3, 0] = 0
            stack[:, 1::3, 0] = stack[:, 2::3, 0] = 1.5 * inside
        else:
            stack[:, :, 0] = radius - 1.5 * (axis.square()[:, None] + axis.square()) / radius
        return stack.flatten(1, 2)

    net.planes = planes  # type: ignore[method-assign]
    hidden, out = net.decoder.hidden, net.decoder.out
    hidden.weight[:2], out.weight[0] = 0, 0
    hidden.weight[0, 0], hidden.weight[1, 0] = (sign / hidden.weight_gain for sign in (STEEP, -STEEP))
    hidden.bias[:2] = 0
    out.weight[0, 0], out.weight[0, 1] = (sign / out.weight_gain for sign in (1, -1))
    out.weight[1:, :2] = 0
    return net
