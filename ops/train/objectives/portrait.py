"""AniPortraitGAN's first stage of training: small portraits, and losses that teach the generator to deform.

Beside the game against the discriminators (:mod:`ops.train.objectives.portrait_game`), the deformations are held to the
parametric model (Equations 9 to 13). The paper prints no weights of the deformation losses: they are GRAM's and
AniFaceGAN's where those have them, and ours elsewhere, each by its name in the curves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.portrait import PortraitConfig, PortraitGenerator, Rays, Rendering, Styles, bands
from models.portrait_body import People
from models.portrait_cameras import crop_face
from models.portrait_discriminators import DiscriminatorConfig
from models.portrait_pose import NearestTransforms, TransformVolume
from ops.train.objective import Batch, Moment, Term
from ops.train.objectives.portrait_characters import Drawn
from ops.train.objectives.portrait_game import PortraitGame, model_of
from ops.train.objectives.portrait_guides import Guides, Regressor, Steady
from ops.train.objectives.portrait_params import PortraitTraining
from ops.train.objectives.shared import Named
from ops.train.priors import Priors


class PortraitObjective(PortraitGame):
    """`ops.train.objective.Objective` of one variant, see :class:`PortraitGame`.

    Args:
        model: sizes of the generator.
        training: sizes of pictures, weights, rates.
        variant: which.
        people: the parametric model.
        prior: where codes, poses and cameras come from.
        regressor: the network behind the landmark loss; None leaves the loss out.
        discriminator: sizes.

    Raises:
        LineamentError: no such variant, or a model whose codes are not the people's.
    """

    def __init__(
        self,
        model: PortraitConfig,
        training: PortraitTraining,
        variant: str,
        people: People,
        prior: Priors,
        regressor: Regressor | None = None,
        discriminator: DiscriminatorConfig | None = None,
    ) -> None:
        self.regressor = Steady(regressor) if isinstance(regressor, nn.Module) else regressor
        generator = PortraitGenerator(model_of(model, variant))
        super().__init__(generator, training, variant, people, prior, discriminator, regressor=self.regressor)
        self.training = training
        self.guides = Guides(people, training, (prior.mean("identity"), prior.mean("expression")))
        still, moving = [generator.manifolds, generator.radiance], [generator.pose, generator.expression]
        learning = [
            {"params": [p for part in parts for p in part.parameters()], "lr": training.lr_generator * pace}
            for parts, pace in ((still, 1.0), (moving, training.deformation_pace))
        ]
        self.play(learning, Term("generator", self.fool), Term("guides", self.guide))

    def render(
        self,
        network: PortraitGenerator,
        drawn: Drawn,
        lookup: NearestTransforms | TransformVolume,
        random: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Portraits (N, 3, R, R), faces (N, 3, r, r), and no losses."""
        t, styles = self.training, network.styles(drawn.latents)
        rays = network.cast(lookup, drawn.portrait, self.model.portrait_view, t.portrait, jitter=random)
        portrait = shade(network, rays, styles, self.model.portrait_view.far, t.band).image
        if self.variant == "crop":
            return portrait, crop_face(portrait, drawn.portrait, drawn.face, t.face), {}
        rays = network.cast(lookup, drawn.face, self.model.face_view, t.face, jitter=random)
        return portrait, shade(network, rays, styles, self.model.face_view.far, t.band).image, {}

    def fool(self, batch: Batch, moment: Moment) -> Named:
        """The generator's part of the game, with landmarks and smoothness of D^p."""
        drawn = self.characters.draw(len(batch["image"]), moment.generator)
        lookup = self.generator.pose.lookup(drawn.body)
        portrait, face, _ = self.render(self.generator, drawn, lookup, moment.generator)
        total, named = self.fool_judges(portrait, face)
        asked = []
        if self.regressor is not None:
            loss, found = self.guides.landmarks(self.regressor, face, drawn.latents)
            # A curve of the plan may hold it back until there are faces to read: see profiles/smoke.yaml.
            asked.append((float(moment.settings.get("landmarks", 1.0)) * loss, found))
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
