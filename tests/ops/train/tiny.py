"""A GAN of a few hundred weights that uses all of the trainer: two updates, a lazy second-order term, a companion."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.camera import intrinsics, pack_label, pose_on_sphere
from ops.store.pictures import encode_jpeg, encode_png
from ops.store.tar import ShardWriter
from ops.train.data import Pictures
from ops.train.loop import Trainer
from ops.train.objective import Batch, Moment, Term, Update
from ops.train.settings import TrainerParams

SIDE = 8


class Quiet:
    """A watch that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)

    def progress(self, items, total=None, desc="", unit="it"):
        yield from items


class TinyGAN:
    """Generator 4 -> 8 x 8 pictures; linear discriminator; a slowly following copy of it; R1 every other step."""

    def __init__(self, poison: tuple[int, ...] = (), seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.poison = set(poison)
        generator = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3 * SIDE * SIDE), nn.Tanh())
        critic = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 8), nn.Tanh(), nn.Linear(8, 1))
        companion = nn.Linear(3 * SIDE * SIDE, 8)
        companion.load_state_dict(critic[1].state_dict())
        self.networks = {"generator": generator, "discriminator": critic, "companion": companion}
        self.averaged = ("generator",)
        self.optimizers = {
            "generator": torch.optim.Adam(generator.parameters(), lr=1e-2, betas=(0.0, 0.99)),
            "discriminator": torch.optim.RMSprop(critic.parameters(), lr=1e-3),
        }
        self.updates = (
            Update("generator", (Term("fool", self.fool),), clip=10.0),
            Update("discriminator", (Term("judge", self.judge), Term("r1", self.r1, every=2, second_order=True))),
        )

    def _fake(self, batch: Batch, moment: Moment) -> torch.Tensor:
        codes = torch.randn(len(batch["image"]), 4, generator=moment.generator, device=moment.device)
        return self.networks["generator"](codes).view(-1, 3, SIDE, SIDE)

    def fool(self, batch, moment):
        loss = F.softplus(-self.networks["discriminator"](self._fake(batch, moment))).mean()
        if moment.step in self.poison:
            self.poison.discard(moment.step)
            loss = loss * float("nan")
        return loss, {"fool": loss}

    def judge(self, batch, moment):
        with torch.no_grad():
            fake = self._fake(batch, moment) + 0.1 * torch.randn(())  # torch's own generator must be exact as well
        critic = self.networks["discriminator"]
        loss = (F.softplus(critic(fake)) + F.softplus(-critic(batch["image"]))).mean()
        return loss, {"judge": loss, "real": critic(batch["image"]).mean()}

    def r1(self, batch, moment):
        image = batch["image"].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.networks["discriminator"](image).sum(), image, create_graph=True)
        penalty = gradient.square().sum((1, 2, 3)).mean()
        return 0.1 * penalty, {"r1": penalty}

    def after(self, moment: Moment) -> None:
        for slow, fast in zip(self.networks["companion"].parameters(), self.networks["discriminator"][1].parameters()):
            slow.lerp_(fast, 0.1)

    def sample(self, networks, rows, columns, generator):
        codes = torch.randn(rows * columns, 4, generator=generator, device=generator.device)
        return networks["generator"](codes).view(-1, 3, SIDE, SIDE)


class Regress:
    """No chance at all: a network learns the mean colour of its pictures. Its gradients are kept for comparison."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3))
        network.register_buffer("seen", torch.zeros(()))
        self.networks = {"network": network}
        self.averaged = ("network",)
        self.optimizers = {"network": torch.optim.SGD(network.parameters(), lr=0.05)}
        self.updates = (Update("network", (Term("error", self.error),)),)
        self.gradients: list[torch.Tensor] = []

    def error(self, batch: Batch, moment: Moment):
        image = batch["image"]
        self.networks["network"].seen += len(image)
        loss = (self.networks["network"](image) - 3 * image.mean((2, 3))).square().mean()
        return loss, {"error": loss}

    def after(self, moment: Moment) -> None:
        self.gradients.append(torch.cat([p.grad.reshape(-1) for p in self.networks["network"].parameters()]))

    def sample(self, networks, rows, columns, generator):
        return torch.zeros(rows * columns, 3, SIDE, SIDE)


def settings(**changes) -> TrainerParams:
    """Settings of a run of 12 steps."""
    values = {
        "images": 48, "batch": 4, "device": "cpu", "threads": 1, "workers": 0, "log_every": 3, "checkpoint_every": 4,
        "snapshot_every": 6, "grid_rows": 1, "grid_columns": 2, "tensorboard": False,
    }  # fmt: skip
    return TrainerParams.model_validate({**values, **changes})


def write_shards(folder: Path, samples: int = 10, side: int = SIDE, masks: bool = False, heads: bool = False) -> Path:
    """Shards of noise pictures, whose cameras are at azimuth 0.1 * number; all around with ``heads``, which also have
    masks, parsing, views and the duplication count 1, the last one 3."""
    rng = np.random.default_rng(0)
    with ShardWriter(folder, per_shard=4) as writer:
        for number in range(samples):
            image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            azimuth = 2 * np.pi * number / samples if heads else 0.1 * number
            pose = pose_on_sphere(torch.tensor(azimuth, dtype=torch.float32), torch.tensor(0.0))
            record = {"camera": pack_label(pose, intrinsics()).tolist()}
            fields = {"jpg": encode_jpeg(image)}
            if masks or heads:
                fields["mask.png"] = encode_png(image[..., 0])
            if heads:
                fields["parsing.png"] = encode_png(image[..., 1] % 19)
                view = "front" if np.cos(azimuth) > 0.7 else "back" if np.cos(azimuth) < -0.7 else "side"
                record |= {"view": view, "duplicates": 3 if number == samples - 1 else 1}
            writer.add(f"{number:016x}", {**fields, "json": json.dumps(record).encode()})
    return folder


def trainer(folder: Path, shards: Path, params: TrainerParams | None = None, **kwargs) -> Trainer:
    """A trainer of the tiny GAN."""
    params = params or settings()
    objective = kwargs.pop("objective", None) or TinyGAN()
    pictures = Pictures(shards, SIDE, cache_mb=params.cache_mb)
    config = {"params": params.model_dump(mode="json")}
    return Trainer(objective, pictures, params, folder, kwargs.pop("watch", Quiet()), config, **kwargs)


if __name__ == "__main__":  # python tiny.py RUN SHARDS [JSON settings]: one run, for tests that kill it
    run = trainer(Path(sys.argv[1]), Path(sys.argv[2]), settings(**json.loads(sys.argv[3] if sys.argv[3:] else "{}")))
    run.train()
