"""What the objectives of EG3D's heirs share: their optimiser, and how they read the schedule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ops.train.objective import Moment

Named = tuple[Tensor, dict[str, Tensor]]
BETAS = (0.0, 0.99)  # EG3D: Adam


def lazy_adam(network: nn.Module, rate: float, every: int | None) -> torch.optim.Adam:
    """EG3D's Adam; with a lazy term every n-th step, rate and memory are corrected for the n + 1 losses in n steps."""
    share = 1.0 if every is None else every / (every + 1)
    parameters = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=rate * share, betas=(BETAS[0] ** share, BETAS[1] ** share), eps=1e-8)


def number(moment: Moment, name: str, otherwise: float = 0.0) -> float:
    """A setting of the phase or the value of a curve."""
    return float(moment.settings.get(name, otherwise))


def swapped(label: Tensor, moment: Moment, probability: float) -> Tensor:
    """(N, 25) cameras, of which each is another one of the batch with a probability: what a mapping network is told."""
    chosen = torch.rand(len(label), 1, generator=moment.generator, device=moment.device) < probability
    return torch.where(chosen, label.roll(1, 0), label)
