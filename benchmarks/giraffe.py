"""GIRAFFE at the paper's size, 256 x 256, batch 4: the fast renderer against the plain one, and whole training steps.

The public code's step (commit fc8d450, the plain GAN: generator, discriminator, R1, averaging of weights) was measured
at 2.63 s on 2 shared x86-64 cores; its row compares with that figure and so holds for such a machine only. The plain
path does in this run, on this machine, the same work that the public code does.
"""

from __future__ import annotations

import torch

from benchmarks.harness import Row, alternate, at_most, speedup
from models.giraffe import Generator, GiraffeConfig
from ops.train.clock import Clock
from ops.train.objective import Moment
from ops.train.objectives.giraffe import GiraffeObjective, GiraffeTraining
from ops.train.settings import TrainerParams
from ops.train.update import Average, Updater
from ops.train.window import Window

BATCH = 4
PUBLIC_STEP = 2.63  # seconds
CPU = torch.device("cpu")


def rows() -> list[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        return [*renderer(), *training()]
    finally:
        torch.set_num_threads(threads)


def renderer() -> list[Row]:
    """Forward, forward and backward, and the largest difference of the pictures."""
    torch.manual_seed(0)
    network = Generator(GiraffeConfig())
    random = torch.Generator().manual_seed(0)
    inputs = network.sample_latents(BATCH, random), network.sample_view(BATCH, random)
    noise = network.sample_noise(BATCH, random)

    @torch.no_grad()
    def forward(plain: bool) -> torch.Tensor:
        return (network.reference if plain else network)(*inputs, noise)

    def both(plain: bool) -> None:
        network.zero_grad(set_to_none=True)
        (network.reference if plain else network)(*inputs, noise).square().mean().backward()

    difference = (forward(True) - forward(False)).abs().max().item()
    return [
        at_most("giraffe/render, difference from the plain path", difference, "of [-1, 1]", 1e-5),
        speedup("giraffe/render 256, batch 4", *alternate(lambda: forward(False), lambda: forward(True), 3), 1.5),
        speedup("giraffe/render and gradients", *alternate(lambda: both(False), lambda: both(True), 3), 1.5),
    ]


def training() -> list[Row]:
    """A whole step of the plain GAN, as the public code takes it, and of the contrastive one."""
    step, plain, contrastive = Step("giraffe"), Step("giraffe", plain=True), Step("aamnce")
    ours, reference = alternate(step, plain, 3)
    with_contrast, _ = alternate(contrastive, lambda: None, 3)
    return [
        speedup("giraffe/training step, plain path as reference", ours, reference, 2.0),
        speedup("giraffe/training step, public 2.63 s as reference", ours, PUBLIC_STEP, 2.0),
        Row("giraffe/training step, aamnce", with_contrast, "s", ours, ours / with_contrast, "of the step without it"),
    ]


class Step:
    """Calling it trains one iteration, as the trainer does."""

    def __init__(self, variant: str, plain: bool = False) -> None:
        torch.manual_seed(0)
        objective = GiraffeObjective(GiraffeConfig(), GiraffeTraining(), variant)
        if plain:
            objective.generator.forward = objective.generator.reference  # type: ignore[method-assign]
        self.updater = Updater(objective, TrainerParams(batch=BATCH, device="cpu"), CPU, Clock(CPU))
        self.average = Average({"generator": objective.generator}, 0.999)
        self.random = torch.Generator().manual_seed(0)
        self.batch = {"image": torch.rand(BATCH, 3, 256, 256, generator=self.random) * 2 - 1}
        self.step = 0

    def __call__(self) -> None:
        self.updater.step(self.batch, Moment(self.step, self.step * BATCH, self.random, CPU), Window())
        self.step += 1
        self.average.follow(self.step)
