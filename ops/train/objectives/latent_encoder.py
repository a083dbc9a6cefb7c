"""E_latent's lesson (appendix A.2.1): pictures to styles from which the prior paints them again.

Pixels, perceptual distance and identity (Equation 2) want the picture back; e4e's discriminator wants the styles to
look like the mapping network's, and its regularisation wants them to differ little from the first (Tov et al. 2021).
Styles are let differ one after the other. Of the prior's own samples, rendered picture and tri-plane are known too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from models.encoders import LatentDiscriminator
from models.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from ops.train import ddp
from ops.train.objective import Batch, Moment, Term, Update
from ops.train.objectives.inversion import InversionTraining, Named, Pose, World, in_rows, last, other_views, rows_of


class LatentTraining(InversionTraining):
    """Weights and rates."""

    perceptual: float = Field(default=0.5, ge=0)  # A.2.1
    identity: float = Field(default=0.25, ge=0)  # A.2.1
    identity_elsewhere: float = Field(default=0.25, ge=0, description="the same from another camera")  # public code
    adversarial: float = Field(default=1.0, ge=0)  # public code: w_disc
    delta: float = Field(default=1e-3, ge=0, description="weight of the styles' differences from the first")  # e4e
    lr_discriminator: float = Field(default=1e-4, gt=0)  # A.2.1
    r1: float = Field(default=10.0, ge=0)  # e4e
    r1_every: int = Field(default=16, ge=1)  # e4e
    pool: int = Field(default=50, ge=0, description="encoded styles remembered for the discriminator")  # e4e
    second_style: int = Field(default=160_000, ge=0, description="images before the second style")  # e4e: 20,000 of 8
    next_style: int = Field(default=16_000, ge=1, description="images from one style to the next")  # e4e: 2,000 of 8


class Pool(nn.Module):
    """Encoded styles of earlier steps: the discriminator sees one of them in place of a new one half of the time."""

    kept: Tensor
    count: Tensor

    def __init__(self, size: int, w_size: int) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(size, w_size))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def exchange(self, ws: Tensor, random: torch.Generator) -> Tensor:
        """(N, w_size) new styles to as many, new or old; new ones are kept in the place of what is given out."""
        if not len(self.kept):
            return ws
        filled, out = int(self.count), []
        for w in ws:
            place, old = torch.randint(len(self.kept), (2,), generator=random, device=random.device).tolist()
            if filled < len(self.kept):
                self.kept[filled] = w
                filled += 1
                out.append(w)
            elif old % 2:
                out.append(self.kept[place].clone())
                self.kept[place] = w
            else:
                out.append(w)
        self.count.fill_(filled)
        return torch.stack(out)


class LatentObjective:
    """`ops.train.objective.Objective` of E_latent.

    Args:
        world: the prior, its people, and how they are compared.
        training: weights and rates.
        shown: pictures of the previews and their poses.
    """

    networks: Mapping[str, nn.Module]
    averaged: Sequence[str] = ("latent",)
    optimizers: Mapping[str, torch.optim.Optimizer]
    updates: Sequence[Update]

    def __init__(self, world: World, training: LatentTraining, shown: tuple[Tensor, Pose]) -> None:
        self.world, self.training, self.shown = world, training, shown
        self.latent = world.inverter.latent
        w_size = world.prior.config.mapping.w_size
        self.critic, self.pool = LatentDiscriminator(w_size), Pool(training.pool, w_size)
        self.networks = {"latent": self.latent, "critic": self.critic, "pool": self.pool, "frozen": world.frozen}
        t = training
        self.optimizers = {
            "latent": torch.optim.Adam(self.latent.parameters(), lr=t.lr, betas=t.betas),
            "critic": torch.optim.Adam(self.critic.parameters(), lr=t.lr_discriminator, betas=t.betas),
        }
        judge = [Term("judge", self.judge)]
        if t.r1:
            judge.append(Term("r1", self.penalise, every=t.r1_every, second_order=True))
        self.updates = (
            Update("latent", (Term("reconstruct", self.reconstruct),)),
            *([Update("critic", tuple(judge))] if t.adversarial else []),
        )
        self._encoded: list[Tensor] = []  # styles that the discriminator has yet to see

    def enabled(self, images: int) -> int:
        """How many styles may differ after so many images."""
        t = self.training
        return 1 if images < t.second_style else 2 + (images - t.second_style) // t.next_style

    def reconstruct(self, batch: Batch, moment: Moment) -> Named:
        """Equation 2 without the discriminator's own part, with e4e's regularisation and the public code's terms."""
        t, world = self.training, self.world
        subjects = world.subjects(batch, moment)
        ws = world.inverter.styles(subjects.image, self.enabled(moment.images))
        found = world.inverter.coarse(ws)
        seen = world.show(found, subjects.pose)
        total, named = world.compare(seen.image, seen.raw, subjects.image, subjects.raw(seen.raw.shape[-1]))
        strange = world.likeness.strangeness(seen.image, subjects.image) if t.identity else None
        if strange is not None:
            named["identity"] = strange
            total = total + t.identity * strange
            drawn = world.poses(len(ws), moment.generator)
            elsewhere = world.show(found, subjects.pose._replace(camera=drawn.camera))
            beside = world.likeness.strangeness(elsewhere.image, subjects.image)
            assert beside is not None
            named["identity_elsewhere"] = beside
            total = total + t.identity_elsewhere * beside
        if subjects.canonical is not None:
            apart, more = world.within(last(found, len(subjects.canonical.ws)), subjects.canonical, textures=False)
            total, named = total + apart, {**named, **more}
        named["delta"] = (ws[:, 1:] - ws[:, :1]).norm(dim=2).sum(1).mean()
        total = total + t.delta * named["delta"]
        if t.adversarial:
            self._encoded.append(ws.detach())
            named["fool"] = generator_loss(self.critic(ws))
            total = total + t.adversarial * named["fool"]
        return total, named

    def judge(self, batch: Batch, moment: Moment) -> Named:
        """The mapping network's styles against encoded ones, one of each picture, some of them of earlier steps."""
        ws = self._encoded.pop(0)
        which = torch.randint(ws.shape[1], (len(ws),), generator=moment.generator, device=ws.device)
        fake = self.pool.exchange(ddp.gather(ws[torch.arange(len(ws)), which]), moment.generator)
        loss = discriminator_loss(self.critic(self._real(len(ws), moment)), self.critic(fake))
        return loss, {"judge": loss}

    def penalise(self, batch: Batch, moment: Moment) -> Named:
        """R1 on the mapping network's styles."""
        real = self._real(len(batch["image"]), moment).requires_grad_()
        penalty = r1_penalty(self.critic(real), real)
        return self.training.r1 / 2 * self.training.r1_every * penalty, {"r1": penalty}

    @torch.no_grad()
    def _real(self, count: int, moment: Moment) -> Tensor:
        mapping = self.world.prior.mapping
        z = torch.randn(count, mapping.config.z_size, generator=moment.generator, device=moment.device)
        return mapping(z, self.world.poses(count, moment.generator).camera)[:, 0]

    def after(self, moment: Moment) -> None:
        """Forget what was not judged."""
        self._encoded.clear()

    def sample(self, networks: Mapping[str, nn.Module], rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """A row each: the picture, its reconstruction, other views and expressions."""
        image, pose = rows_of(self.shown, rows, generator.device)
        found = self.world.inverter.coarse(self.world.inverter.having(latent=networks["latent"]).styles(image))
        cells = [image, self.world.paint(found, pose).image]
        for view in other_views(pose):
            if len(cells) >= columns:
                break
            cells.append(self.world.paint(found, view).image)
        return in_rows(cells[:columns])
