"""What a system must tell the trainer: its networks, its optimisers, and the losses of each optimiser's update.

The trainer does the rest: batches, micro-batches, mixed precision, compilation, ranks, averaging of weights,
checkpoints, curves. One iteration runs the updates in the order they are declared::

    for update in objective.updates:                  # e.g. generator, then discriminator
        only the parameters of update.optimizer require gradients; gradients are cleared
        for term in update.terms due at this step:    # e.g. adversarial every step, R1 every 16th
            for part in the micro-batches: total, parts = term.loss(part, moment); total / parts -> backward
        gradients are averaged over the ranks; the optimiser steps
    objective.after(moment)                           # momentum encoder, queue, adaptive augmentation
    the averaged networks follow the trained ones

Nothing else may be needed to go on after a kill: whatever a system must remember (a queue, an adaptive probability)
is a buffer of one of its ``networks``, and every random number comes from ``moment.generator`` or from torch's
default generator. Both are seeded anew at every step from (seed, rank, step), so there is no state to save.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]
"""One (micro-)batch on the training device.

``image``  (N, 3, H, W) float32 in [-1, 1]
``camera`` (N, 25) float32, the label of `models.camera` (mirrored together with its picture)
``index``  (N,) int64, number of the sample in the data set
``mask``   (N, 1, H, W) float32 in [0, 1], where the stage asks for masks
``parsing`` (N, H, W) uint8, classes of `ops.store.parsing` (mirrored together with its picture), where asked for
``face``   (N, 3, h, h) float32 in [-1, 1], where the stage asks for face pictures
``identity``, ``expression`` (N, codes) float32, the parametric face behind the picture (mirrored together with it),
           where the stage asks for fits; ``camera`` is then the fit's, in the head's frame
``mirrored`` (N,) bool
"""


@dataclass(frozen=True)
class Moment:
    """Where training stands while a loss is computed.

    Attributes:
        step: iterations finished before this one.
        images: real images seen before this one, over all ranks.
        phase: name of the declared phase in force ("all" where none is declared).
        settings: settings of the phase and the values of the schedules at ``images``.
        generator: this rank's random numbers, on the training device.
        device: the training device.
    """

    step: int
    images: int
    generator: torch.Generator
    device: torch.device
    phase: str = "all"
    settings: Mapping[str, float | bool | str] = field(default_factory=dict)


Loss = Callable[[Batch, Moment], tuple[Tensor, dict[str, Tensor]]]
"""(batch, moment) -> (the scalar to minimise, averaged over the batch; named scalars for the curves)."""


@dataclass(frozen=True)
class Term:
    """One loss of an update; its graph is freed before the next term's is built.

    Attributes:
        name: what it is called in timings; unique within an objective.
        loss: computes it. The curves' names need no prefix but must be unique within an objective.
        every: due at steps divisible by this number (lazy regularisation; weigh the loss accordingly).
        second_order: it differentiates through a gradient (R1): runs eagerly and in float32 whatever the trainer's
            ``compile`` and ``amp`` say.
    """

    name: str
    loss: Loss
    every: int = 1
    second_order: bool = False


@dataclass(frozen=True)
class Update:
    """One step of one optimiser: the sum of the terms that are due. Without any term due it is left out.

    Attributes:
        optimizer: its key in ``Objective.optimizers``.
        terms: losses whose gradients add up, in order.
        clip: largest global norm of the gradient; None for no limit.
    """

    optimizer: str
    terms: tuple[Term, ...]
    clip: float | None = None


class Objective(Protocol):
    """A system as the trainer sees it. Build it on the CPU; the trainer moves the networks to the device. Plain
    attributes will do for the properties.

    Attributes:
        networks: everything that is saved, with unique keys: trained networks and frozen companions (a momentum
            encoder, a queue as a module with buffers). Their state must be the same on every rank; use
            `ops.train.ddp.gather` for what a rank learns alone.
        averaged: keys of ``networks`` that get an exponential moving average, made and kept by the trainer.
        optimizers: by name; a parameter belongs to one optimiser at most.
        updates: what one iteration does, in order.
    """

    @property
    def networks(self) -> Mapping[str, nn.Module]: ...

    @property
    def averaged(self) -> Sequence[str]: ...

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]: ...

    @property
    def updates(self) -> Sequence[Update]: ...

    def after(self, moment: Moment) -> None:
        """Called once after all updates of a step, without gradients."""

    def sample(self, networks: Mapping[str, nn.Module], rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """Pictures for the grid: (rows * columns, 3, H, W) in [-1, 1], row by row, one identity a row where the system
        has views. ``networks`` are the averaged ones where there are, else the trained ones; called without gradients.
        The same state of ``generator`` (on the networks' device) must give the same codes and cameras.
        """
        ...


@runtime_checkable
class Draws(Protocol):
    """An objective whose snapshots can be measured: pictures drawn as the data are, not arranged for the eye."""

    def draw(
        self, networks: Mapping[str, nn.Module], count: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """``count`` pictures (N, 3, H, W) in [-1, 1] from cameras (N, 25) spread over the data set, a few at a time.
        ``networks`` and ``generator`` as for `Objective.sample`.
        """
        ...
