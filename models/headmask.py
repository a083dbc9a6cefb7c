"""Roughly where a head is in a picture, from its fit alone: what encoders may look at in frames after the first.

InvertAvatar shows its recurrent encoders whole first frames, and of the others the head alone (public code). No
segmentation is needed: the head's vertices, moved away from its middle to make room for hair, are laid on a coarse grid
whose cells grow until they join, and shrink again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.camera import project
from models.parametric.person import Person, combine

POINTS = 600  # vertices looked at, at most; unpublished: our choice, as all here
ROOM = 1.2  # for hair: distances from the head's middle grow by this
CELLS = 32  # of the grid, a side
GAP = 2  # cells that may lie between neighbouring points, beside one cell more of room


class HeadMask(nn.Module):
    """The outline of a parametric person's head."""

    mean: Tensor
    basis: Tensor

    def __init__(self, person: Person) -> None:
        super().__init__()
        head = (person.head_share > 0.5).nonzero().squeeze(1)
        chosen = head[:: max(1, len(head) // POINTS)]
        self.register_buffer("mean", person.mean[chosen].contiguous(), persistent=False)
        self.register_buffer("basis", person.identity_basis[:, chosen].contiguous(), persistent=False)

    @torch.no_grad()
    def forward(self, identity: Tensor, camera: Tensor, size: int) -> Tensor:
        """(N, codes) and cameras (N, 25) in the head's frame to (N, 1, size, size), 1 on the head and 0 elsewhere."""
        points = self.mean + combine(identity, self.basis, "identity")
        middle = (points.amin(1, keepdim=True) + points.amax(1, keepdim=True)) / 2
        at, depth = project(camera, middle + ROOM * (points - middle))
        cell = (at * CELLS).floor().long()
        inside = ((cell >= 0) & (cell < CELLS)).all(-1) & (depth > 0)
        place = torch.where(inside, cell[..., 1] * CELLS + cell[..., 0], CELLS**2)  # one cell more for those outside
        grid = torch.zeros(len(at), CELLS**2 + 1, device=at.device, dtype=at.dtype).scatter(1, place, 1.0)
        grown = F.max_pool2d(grid[:, :-1].view(-1, 1, CELLS, CELLS), 2 * GAP + 3, stride=1, padding=GAP + 1)
        coarse = -F.max_pool2d(-grown, 2 * GAP + 1, stride=1, padding=GAP)
        return F.interpolate(coarse, size=(size, size), mode="nearest")
