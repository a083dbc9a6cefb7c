"""From a stage's parameters to its published checkpoint: what the training stages of all systems share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ops import registry
from ops.runtime.publish import publish, remove
from ops.runtime.shardwork import code_hash, digest
from ops.runtime.stage import Stage
from ops.train import checkpoint
from ops.train.data import Pictures
from ops.train.export import parameter_counts, preview, publish_run, read_weights
from ops.train.loop import Trainer
from ops.train.objective import Objective
from ops.train.settings import TrainerParams

CODE = ("models", "ops.train")


def train_and_publish(
    s: Stage[Any],
    build: Callable[[Pictures], Objective],
    shards: Path,
    out: Path,
    *,
    params: TrainerParams,
    resolution: int,
    masks: bool = False,
    parsing: bool = False,
    faces: int = 0,
    fits: Sequence[int] | None = None,
    facts: Mapping[str, Any],
) -> None:
    """Train an objective on shards and publish the result.

    The run's folder under ``s.work`` is named by the hash of configuration, data and code, so that a killed run goes
    on only where all three are the same. Its checkpoints are dropped once the result stands; curves, events, pictures
    and timings (``clock.json``, copied beside it) stay.

    Args:
        s: the stage; gets progress, metrics and preview.
        build: makes the objective of this data set, on the CPU; torch is seeded before.
        shards: the data set.
        out: where the result is published.
        params: of the trainer.
        resolution: side of the pictures the objective takes.
        masks, parsing: whether it wants masks, the class of each pixel.
        faces: side of the face pictures it wants beside the others; 0 for none.
        fits: the mirrored expression units of the face model, where it wants fitted faces; see `Pictures`.
        facts: JSON that defines the run, written to ``config.json``: ``system``, ``variant``, ``params``.
    """
    pictures = Pictures(
        shards, resolution, masks=masks, cache_mb=params.cache_mb, parsing=parsing, faces=faces, fits=fits
    )
    torch.manual_seed(params.seed)
    objective = build(pictures)
    folder = s.work / f"run-{digest(facts, pictures.hash, code_hash(_modules()))[:12]}"
    trainer = Trainer(objective, pictures, params, folder, s, facts)
    if trainer.ranks.main:
        start_from(trainer, out)
        _mention_others(s, folder)
    trainer.train()
    if not trainer.ranks.main:
        return
    publish_run(trainer, out)
    last = {k: float(f"{v:.6g}") for k, v in trainer.curves.last().items() if k not in ("step", "images")}
    s.metrics({"step": trainer.step, "images": trainer.images, "parameters": parameter_counts(trainer), "last": last})
    s.preview(preview(trainer))
    for path in checkpoint.all_of(folder):
        remove(path)
    with publish(s.work / "clock.json") as path:
        path.write_bytes((folder / "clock.json").read_bytes())


def start_from(trainer: Trainer, out: Path) -> None:
    """Put the weights of the registered version that ``start`` names into the networks, trained and averaged.

    Raises:
        LineamentError: no such version, its files are gone, or it is of another architecture.
    """
    name = out.as_posix().removeprefix(registry.CHECKPOINTS)
    number = trainer.params.start.get(name)
    if number is None:
        return
    version = registry.read(Path()).model(name).version(number)
    folder = registry.check_out(Path(), name, version, registry.STARTS)
    trained = read_weights(folder, "networks")
    for part, network in trainer.objective.networks.items():
        checkpoint.load_network(network, checkpoint.unpack(trained, part), folder)
    for part, network in trainer.average.networks.items():
        checkpoint.load_network(network, read_weights(folder, part), folder)
    trainer.watch.log(f"starting from version {number} of {name}")


def _modules() -> list[str]:
    """The loaded modules whose text decides what training computes."""
    return [
        name
        for name, module in sys.modules.items()
        if (name in CODE or name.startswith(tuple(f"{code}." for code in CODE))) and getattr(module, "__file__", None)
    ]


def _mention_others(s: Stage[Any], folder: Path) -> None:
    """Say which unfinished runs of other settings, data or code are kept."""
    for other in sorted(s.work.glob("run-*")):
        newest = checkpoint.newest(other)
        if other != folder and newest is not None:
            s.log(
                f"{other} holds an unfinished run of other settings, data or code ({newest.name}); it is left alone. "
                "Delete it if it is not wanted."
            )
