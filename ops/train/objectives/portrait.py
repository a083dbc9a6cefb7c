"""AniPortraitGAN's game: a generator of portraits against three discriminators, and losses that teach it to deform.

One iteration: codes, pose and camera are drawn from the estimated priors; the generator renders each character twice,
by the portrait camera and by the face camera that follows the posed head; D_whole, D_torso and D_face judge (weights of
the paper, Section 3.6); the deformations are held to the parametric model (Equations 9 to 13). Then the discriminators
learn, now and then with R1. The paper prints no weights of the deformation losses: they are GRAM's and AniFaceGAN's
where those have them, and ours elsewhere, each by its name in the curves.

The second stage (``enlarge``) trains the super-resolution alone, against discriminators of the larger pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models import fir
from models.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from models.portrait import Latents, PortraitConfig, PortraitGenerator, Rays, Rendering, Styles, bands
from models.portrait_body import People
from models.portrait_cameras import crop_face
from models.portrait_discriminators import DiscriminatorConfig, PortraitDiscriminators
from models.portrait_pose import NearestTransforms, TransformVolume
from ops.runtime.errors import LineamentError
from ops.train.objective import Batch, Moment, Term, Update
from ops.train.objectives.portrait_characters import Characters, Drawn
from ops.train.objectives.portrait_guides import Guides, Regressor, Steady
from ops.train.objectives.portrait_params import PortraitTraining, Variant
from ops.train.objectives.shared import Named
from ops.train.priors import Priors


class PortraitObjective:
    """`ops.train.objective.Objective` of one variant: ``full``; ``whole_only`` and ``no_torso`` with fewer
    discriminators; ``crop`` cuts faces out of the portrait; ``nearest`` leaves D^p out.

    Args:
        model: sizes of the generator.
        training: sizes of pictures, weights, rates.
        variant: see above.
        people: the parametric model.
        prior: where codes, poses and cameras come from.
        regressor: the network behind the landmark loss; None leaves the loss out.
        discriminator: sizes.
        base: weights of the first stage; given, the super-resolution is trained on top of them.

    Raises:
        LineamentError: no such variant, or a model whose codes are not the people's.
    """

    networks: Mapping[str, nn.Module]
    averaged: Sequence[str] = ("generator",)
    optimizers: Mapping[str, torch.optim.Optimizer]
    updates: Sequence[Update]

    def __init__(
        self,
        model: PortraitConfig,
        training: PortraitTraining,
        variant: str,
        people: People,
        prior: Priors,
        regressor: Regressor | None = None,
        discriminator: DiscriminatorConfig | None = None,
        base: Mapping[str, Tensor] | None = None,
    ) -> None:
        if variant not in get_args(Variant):
            raise LineamentError(f"AniPortraitGAN has no variant {variant!r}; choose {', '.join(get_args(Variant))}.")
        if variant == "nearest":
            model = model.model_copy(update={"pose": model.pose.model_copy(update={"processing": False})})
        self.model, self.training, self.variant = model, training, variant
        self.characters = Characters(people, prior, model, training.vertex_step)
        self.guides = Guides(people, training, model.expression)
        self.regressor = Steady(regressor) if isinstance(regressor, nn.Module) else regressor
        self.enlarge = base is not None
        t = training
        self.generator = PortraitGenerator(model, upsample=self.enlarge)
        self.judges = PortraitDiscriminators(discriminator or DiscriminatorConfig(), t.portrait, t.face)
        self.weights = {"whole": t.whole, "torso": t.torso, "face": t.face_weight}
        if variant == "whole_only":
            self.weights = {"whole": 1.0}
        elif variant == "no_torso":
            self.weights.pop("torso")
        for name in set(self.judges) - set(self.weights):
            self.judges[name].requires_grad_(False)
        companions = {"people": people, "regressor": self.regressor}
        kept = {name: part.requires_grad_(False) for name, part in companions.items() if isinstance(part, nn.Module)}
        self.networks = {"generator": self.generator, "discriminators": self.judges, **kept}
        learning: Sequence[nn.Parameter] = list(self.generator.parameters())
        if base is not None:
            self._load_base(base)
            assert self.generator.upsampler is not None
            learning = list(self.generator.upsampler.parameters())
        rate = t.lr_enlarge if self.enlarge else t.lr_generator
        judging = [p for p in self.judges.parameters() if p.requires_grad]
        self.optimizers = {
            "generator": torch.optim.Adam(learning, lr=rate, betas=t.betas),
            "discriminators": torch.optim.Adam(judging, lr=t.lr_discriminator, betas=t.betas),
        }
        fool = [Term("generator", self.fool)]
        if not self.enlarge:
            fool.append(Term("guides", self.guide))
        judge = [Term("discriminators", self.judge)]
        if t.r1:
            judge.append(Term("r1", self.penalise, every=t.r1_every, second_order=True))
        self.updates = (Update("generator", tuple(fool), clip=t.clip), Update("discriminators", tuple(judge)))
        self._shown: list[tuple[Tensor, Tensor]] = []  # pictures that the discriminators have yet to judge

    def _load_base(self, base: Mapping[str, Tensor]) -> None:
        wanted = {name: value.shape for name, value in self.generator.state_dict().items()}
        below = {name for name in wanted if not name.startswith("upsampler.")}
        odd = sorted(below ^ base.keys()) or sorted(name for name in below if base[name].shape != wanted[name])
        if odd:
            raise LineamentError(
                f"the first stage's generator is of another architecture: {odd[0]} does not fit. "
                "Use the same model parameters in both stages."
            )
        self.generator.load_state_dict(dict(base), strict=False)
        self.generator.requires_grad_(False)
        assert self.generator.upsampler is not None
        self.generator.upsampler.requires_grad_(True)

    # --- characters and their pictures --------------------------------------------------------------------------------

    def render(
        self,
        network: PortraitGenerator,
        drawn: Drawn,
        lookup: NearestTransforms | TransformVolume,
        random: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Portraits (N, 3, R, R), faces (N, 3, r, r), and losses that come with them."""
        t, styles = self.training, network.styles(drawn.latents)
        named: dict[str, Tensor] = {}
        views = [(drawn.portrait, self.model.portrait_view, t.portrait)]
        if self.variant != "crop":
            views.append((drawn.face, self.model.face_view, t.face))
        pictures = []
        if self.enlarge:
            with torch.no_grad():
                atlases = network.atlases(styles)
            large = network.enlarge(atlases, styles)
            scale = self.model.atlas.scale
            apart = []
            for label, view, side in views:
                with torch.no_grad():
                    rays = network.cast(lookup, label, view, side // scale, margin=1)
                seen = network.shade_atlases(rays, styles, atlases, large, view.far)
                assert seen.coarse is not None
                apart.append((fir.resize(seen.image, seen.coarse.shape[-1]) - seen.coarse).square().mean())
                pictures.append(seen.image)
            named["consistency"] = torch.stack(apart).mean()
        else:
            for label, view, side in views:
                rays = network.cast(lookup, label, view, side, jitter=random)
                pictures.append(shade(network, rays, styles, view.far, t.band).image)
        portrait = pictures[0]
        cut = self.variant == "crop"
        face = crop_face(portrait, drawn.portrait, drawn.face, t.face) if cut else pictures[1]
        return portrait, face, named

    # --- losses -------------------------------------------------------------------------------------------------------

    def fool(self, batch: Batch, moment: Moment) -> Named:
        """The generator's part of the game (Equation 14), with landmarks, smoothness of D^p, and consistency of U."""
        t = self.training
        drawn = self.characters.draw(len(batch["image"]), moment.generator)
        lookup = self.generator.pose.lookup(drawn.body)
        portrait, face, named = self.render(self.generator, drawn, lookup, moment.generator)
        if t.reuse:
            self._shown.append((portrait.detach(), face.detach()))
        total = portrait.new_zeros(())
        views = self.judges.views(portrait, face)
        for name, weight in self.weights.items():
            named[f"generator_{name}"] = generator_loss(self.judges[name](views[name]))
            total = total + weight * named[f"generator_{name}"]
        if "consistency" in named:
            return total + t.consistency * named["consistency"], named
        asked = []
        if self.regressor is not None:
            asked.append(self.guides.landmarks(self.regressor, face, drawn.latents))
        if self.generator.pose.process is not None:
            asked.append(self.guides.pose(self.generator, drawn, lookup))
        for loss, found in asked:
            total, named = total + loss, named | found
        return total, named

    def guide(self, batch: Batch, moment: Moment) -> Named:
        """D^e follows the parametric face; at first, where asked for, the radiance field follows the body."""
        t, random = self.training, moment.generator
        latents = self.characters.draw(len(batch["image"]), random).latents
        total, named = self.guides.expression(self.generator, latents, random)
        share = max(0.0, 1 - moment.images / t.shape_images)
        if t.shape:
            loss, found = self.guides.shape(self.generator, latents, share, random)
            total, named = total + loss, named | found
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
        t = self.training
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

    # --- pictures -----------------------------------------------------------------------------------------------------

    def sample(self, networks: Mapping[str, nn.Module], rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """One character a row, with other poses and expressions, from other cameras."""
        network = cast(PortraitGenerator, networks["generator"])
        random = generator
        first = self.characters.draw(rows, random).latents
        shown = []
        for n in range(rows):
            asked = self.characters.draw(columns, random)
            same = Latents(*(part[n : n + 1].expand(columns, *[-1] * (part.ndim - 1)) for part in vars(first).values()))
            moved = Latents(same.identity, same.shape, asked.latents.expression, asked.latents.pose, same.noise)
            for c in range(columns):
                drawn = self.characters.place(moved[c : c + 1], asked.portrait[c : c + 1])
                shown.append(self.render(network, drawn, network.pose.lookup(drawn.body), None)[0])
        return torch.cat(shown)


def shade(network: PortraitGenerator, rays: Rays, styles: Styles, far: float, rows: int) -> Rendering:
    """`PortraitGenerator.shade` band by band: with gradients, a band's activations exist while it is differentiated."""
    height = rays.points.shape[1]
    if height <= rows:
        return network.shade(rays, styles, far)

    def band(points: Tensor, directions: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(network.shade(Rays(points, directions, depths), styles, far)[:3])  # type: ignore[return-value]

    parts = []
    for begin, end in bands(height, rows):
        part = rays.rows(begin, end)
        done = checkpoint(band, *part, use_reentrant=False) if torch.is_grad_enabled() else band(*part)
        parts.append(done)
    return Rendering(*(torch.cat(pieces, dim=2) for pieces in zip(*parts)))
