"""E_tex's and E_tri's lesson (appendix A.2.2): what the style misses of a single picture, as changes of the features.

E_latent is fixed. Real pictures are to be painted again as they are; of the prior's own samples, another view with
another expression is asked for, and textures and tri-plane should be the prior's (Equation 3). Late in training a
discriminator, which is told no camera, compares the prior's samples with their reconstructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from models.discriminators import Discriminator, Shown
from models.inversion import Canonical
from models.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from ops.train.objective import Batch, Moment, Term, Update
from ops.train.objectives.inversion import (
    InversionTraining,
    Named,
    Pose,
    Subjects,
    World,
    in_rows,
    last,
    other_views,
    rows_of,
)

Pair = tuple[Tensor, Tensor]  # pictures (N, 3, R, R) and rendered pictures (N, 3, r, r)


class ImageTraining(InversionTraining):
    """Weights and rates."""

    adversarial: float = Field(default=0.1, ge=0)  # A.2.2
    adversarial_after: int = Field(default=800_000, ge=0, description="images")  # A.2.2: the last of five days
    lr_discriminator: float = Field(default=1e-3, gt=0)  # A.2.2; public code: 2.5e-5
    r1: float = Field(default=1.0, ge=0)  # EG3D's gamma; the public code's scripts have 1 and 8
    r1_every: int = Field(default=16, ge=1)  # EG3D
    mapping_layers: int = Field(default=8, ge=1)  # StyleGAN2


class Game:
    """The dual discriminator of both image stages: the prior's samples are real, their reconstructions are not."""

    def __init__(self, world: World, training: ImageTraining) -> None:
        self.training = training
        config = world.prior.config.discriminator(image_channels=6, label_size=0)
        self.critic = Discriminator(config)
        rate = training.lr_discriminator
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=rate, betas=(0.0, 0.99), eps=1e-8)  # EG3D
        self._pairs: list[tuple[Pair, Pair]] = []
        self._judged: tuple[Pair, Pair] | None = None

    @property
    def update(self) -> Update:
        """Of the discriminator."""
        t = self.training
        lazy = [Term("r1", self.penalise, every=t.r1_every, second_order=True)] if t.r1 else []
        return Update("critic", (Term("judge", self.judge), *lazy))

    def fool(self, real: Pair, fake: Pair, moment: Moment) -> Named:
        """The encoders' part; remembers the pictures for the discriminator's own. Nothing before its time."""
        if not self.training.adversarial or moment.images < self.training.adversarial_after:
            return real[0].new_zeros(()), {}
        loss = generator_loss(self.critic(Shown(*fake)))
        self._pairs.append((real, (fake[0].detach(), fake[1].detach())))
        return self.training.adversarial * loss, {"fool": loss}

    def judge(self, batch: Batch, moment: Moment) -> Named:
        """The discriminator's part."""
        if not self._pairs:
            return batch["image"].new_zeros(()), {}
        self._judged = self._pairs.pop(0)
        real, fake = self._judged
        loss = discriminator_loss(self.critic(Shown(*real)), self.critic(Shown(*fake)))
        return loss, {"judge": loss}

    def penalise(self, batch: Batch, moment: Moment) -> Named:
        """R1 on the prior's samples that were judged last."""
        if self._judged is None:
            return batch["image"].new_zeros(()), {}
        image, raw = (part.detach().requires_grad_() for part in self._judged[0])
        penalty = r1_penalty(self.critic(Shown(image, raw)), image, raw)
        return self.training.r1 / 2 * self.training.r1_every * penalty, {"r1": penalty}

    def forget(self) -> None:
        """At the end of a step."""
        self._pairs.clear()
        self._judged = None


