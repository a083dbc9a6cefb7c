"""AniPortraitGAN's second stage of training: the super-resolution U learns, all else stays as the first stage left it.

The manifolds of each character are coloured once, as atlases; U enlarges them, and both cameras' pictures are laid from
the enlarged atlases, band by band, so that a large picture fits memory (GRAM, supplement). The discriminators judge
large pictures only; beside them, as in GRAM-HD, what is enlarged must shrink to what it was enlarged from.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models import fir
from models.portrait import PortraitConfig, PortraitGenerator
from models.portrait_body import People
from models.portrait_cameras import crop_face
from models.portrait_discriminators import DiscriminatorConfig
from models.portrait_pose import NearestTransforms, TransformVolume
from ops.train.checkpoint import load_network
from ops.train.objective import Batch, Moment, Term
from ops.train.objectives.portrait import shade
from ops.train.objectives.portrait_characters import Drawn
from ops.train.objectives.portrait_game import PortraitGame, model_of
from ops.train.objectives.portrait_params import SuperresolutionTraining
from ops.train.objectives.shared import Named
from ops.train.priors import Priors


class SuperresolutionObjective(PortraitGame):
    """`ops.train.objective.Objective` of one variant, see :class:`PortraitGame`.

    Args:
        model: sizes of the generator.
        training: sizes of pictures, weights, rates.
        variant: which.
        people: the parametric model.
        prior: where codes, poses and cameras come from.
        base: weights of the first stage's generator.
        discriminator: sizes.

    Raises:
        LineamentError: no such variant, or weights of a generator of other sizes.
    """

    each = 2

    def __init__(
        self,
        model: PortraitConfig,
        training: SuperresolutionTraining,
        variant: str,
        people: People,
        prior: Priors,
        base: Mapping[str, Tensor],
        discriminator: DiscriminatorConfig | None = None,
    ) -> None:
        generator = PortraitGenerator(model_of(model, variant), upsample=True)
        assert generator.upsampler is not None
        own = {f"upsampler.{name}": value for name, value in generator.upsampler.state_dict().items()}
        load_network(generator, {**own, **base}, "the first stage's generator")
        generator.requires_grad_(False)
        generator.upsampler.requires_grad_(True)
        super().__init__(generator, training, variant, people, prior, discriminator)
        self.training = training
        self.play(list(generator.upsampler.parameters()), Term("generator", self.fool))

    def render(
        self,
        network: PortraitGenerator,
        drawn: Drawn,
        lookup: NearestTransforms | TransformVolume,
        random: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Portraits (N, 3, R, R), faces (N, 3, r, r), and how far they are from what was enlarged."""
        t, styles = self.training, network.styles(drawn.latents)
        views = [(drawn.portrait, self.model.portrait_view, t.portrait)]
        if self.variant != "crop":
            views.append((drawn.face, self.model.face_view, t.face))
        with torch.no_grad():
            atlases = network.atlases(styles)
        large = network.enlarge(atlases, styles)
        pictures, apart = [], []
        for label, view, side in views:
            with torch.no_grad():
                rays = network.cast(lookup, label, view, side // self.model.atlas.scale, margin=1)
            seen = network.shade_atlases(rays, styles, atlases, large, view.far, t.band)
            assert seen.coarse is not None
            apart.append((fir.resize(seen.image, seen.coarse.shape[-1]) - seen.coarse).square().mean())
            pictures.append(seen.image)
        shrunk = fir.resize(large.flatten(0, 1), atlases.shape[-1])
        named = {
            "consistency": torch.stack(apart).mean(),
            "atlas_consistency": (shrunk - atlases[:, :, :4].flatten(0, 1)).square().mean(),
        }
        if self.variant == "crop":
            pictures.append(crop_face(pictures[0], drawn.portrait, drawn.face, t.face))
        return pictures[0], pictures[1], named

    def show(self, network: PortraitGenerator, drawn: Drawn) -> list[Tensor]:
        """A portrait of the first stage, enlarged as it is, and the one through U."""
        view, side = self.model.portrait_view, self.training.portrait
        lookup = network.pose.lookup(drawn.body)
        rays = network.cast(lookup, drawn.portrait, view, side // self.model.atlas.scale)
        before = shade(network, rays, network.styles(drawn.latents), view.far, self.training.band).image
        return [fir.resize(before, side), self.render(network, drawn, lookup, None)[0]]

    def fool(self, batch: Batch, moment: Moment) -> Named:
        """The generator's part of the game, and consistency with what was enlarged."""
        t = self.training
        drawn = self.characters.draw(len(batch["image"]), moment.generator)
        lookup = self.generator.pose.lookup(drawn.body)
        portrait, face, apart = self.render(self.generator, drawn, lookup, moment.generator)
        total, named = self.fool_judges(portrait, face)
        total = total + t.consistency * apart["consistency"] + t.atlas_consistency * apart["atlas_consistency"]
        return total, named | apart
