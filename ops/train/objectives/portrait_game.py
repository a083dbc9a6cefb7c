"""What both stages of AniPortraitGAN's training share: characters, three discriminators, and how these learn.

One iteration: codes, pose and camera are drawn from the estimated priors; the generator renders each character twice,
by the portrait camera and by the face camera that follows the posed head; D_whole, D_torso and D_face judge (weights of
the paper, Section 3.6). Then the discriminators learn, now and then with R1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from models.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from models.portrait import Latents, PortraitConfig, PortraitGenerator
from models.portrait_body import People
from models.portrait_discriminators import DiscriminatorConfig, PortraitDiscriminators
from models.portrait_pose import NearestTransforms, TransformVolume
from ops.runtime.errors import LineamentError
from ops.train.objective import Batch, Moment, Term, Update
from ops.train.objectives.portrait_characters import Characters, Drawn
from ops.train.objectives.portrait_params import GameParams, Variant
from ops.train.objectives.shared import Named
from ops.train.priors import Priors


def model_of(model: PortraitConfig, variant: str) -> PortraitConfig:
    """The generator of a variant: ``nearest`` has no D^p.

    Raises:
        LineamentError: no such variant.
    """
    if variant not in get_args(Variant):
        raise LineamentError(f"AniPortraitGAN has no variant {variant!r}; choose {', '.join(get_args(Variant))}.")
    if variant == "nearest":
        return model.model_copy(update={"pose": model.pose.model_copy(update={"processing": False})})
    return model


class PortraitGame(ABC):
    """`ops.train.objective.Objective` of one stage of one variant: ``full``; ``whole_only`` and ``no_torso`` with fewer
    discriminators; ``crop`` cuts faces out of the portrait; ``nearest`` leaves D^p out.

    Args:
        generator: of the variant, see :func:`model_of`.
        training: sizes of pictures, weights, rates.
        variant: see above.
        people: the parametric model.
        prior: where codes, poses and cameras come from.
        discriminator: sizes.
        companions: further networks, which do not learn.
    """

    networks: Mapping[str, nn.Module]
    averaged: Sequence[str] = ("generator",)
    optimizers: Mapping[str, torch.optim.Optimizer]
    updates: Sequence[Update]
    each = 1  # pictures that :meth:`show` makes

    def __init__(
        self,
        generator: PortraitGenerator,
        training: GameParams,
        variant: str,
        people: People,
        prior: Priors,
        discriminator: DiscriminatorConfig | None = None,
        **companions: object,
    ) -> None:
        self.generator, self.model, self.variant = generator, generator.config, variant
        self.game = t = training
        self.characters = Characters(people, prior, self.model, t.vertex_step)
        self.judges = PortraitDiscriminators(discriminator or DiscriminatorConfig(), t.portrait, t.face)
        self.weights = {"whole": t.whole, "torso": t.torso, "face": t.face_weight}
        if variant == "whole_only":
            self.weights = {"whole": 1.0}
        elif variant == "no_torso":
            self.weights.pop("torso")
        for name in set(self.judges) - set(self.weights):
            self.judges[name].requires_grad_(False)
        still = {name: part for name, part in {"people": people, **companions}.items() if isinstance(part, nn.Module)}
        kept = {name: part.requires_grad_(False) for name, part in still.items()}
        self.networks = {"generator": self.generator, "discriminators": self.judges, **kept}
        self._shown: list[tuple[Tensor, Tensor]] = []  # pictures that the discriminators have yet to judge

    def play(self, learning: Sequence[nn.Parameter] | Sequence[dict[str, Any]], *terms: Term) -> None:
        """Declare the updates: these parameters of the generator learn from ``terms``, then the discriminators do.

        The parameters may be given in groups with rates of their own, as torch's optimisers take them.
        """
        t = self.game
        judging = [p for p in self.judges.parameters() if p.requires_grad]
        self.optimizers = {
            "generator": torch.optim.Adam(learning, lr=t.lr_generator, betas=t.betas),
            "discriminators": torch.optim.Adam(judging, lr=t.lr_discriminator, betas=t.betas),
        }
        judge = [Term("discriminators", self.judge)]
        if t.r1:
            judge.append(Term("r1", self.penalise, every=t.r1_every, second_order=True))
        self.updates = (Update("generator", terms, clip=t.clip), Update("discriminators", tuple(judge)))

    # --- pictures -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def render(
        self,
        network: PortraitGenerator,
        drawn: Drawn,
        lookup: NearestTransforms | TransformVolume,
        random: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Portraits (N, 3, R, R), faces (N, 3, r, r), and losses that come with them."""

    def sample(self, networks: Mapping[str, nn.Module], rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """One character a row, with other poses and expressions, from other cameras."""
        network = cast(PortraitGenerator, networks["generator"])
        random, count = generator, columns // self.each
        first = self.characters.draw(rows, random).latents
        shown = []
        for n in range(rows):
            asked = self.characters.draw(count, random)
            same = Latents(*(part[n : n + 1].expand(count, *[-1] * (part.ndim - 1)) for part in vars(first).values()))
            moved = Latents(same.identity, same.shape, asked.latents.expression, asked.latents.pose, same.noise)
            for c in range(count):
                shown += self.show(network, self.characters.place(moved[c : c + 1], asked.portrait[c : c + 1]))
        return torch.cat(shown)

    def show(self, network: PortraitGenerator, drawn: Drawn) -> list[Tensor]:
        """``each`` pictures (1, 3, R, R) of one character, for people to look at."""
        return [self.render(network, drawn, network.pose.lookup(drawn.body), None)[0]]

    # --- losses -------------------------------------------------------------------------------------------------------

    def fool_judges(self, portrait: Tensor, face: Tensor) -> Named:
        """The generator's part of the game (Equation 14)."""
        if self.game.reuse:
            self._shown.append((portrait.detach(), face.detach()))
        named, total = {}, portrait.new_zeros(())
        views = self.judges.views(portrait, face)
        for name, weight in self.weights.items():
            named[f"generator_{name}"] = generator_loss(self.judges[name](views[name]))
            total = total + weight * named[f"generator_{name}"]
        return total, named

    def judge(self, batch: Batch, moment: Moment) -> Named:
        """The discriminators' part without the penalty."""
        if self._shown:
            portrait, face = self._shown.pop(0)
        else:
            with torch.no_grad():
                drawn = self.characters.draw(len(batch["image"]), moment.generator)
                lookup = self.generator.pose.lookup(drawn.body)
                portrait, face, _ = self.render(self.generator, drawn, lookup, moment.generator)
        fake, real = self.judges.views(portrait, face), self.judges.views(batch["image"], batch["face"])
        named, total = {}, portrait.new_zeros(())
        for name, weight in self.weights.items():
            named[f"discriminator_{name}"] = discriminator_loss(
                self.judges[name](real[name]), self.judges[name](fake[name])
            )
            total = total + weight * named[f"discriminator_{name}"]
        return total, named

    def penalise(self, batch: Batch, moment: Moment) -> Named:
        """``r1`` times the gradient penalty of each discriminator."""
        t = self.game
        image, face = batch["image"].detach().requires_grad_(), batch["face"].detach().requires_grad_()
        views = self.judges.views(image, face)
        named, total = {}, image.new_zeros(())
        for name, weight in self.weights.items():
            leaf = face if name == "face" else image
            named[f"r1_{name}"] = r1_penalty(self.judges[name](views[name]), leaf)
            total = total + weight * t.r1 / 2 * t.r1_every * named[f"r1_{name}"]
        return total, named

    def after(self, moment: Moment) -> None:
        """Forget what was not judged."""
        self._shown.clear()