class ImageObjective:
    """`ops.train.objective.Objective` of E_tex and E_tri on single pictures.

    Args:
        world: the prior, its people, and how they are compared; its E_latent is trained.
        training: weights and rates.
        shown: pictures of the previews and their poses.
    """

    networks: Mapping[str, nn.Module]
    averaged: Sequence[str] = ("latent", "texture", "triplane")
    optimizers: Mapping[str, torch.optim.Optimizer]
    updates: Sequence[Update]

    def __init__(self, world: World, training: ImageTraining, shown: tuple[Tensor, Pose]) -> None:
        self.world, self.training, self.shown = world, training, shown
        self.inverter, self.game = world.inverter, Game(world, training)
        self.networks = {
            **{name: getattr(self.inverter, name) for name in self.averaged},
            "critic": self.game.critic,
            "frozen": world.frozen,
        }
        encoders = self.learning()
        self.optimizers = {
            "encoders": torch.optim.Adam(encoders, lr=training.lr, betas=training.betas),
            "critic": self.game.optimizer,
        }
        updates = [Update("encoders", (Term("reconstruct", self.reconstruct),))]
        self.updates = (*updates, self.game.update) if training.adversarial else tuple(updates)

    def learning(self) -> list[nn.Parameter]:
        """The weights that learn."""
        return [*self.inverter.texture.parameters(), *self.inverter.triplane.parameters()]

    def still(self) -> None:
        """Put what does not learn into evaluation mode, whose statistics would move otherwise."""
        self.inverter.latent.eval()

    def reconstruct(self, batch: Batch, moment: Moment) -> Named:
        """Equation 3."""
        self.still()
        world = self.world
        subjects = world.subjects(batch, moment)
        found = self.avatar(subjects)
        wanted = self._elsewhere(subjects, moment)
        seen = world.show(found, wanted.pose)
        total, named = world.compare(seen.image, seen.raw, wanted.image, wanted.raw(seen.raw.shape[-1]))
        if wanted.canonical is not None and wanted.shown is not None:
            count = len(wanted.canonical.ws)
            apart, more = world.within(last(found, count), wanted.canonical)
            fooled, yet_more = self.game.fool(
                (wanted.shown.image, wanted.shown.raw), (seen.image[-count:], seen.raw[-count:]), moment
            )
            total, named = total + apart + fooled, {**named, **more, **yet_more}
        return total, named

    def avatar(self, subjects: Subjects) -> Canonical:
        """Of single pictures."""
        with torch.no_grad():
            ws = self.inverter.styles(subjects.image)
        state = self.inverter.begin(ws)
        return self.inverter.canonical(self.inverter.add(state, self.world.frame(subjects.image, subjects.pose)))

    def _elsewhere(self, subjects: Subjects, moment: Moment) -> Subjects:
        """The same people; those of the prior seen from elsewhere and with another expression."""
        if subjects.canonical is None:
            return subjects
        real, count = subjects.real, len(subjects.canonical.ws)
        drawn = self.world.poses(count, moment.generator)
        pose = Pose(subjects.pose.identity[real:], drawn.expression, drawn.camera)
        shown = self.world.paint(subjects.canonical, pose)
        together = Pose(*(torch.cat([a[:real], b]) for a, b in zip(subjects.pose, pose)))
        return Subjects(torch.cat([subjects.image[:real], shown.image]), together, subjects.canonical, shown)

    def after(self, moment: Moment) -> None:
        """Forget what was judged."""
        self.game.forget()

    def sample(self, networks: Mapping[str, nn.Module], rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """A row each: the picture, E_latent's reconstruction, the encoders', other views and expressions."""
        image, pose = rows_of(self.shown, rows, generator.device)
        inverter = self.inverter.having(**{name: networks[name] for name in self.averaged})
        state = inverter.start(self.world.frame(image, pose))
        found = inverter.canonical(state)
        views: Iterable[tuple[Canonical, Pose]] = [(state.coarse, pose), (found, pose)]
        cells = [image, *(self.world.paint(*view).image for view in views)]
        for view in other_views(pose):
            if len(cells) >= columns:
                break
            cells.append(self.world.paint(found, view).image)
        return in_rows(cells[:columns])


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (N,) of pictures (N, 3, H, W) in [-1, 1], decibels."""
    return 10 * torch.log10(4 / (a - b).square().mean(dim=(1, 2, 3)).clamp_min(1e-10))
