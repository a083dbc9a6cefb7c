"""Is it one solid head? Depth from one camera, carried to the next, should be what the next one sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models import camera

SOLID = 0.5  # opacity from which a pixel counts as the head
HIDDEN = 0.05  # world units (2 cm) behind what the other camera sees: taken as hidden, not as wrong. Our choice


@dataclass(frozen=True)
class Agreement:
    """Of pairs of views.

    Attributes:
        depth: median difference of distances at points that both see, world units.
        colour: mean absolute difference of colours there, of a range of 1.
        seen: share of the first view's solid points that the second sees, not hidden.
        points: how many were compared.
    """

    depth: float
    colour: float
    seen: float
    points: int


@torch.no_grad()
def reproject(depth: Tensor, picture: Tensor, solid: Tensor, label: Tensor, partner: Tensor) -> Agreement:
    """Carry points of each view to its partner.

    Args:
        depth: (V, 1, h, h) distances along rays.
        picture: (V, 3, h, h) in [-1, 1].
        solid: (V, 1, h, h) boolean: the head.
        label: (V, 25) cameras.
        partner: (V,) which view each is compared with.
    """
    side = depth.shape[-1]
    origin, direction = camera.rays(label, side)
    points = origin + direction * depth.flatten(1).unsqueeze(-1)  # (V, P, 3)
    uv, ahead = camera.project(label[partner], points)
    grid = (uv * 2 - 1).unsqueeze(1)
    other, colour, ground = (
        F.grid_sample(values[partner].float(), grid, align_corners=False)[:, :, 0]
        for values in (depth, picture, solid.float())
    )
    distance = (points - label[partner][:, None, 3:12:4]).norm(dim=-1)
    inside = (ahead > 0) & ((uv > 0) & (uv < 1)).all(dim=-1)
    both = solid.flatten(1) & inside & (ground[:, 0] > 0.99)  # all four neighbours are head
    behind = distance - other[:, 0]
    visible = both & (behind < HIDDEN)
    if not visible.any():
        return Agreement(float("nan"), float("nan"), 0.0, 0)
    apart = (picture.flatten(2) - colour).abs().mean(dim=1) / 2
    return Agreement(
        float(behind[visible].abs().median()),
        float(apart[visible].mean()),
        float(visible.sum() / solid.sum().clamp_min(1)),
        int(visible.sum()),
    )
