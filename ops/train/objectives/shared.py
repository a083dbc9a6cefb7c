"""What the objectives of EG3D's heirs share: their optimisers and updates, chance, and how they read the schedule."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.camera import FFHQ_RADIUS, pack_label, pose_on_sphere, unpack_label
from ops.train.objective import Moment, Term, Update

Named = tuple[Tensor, dict[str, Tensor]]
BETAS = (0.0, 0.99)  # EG3D: Adam


def lazy_adam(network: nn.Module, rate: float, every: int | None) -> torch.optim.Adam:
    """EG3D's Adam; with a lazy term every n-th step, rate and memory are corrected for the n + 1 losses in n steps."""
    share = 1.0 if every is None else every / (every + 1)
    parameters = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=rate * share, betas=(BETAS[0] ** share, BETAS[1] ** share), eps=1e-8)


class Player(NamedTuple):
    """A network of the game: its learning rate, its loss at every step, and one at some steps if there is any."""

    network: nn.Module
    rate: float
    term: Term
    lazy: Term | None = None


def game(**players: Player) -> tuple[dict[str, torch.optim.Optimizer], tuple[Update, ...]]:
    """Optimisers and updates of players by name, in the order of their moves."""
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: lazy_adam(p.network, p.rate, p.lazy.every if p.lazy else None) for name, p in players.items()
    }
    return optimizers, tuple(Update(name, (p.term, p.lazy) if p.lazy else (p.term,)) for name, p in players.items())


def number(moment: Moment, name: str, otherwise: float = 0.0) -> float:
    """A setting of the phase or the value of a curve."""
    return float(moment.settings.get(name, otherwise))


def swapped(label: Tensor, moment: Moment, probability: float) -> Tensor:
    """(N, 25) cameras, of which each is another one of the batch with a probability: what a mapping network is told."""
    return torch.where(chance(label, moment, probability), label.roll(1, 0), label)


def chance(like: Tensor, moment: Moment, probability: float) -> Tensor:
    """(N, 1) bool, each true with a probability, for N rows."""
    return torch.rand(len(like), 1, generator=moment.generator, device=moment.device) < probability


def latents(size: int, label: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
    """(N, size) latents for cameras (N, 25), and the cameras that the mapping network is told."""
    z = torch.randn(len(label), size, generator=moment.generator, device=moment.device)
    return z, swapped(label, moment, number(moment, "swap"))


def around(azimuth: Tensor, label: Tensor) -> Tensor:
    """(N, 25) cameras at azimuths (N,) in radians, level with the head, with the intrinsics of a label (1, 25)."""
    pose = pose_on_sphere(azimuth, torch.zeros_like(azimuth), FFHQ_RADIUS)
    return pack_label(pose, unpack_label(label.to(azimuth))[1])
