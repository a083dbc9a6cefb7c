"""The recurrent decoders' lesson (section 3.4, appendix A.2.3): frame after frame, a better avatar.

A step shows a sequence of one person: a real clip, or one of the prior's people who moves as somebody in the clips did
(as the fits of pictures do, where there are no clips). The first frames only move the hidden states; gradients go
through up to four more. Then the avatar is to paint frames it was given and frames it has not seen, so that what
further frames tell is worth keeping. E_latent and the encoders' bodies are fixed, and so are the statistics that
normalise the decoders: in use, frames come one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from models import fir
from models.inversion import Canonical, Inverter, State
from ops.train.footage import Footage, Motion
from ops.train.objective import Batch, Moment
from ops.train.objectives.image_encoders import ImageObjective, ImageTraining, Named, psnr
from ops.train.objectives.inversion import Pose, World, in_rows, other_views

PREVIEWED = 8  # frames given in previews; unpublished: our choice


class RecurrentTraining(ImageTraining):
    """Weights and rates."""

    truncation: float = Field(default=0.6, gt=0, le=1)  # public code, stage 3
    together: int = Field(default=4, ge=1, description="frames that gradients go through, at most")  # A.2.3
    longest: int = Field(default=32, ge=1, description="frames of a sequence, at most")  # A.2.3
    targets: int = Field(default=4, ge=1, description="frames painted and compared a step")  # A.2.3
    unseen: int = Field(default=2, ge=0, description="of these, frames not given")  # unpublished: our choice
    held_out: float = Field(default=0.1, ge=0, lt=1, description="share of clips to measure on")  # unpublished: ours


class Film(NamedTuple):
    """Frames (N, T, 3, R, R) and how they move; of the prior's people also the rendered pictures (N, T, 3, r, r), and
    the avatars that were filmed."""

    image: Tensor
    motion: Motion
    raw: Tensor | None = None
    canonical: Canonical | None = None

    def frame(self, number: int) -> tuple[Tensor, Pose]:
        """One frame of each."""
        return self.image[:, number], pose_at(self.motion, number)


def pose_at(motion: Motion, number: int) -> Pose:
    """One pose of each person."""
    return Pose(motion.identity, motion.expression[:, number], motion.camera[:, number])


class RecurrentObjective(ImageObjective):
    """`ops.train.objective.Objective` of the recurrent decoders.

    Args:
        world: the prior, its people, and how they are compared; its E_latent and bodies are trained.
        training: weights and rates.
        shown: pictures of the previews and their poses, for when there are no clips.
        footage: clips to learn on.
        held_out: clips of the previews.
    """

    training: RecurrentTraining

    def __init__(
        self,
        world: World,
        training: RecurrentTraining,
        shown: tuple[Tensor, Pose],
        footage: Footage,
        held_out: Footage,
    ) -> None:
        self.footage, self.held_out = footage, held_out
        super().__init__(world, training, shown)

    def learning(self) -> list[nn.Parameter]:
        """All but the bodies."""
        parts = (self.inverter.texture, self.inverter.triplane)
        return [p for part in parts for name, p in part.named_parameters() if not name.startswith("unet.body.")]

    def still(self) -> None:
        """Everything: see the module's text."""
        for name in self.averaged:
            self.networks[name].eval()

    # --- sequences ---

    def film(self, count: int, length: int, random: torch.Generator, real: bool) -> Film:
        """Sequences of people, frames in any order."""
        if real:
            which, frames = self.footage.choose(count, length, random)
            taken = self.footage.take(which, frames)
            motion = Motion(*(x.to(random.device) for x in taken.motion))
            return Film(taken.image.to(random.device), motion)
        motion = self.motion(count, length, random)
        canonical = self.world.characters(motion.camera[:, 0], random, self.training.truncation)
        shown = [self.world.paint(canonical, pose_at(motion, t)) for t in range(length)]
        image, raw = (torch.stack(parts, dim=1) for parts in zip(*((x.image, x.raw) for x in shown)))
        return Film(image, motion, raw, canonical)

    def motion(self, count: int, length: int, random: torch.Generator) -> Motion:
        """Identities as they occur, moving as somebody in the clips did; without clips, as the fits of pictures do."""
        drawn = self.world.poses(count * length, random)
        identity = drawn.identity[::length]
        if not len(self.footage):
            return Motion(identity, *(x.unflatten(0, (count, length)) for x in (drawn.expression, drawn.camera)))
        found = self.footage.motion(*self.footage.choose(count, length, random))
        return Motion(identity, found.expression.to(random.device), found.camera.to(random.device))

    # --- losses ---

    def reconstruct(self, batch: Batch, moment: Moment) -> Named:
        """Equation 3 on frames given and not given, after a sequence of any length."""
        self.still()
        t, world = self.training, self.world
        given = _number(1, t.together)
        before = _number(0, (t.longest - given) // t.together) * t.together
        unseen = min(t.unseen, t.targets)
        share = 1 - t.synthetic if len(self.footage) else 0.0  # of steps on real clips, evenly among the others
        real = int((moment.step + 1) * share) > int(moment.step * share)
        film = self.film(len(batch["image"]), before + given + unseen, moment.generator, real)
        found = self._watch(film, before, given)
        again = torch.randperm(before + given)[: t.targets - unseen].tolist()
        targets = [*again, *range(before + given, before + given + unseen)]
        seen = [world.show(found, pose_at(film.motion, number)) for number in targets]
        fake = torch.cat([x.image for x in seen]), torch.cat([x.raw for x in seen])
        image = torch.cat([film.image[:, number] for number in targets])
        raw = fir.resize(image, fake[1].shape[-1])
        if film.raw is not None:
            raw = torch.cat([film.raw[:, number] for number in targets])
        total, named = world.compare(*fake, image, raw)
        if film.canonical is not None:
            apart, more = world.within(found, film.canonical)
            fooled, yet_more = self.game.fool((image, raw), fake, moment)
            total, named = total + apart + fooled, {**named, **more, **yet_more}
        return total, named

    def _watch(self, film: Film, before: int, given: int) -> Canonical:
        """The avatar after the first frames, which only move the hidden states, and those with gradients."""
        with torch.no_grad():
            state = self.inverter.begin(self.inverter.styles(film.image[:, 0]))
            for number in range(before):
                state = self.inverter.add(state, self.world.frame(*film.frame(number), first=number == 0))
        for number in range(before, before + given):
            state = self.inverter.add(state, self.world.frame(*film.frame(number), first=number == 0))
        return self.inverter.canonical(state)

    # --- looking and measuring ---

    def sample(self, networks: Mapping[str, nn.Module], rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """A row each: the first frame; a pose not given, as one frame tells it, as all tell it, and as it was; other
        views and expressions."""
        inverter = self.inverter.having(**{name: networks[name] for name in self.averaged})
        footage = self.held_out if len(self.held_out) else self.footage
        if len(footage):
            film = self._on(generator.device, footage, [n % len(footage) for n in range(rows)], PREVIEWED + 1)
        else:
            film = self.film(rows, PREVIEWED + 1, generator, real=False)
        states = self.states(inverter, film, (1, PREVIEWED))
        one, many = (inverter.canonical(states[count]) for count in (1, PREVIEWED))
        image, pose = film.frame(PREVIEWED)
        cells = [film.image[:, 0], self.world.paint(one, pose).image, self.world.paint(many, pose).image, image]
        for view in other_views(pose):
            if len(cells) >= columns:
                break
            cells.append(self.world.paint(many, view).image)
        return in_rows(cells[:columns])

    def states(self, inverter: Inverter, film: Film, counts: Sequence[int]) -> dict[int, State]:
        """The inversion after so many frames of a film."""
        state = inverter.begin(inverter.styles(film.image[:, 0]))
        found = {}
        for number in range(max(counts)):
            state = inverter.add(state, self.world.frame(*film.frame(number), first=number == 0))
            if number + 1 in counts:
                found[number + 1] = state
        return found

    @torch.no_grad()
    def curve(self, inverter: Inverter, films: Sequence[Film], counts: Sequence[int]) -> dict[int, dict[str, float]]:
        """Errors on the frames after the longest count, by how many frames were given: ``l1`` in [0, 2], ``psnr`` in
        decibels, and the perceptual distance, named after its network."""
        found: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
        for film in films:
            states = self.states(inverter, film, counts)
            for count, state in states.items():
                avatar = inverter.canonical(state)
                for number in range(max(counts), film.image.shape[1]):
                    image, pose = film.frame(number)
                    seen = self.world.paint(avatar, pose).image
                    row = {"l1": (seen - image).abs().mean().item(), "psnr": psnr(seen, image).mean().item()}
                    apart = self.world.likeness.apart(seen, image)
                    if apart is not None:
                        row[f"perceptual_{self.training.likeness.perceptual}"] = apart.item()
                    found[count].append(row)
        return {count: {k: fmean(row[k] for row in rows) for k in rows[0]} for count, rows in found.items()}

    def films(self, footage: Footage, orders: int, length: int, device: torch.device) -> list[Film]:
        """Each run of a footage, its frames in several random orders; runs that are too short are left out."""
        long = [n for n in range(len(footage)) if len(footage.labels[n]["camera"]) >= length]
        return [self._on(device, footage, [n] * orders, length) for n in long]

    def _on(self, device: torch.device, footage: Footage, which: list[int], length: int) -> Film:
        orders = []
        for number, n in enumerate(which):
            order = torch.randperm(len(footage.labels[n]["camera"]), generator=torch.Generator().manual_seed(number))
            orders.append((order.tolist() * -(-length // len(order)))[:length])
        taken = footage.take(which, orders)
        return Film(taken.image.to(device), Motion(*(x.to(device) for x in taken.motion)))


def _number(low: int, high: int) -> int:
    """A random whole number from torch's own generator, which is seeded at each step, so that no device waits."""
    return int(torch.randint(low, max(low, high) + 1, ()))
