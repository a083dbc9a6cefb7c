"""GIRAFFE's game (Eq. 5), plain or with momentum contrast between views of its own objects (Eq. 10).

One iteration: the generator against the discriminator, then the discriminator with R1. The variants ``infonce`` and
``aamnce`` add alpha times the contrastive loss to both. Its pictures are rendered once an iteration: objects from the
front, I_c, and from another angle, I_a. The generator learns from I_c through EncA; the discriminator's body and the
shared Conv then learn from the same pictures. Keys come from EncB, so gradients flow through the queries only. Eq. 10
writes the loss with phi alone, while Fig. 2 and Sec. 3.3 have all parts trained jointly: we follow the latter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, cast, get_args

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from models.giraffe import Generator, GiraffeConfig, Latents, between, view_label
from models.giraffe_discriminator import Contrast, Discriminator
from models.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from models.losses.contrastive import MARGIN, TEMPERATURE, aam_nce
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.train import ddp
from ops.train.objective import Batch, Moment, Term, Update

Variant = Literal["giraffe", "infonce", "aamnce"]

# R1 is measured on pictures in [0, 1], as the public code has them: their gradient is twice that on [-1, 1].
R1_SPAN = 2.0**2


class GiraffeTraining(Params):
    """Weights and rates of the losses."""

    lr_generator: float = Field(default=2.5e-4, gt=0)  # configs/256res/celebahq_256.yaml
    lr_discriminator: float = Field(default=1e-4, gt=0)  # configs/default.yaml; RMSprop with torch's defaults
    r1: float = Field(default=10.0, ge=0)  # lambda of Eq. 5, without a half
    r1_every: int = Field(default=1, ge=1)  # the public code: every step
    alpha: float = Field(default=0.1, ge=0)  # Sec. 3.3, after Eq. 10
    margin: float = Field(default=MARGIN, ge=0, le=math.pi)  # m of Eq. 9, radians: Sec. 3.2
    temperature: float = Field(default=TEMPERATURE, gt=0)  # tau of Eq. 8; unpublished: our choice, as MoCo
    momentum: float = Field(default=0.999, ge=0, le=1)  # of EncB; unpublished: our choice, as MoCo
    queue: int = Field(default=4096, ge=1)  # negative keys kept; unpublished: our choice
    azimuth: float = Field(default=60.0, ge=0, le=180)  # I_a within +- degrees, uniform; unpublished: our choice


class GiraffeObjective:
    """`ops.train.objective.Objective` of one variant.

    Args:
        model: sizes of the networks.
        training: weights and rates.
        variant: ``giraffe`` (no contrast), ``infonce`` (Eq. 8) or ``aamnce`` (Eq. 9).

    Raises:
        LineamentError: for another variant.
    """

    networks: Mapping[str, nn.Module]
    averaged: Sequence[str] = ("generator",)
    optimizers: Mapping[str, torch.optim.Optimizer]
    updates: Sequence[Update]

    def __init__(self, model: GiraffeConfig, training: GiraffeTraining, variant: str) -> None:
        if variant not in get_args(Variant):
            raise LineamentError(f"GIRAFFE has no variant {variant!r}; choose one of {', '.join(get_args(Variant))}.")
        self.model = model
        self.training = training
        self.margin = training.margin if variant == "aamnce" else 0.0
        self.generator = Generator(model)
        self.discriminator = Discriminator(model)
        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        judges = list(self.discriminator.parameters())
        fool, judge = [Term("generator", self.fool)], [
            Term("discriminator", self.judge),
            Term("r1", self.smooth, every=training.r1_every, second_order=True),
        ]  # fmt: skip
        if variant != "giraffe":
            self.contrast = Contrast(model, self.discriminator, training.queue)
            self.networks["contrast"] = self.contrast
            judges += self.contrast.conv.parameters()
            fool.append(Term("generator contrast", self.keep_identity))
            judge.append(Term("discriminator contrast", self.tell_apart))
        self.optimizers = {
            "generator": torch.optim.RMSprop(self.generator.parameters(), lr=training.lr_generator),
            "discriminator": torch.optim.RMSprop(judges, lr=training.lr_discriminator),
        }
        self.updates = (Update("generator", tuple(fool)), Update("discriminator", tuple(judge)))
        # Within an iteration: the contrastive pictures the discriminator has yet to see, the keys to be queued.
        self._shown: list[tuple[Tensor, Tensor, Tensor]] = []
        self._keys: list[tuple[Tensor, Tensor]] = []

    def render(self, n: int, moment: Moment) -> Tensor:
        """(N, 3, R, R) pictures of new objects from the training distribution of views."""
        random = moment.generator
        latents, view = self.generator.sample_latents(n, random), self.generator.sample_view(n, random)
        return self.generator(latents, view, self.generator.sample_noise(n, random))

    def render_from(self, latents: Latents, azimuth: Tensor, moment: Moment) -> Tensor:
        """(N, 3, R, R) pictures of given objects from (N,) azimuths in radians."""
        noise = self.generator.sample_noise(len(azimuth), moment.generator)
        return self.generator(latents, view_label(self.model, azimuth), noise)

    def fool(self, batch: Batch, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """The generator's part of Eq. 5."""
        loss = generator_loss(self.discriminator(self.render(len(batch["image"]), moment)))
        return loss, {"generator": loss}

    def judge(self, batch: Batch, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's part of Eq. 5 without the penalty."""
        with torch.no_grad():
            fake = self.render(len(batch["image"]), moment)
        real_logits, fake_logits = self.discriminator(batch["image"]), self.discriminator(fake)
        loss = discriminator_loss(real_logits, fake_logits)
        return loss, {"discriminator": loss, "real": real_logits.mean(), "fake": fake_logits.mean()}

    def smooth(self, batch: Batch, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """``lambda ||grad D||^2`` of Eq. 5."""
        image = batch["image"].detach().requires_grad_()
        penalty = R1_SPAN * r1_penalty(self.discriminator(image), image)
        return self.training.r1 * self.training.r1_every * penalty, {"r1": penalty}

    def keep_identity(self, batch: Batch, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """``alpha L`` of Eq. 10 for the generator; remembers pictures and keys for :meth:`tell_apart`."""
        n, random = len(batch["image"]), moment.generator
        latents = self.generator.sample_latents(n, random)
        limit = math.radians(self.training.azimuth)
        azimuth = between(torch.rand(n, generator=random, device=random.device), -limit, limit)
        with torch.no_grad():
            keys = self.contrast.keys(self.render_from(latents, azimuth, moment))
        front = self.render_from(latents, torch.zeros_like(azimuth), moment)
        objects = self._numbers(n, moment)
        self._shown.append((front.detach(), keys, objects))
        loss = self._contrast(front, keys, objects)
        return self.training.alpha * loss, {"generator_contrast": loss}

    def tell_apart(self, batch: Batch, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """``alpha L`` of Eq. 10 for EncA and Conv, on the pictures that the generator has just learnt from."""
        front, keys, objects = self._shown.pop(0)
        self._keys.append((keys, objects))
        loss = self._contrast(front, keys, objects)
        return self.training.alpha * loss, {"contrast": loss}

    def after(self, moment: Moment) -> None:
        """EncB follows EncA; the keys of all ranks join the queue, the same on every rank."""
        if not self._keys:
            return
        keys, objects = (torch.cat(parts) for parts in zip(*self._keys))
        self._keys.clear()
        self.contrast.follow(self.discriminator, self.training.momentum)
        self.contrast.queue.push(ddp.gather(keys), ddp.gather(objects))

    def sample(self, networks: Mapping[str, nn.Module], rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """One object a row, turned from +60 to -60 degrees of azimuth over the columns (Fig. 5)."""
        network = cast(Generator, networks["generator"])
        azimuth = torch.linspace(1, -1, columns, device=generator.device) if columns > 1 else torch.zeros(1)
        labels = view_label(self.model, azimuth.to(generator.device) * math.radians(60))
        latents = network.sample_latents(rows, generator)
        rendered = [network(Latents(*(z[i].expand(columns, -1) for z in latents)), labels) for i in range(rows)]
        return torch.cat(rendered)

    def _contrast(self, front: Tensor, keys: Tensor, objects: Tensor) -> Tensor:
        negatives, mask = self.contrast.queue.negatives(keys, objects)
        query = self.contrast.queries(front, self.discriminator)
        return aam_nce(query, keys, negatives, self.training.temperature, self.margin, mask)

    def _numbers(self, n: int, moment: Moment) -> Tensor:
        """A number for each new object that no other object of the run has, on any rank."""
        first = sum(len(objects) for _, _, objects in self._shown)
        rank = dist.get_rank() if dist.is_initialized() else 0
        turn = moment.step * ddp.world() + rank
        return torch.arange(first, first + n, device=moment.device) + (turn << 20)
