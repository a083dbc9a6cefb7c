"""A small loop for networks that learn from known answers: the labelling networks, trained by the pipeline itself.

Like the trainer of the generators it goes on where a killed run stopped and ends in the same bytes: every batch is a
function of (seed, step), and the number of threads is a parameter. It has one network, one optimiser, one loss.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish, remove
from ops.runtime.shardwork import digest
from ops.runtime.stage import Stage
from ops.train import checkpoint
from ops.train.checkpoint import Checkpoint
from ops.train.curves import Curves
from ops.train.export import CONFIG
from ops.train.loop import numerics
from ops.train.settings import TrainerParams
from ops.train.window import Window

NETWORK, OPTIMIZER = "network", "optimizer"

Loss = Callable[[nn.Module, np.random.Generator], tuple[Tensor, dict[str, Tensor]]]
"""(network, random numbers of this step) -> (the scalar to minimise, named scalars for the curves)."""


class LearningParams(Params):
    """Length and pace of learning. All unpublished: our choice."""

    steps: int = Field(default=6000, gt=0)
    batch: int = Field(default=64, gt=0)
    lr: float = Field(default=1e-3, gt=0, description="highest learning rate; it rises at first, then falls to nothing")
    warm_up: float = Field(default=0.1, ge=0, lt=1, description="share of the steps in which it rises")
    weight_decay: float = Field(default=1e-2, ge=0)
    clip: float = Field(default=5.0, gt=0, description="largest norm of the gradient")
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=2, gt=0, description="CPU threads of torch; sums on the CPU depend on it")
    log_every: int = Field(default=20, gt=0)
    checkpoint_every: int = Field(default=200, gt=0)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step: a straight rise, then half a cosine."""
        rise = self.warm_up * self.steps
        if step < rise:
            return self.lr * (step + 1) / rise
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / (self.steps - rise)))


def learn(
    s: Stage[Any], network: nn.Module, loss: Loss, params: LearningParams, *, config: Mapping[str, Any], data: str
) -> Curves:
    """Train a network to the end, from the newest checkpoint if there is one; it ends in evaluation mode.

    Args:
        s: the stage; its work folder holds the run.
        network: as it starts; the caller seeds torch before building it.
        loss: of one batch.
        params: length and pace.
        config: JSON that defines the run; a run with another one is not continued.
        data: hash of the data, likewise.

    Raises:
        LineamentError: a damaged checkpoint, or a loss that is not finite.
    """
    config = json.loads(json.dumps(config))
    folder = s.work / f"run-{digest(config, data)[:12]}"
    optimizer = torch.optim.AdamW(network.parameters(), lr=params.lr, weight_decay=params.weight_decay)
    curves, window, start = Curves(), Window(), 0
    newest = checkpoint.newest(folder)
    if newest is not None:
        found = checkpoint.read(newest, same={"config": config, "data": data})
        checkpoint.load_network(network, found.tensors[NETWORK], newest)
        checkpoint.unpack_optimizer(optimizer, found.tensors[OPTIMIZER], found.record["optimizer"])
        curves, start = Curves.parse(found.record["curves"]), found.record["step"]
        window.load(found.record["window"], torch.device("cpu"))
        s.log(f"goes on from step {start} of {params.steps}")
    settings = TrainerParams(threads=params.threads)
    network.train()
    with numerics(settings, torch.device("cpu")):
        for step in s.progress(range(start, params.steps), total=params.steps - start, desc=s.name, unit="step"):
            for group in optimizer.param_groups:
                group["lr"] = params.lr_at(step)
            total, parts = loss(network, np.random.default_rng([params.seed, step]))
            if not torch.isfinite(total):
                raise LineamentError(
                    f"{s.name}: the loss is {total.item()} at step {step}. Use a lower {s.name}.learning.lr."
                )
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(network.parameters(), params.clip)
            optimizer.step()
            window.add(parts)
            done = step + 1
            if done % params.log_every == 0 or done == params.steps:
                curves.add(done, done * params.batch, window.means())
                window.clear()
            if done % params.checkpoint_every == 0 and done < params.steps:
                tensors, record = checkpoint.pack_optimizer(optimizer)
                state = {"config": config, "data": data, "step": done, "optimizer": record}
                state |= {"curves": curves.csv(), "window": window.state()}
                checkpoint.write(
                    folder, done, Checkpoint({NETWORK: dict(network.state_dict()), OPTIMIZER: tensors}, state), keep=1
                )
    network.eval()
    return curves


def publish_network(
    s: Stage[Any], network: nn.Module, curves: Curves, out: Path, *, config: Mapping[str, Any], data: str
) -> None:
    """Publish a network as ``network.safetensors``, ``config.json`` and ``curves.csv``; drop the run's checkpoints."""
    record = {**config, "data": data, "parameters": sum(p.numel() for p in network.parameters())}
    record |= {"revision": checkpoint.code_revision(), "torch": torch.__version__}
    with publish(out, folder=True) as folder:
        checkpoint.write_into(folder, CONFIG, Checkpoint({NETWORK: dict(network.state_dict())}, record))
        curves.write(folder / "curves.csv")
    for run in s.work.glob("run-*"):
        remove(run)
