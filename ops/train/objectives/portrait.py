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
from typing import Literal, NamedTuple, Protocol, cast, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models import fir
from models.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from models.losses.deformation import (
    expression_smoothness,
    imitation_loss,
    imitation_target,
    landmark_loss,
    minimal_deformation,
    pose_smoothness,
)
from models.portrait import Latents, PortraitConfig, PortraitGenerator, Rays, Rendering, Styles, bands
from models.portrait_body import (
    People,
    camera_to_head_frame,
    expressive_face,
    face_camera,
    face_landmarks,
    portrait_label,
    posed_body,
)
from models.portrait_cameras import crop_face
from models.portrait_discriminators import DiscriminatorConfig, PortraitDiscriminators
from models.portrait_pose import Body
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.train.objective import Batch, Moment, Term, Update
from ops.train.objectives.shared import Named
from ops.train.priors import Priors

Variant = Literal["full", "whole_only", "no_torso", "crop", "nearest"]
MOVES = 1e-4  # world units by which some expression must move a vertex for it to count as face; unpublished: our choice


class PortraitTraining(Params):
    """Sizes of pictures, weights and rates."""

    portrait: int = Field(default=128, ge=8)  # Section 3.6: first stage; 512 in the second
    face: int = Field(default=128, ge=8)  # Section 3.6: first stage; 256 in the second
    lr_generator: float = Field(default=2e-5, gt=0)  # AniFaceGAN
    lr_discriminator: float = Field(default=2e-4, gt=0)  # AniFaceGAN
    lr_enlarge: float = Field(default=2e-4, gt=0)  # GRAM-HD: second stage
    betas: tuple[float, float] = (0.0, 0.9)  # AniFaceGAN
    clip: float = Field(default=0.3, gt=0)  # AniFaceGAN: largest norm of the gradient
    r1: float = Field(default=1.0, ge=0)  # AniFaceGAN
    r1_every: int = Field(default=1, ge=1)  # AniFaceGAN
    whole: float = Field(default=0.1, ge=0)  # Section 4: weights of the three discriminators
    face_weight: float = Field(default=1.0, ge=0)
    torso: float = Field(default=0.5, ge=0)
    landmarks: float = Field(default=3000.0, ge=0)  # unpublished: our choice, for distances in head units
    imitation: float = Field(default=3000.0, ge=0)  # unpublished: our choice, likewise
    pose_smooth: float = Field(default=1.0, ge=0)  # unpublished: our choice
    expression_smooth: float = Field(default=1000.0, ge=0)  # unpublished: our choice
    minimal: float = Field(default=10.0, ge=0)  # unpublished: our choice
    step_deviation: float = Field(default=0.005, gt=0)  # unpublished: our choice; head units, Equation 12
    reach: float = Field(default=0.02, gt=0)  # unpublished: our choice; head units, see imitation_target
    deformed_points: int = Field(default=4096, gt=0)  # unpublished: our choice; samples that Equations 10 to 13 look at
    consistency: float = Field(default=1.0, ge=0)  # GRAM-HD: enlarged pictures shrink to the coarse ones
    band: int = Field(default=32, gt=0)  # rows shaded at a time; the others' activations are computed again
    reuse: bool = False  # the discriminators judge what the generator has just learnt from; saves a third of a step
    vertex_step: int = Field(default=1, ge=1)  # every so many vertices of the body; unpublished: our choice


class Drawn(NamedTuple):
    """Characters to render: codes, bodies, and (N, 25) cameras of the portraits and of the faces, head frame."""

    latents: Latents
    body: Body
    portrait: Tensor
    face: Tensor


class Regressor(Protocol):
    """What tells codes from face pictures (N, 3, r, r): identity (N, 80) and expression (N, 52)."""

    def __call__(self, face: Tensor) -> tuple[Tensor, Tensor]: ...


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
        self.people, self.prior, self.regressor = people, prior, regressor
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
        companions = {"people": people, "regressor": regressor}
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
            fool.append(Term("expression", self.guide_expression))
        judge = [Term("discriminators", self.judge)]
        if t.r1:
            judge.append(Term("r1", self.penalise, every=t.r1_every, second_order=True))
        self.updates = (Update("generator", tuple(fool), clip=t.clip), Update("discriminators", tuple(judge)))
        self._moving: Tensor | None = None
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

    @torch.no_grad()
    def draw_characters(self, n: int, random: torch.Generator) -> Drawn:
        """Codes, bodies and cameras from the priors."""
        self.prior = self.prior.to(random.device)
        found = self.prior.sample(n, random)
        noise = torch.randn(n, self.model.noise, generator=random, device=random.device)
        latents = Latents(found.identity, found.shape, found.expression, found.pose, noise)
        return self.place(latents, camera_to_head_frame(found.camera))

    @torch.no_grad()
    def place(self, latents: Latents, about_body: Tensor) -> Drawn:
        """Bodies and cameras of characters; of cameras (N, 25) about the body, head frame, only the side counts."""
        body = posed_body(self.people, latents.identity, latents.shape, latents.pose, self.training.vertex_step)
        portrait = portrait_label(about_body, self.model.portrait_view)
        return Drawn(latents, body, portrait, face_camera(portrait, body.head_transform, self.model.face_view))

    def render(
        self, network: PortraitGenerator, drawn: Drawn, random: torch.Generator | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Portraits (N, 3, R, R), faces (N, 3, r, r), and losses that come with them."""
        t, styles = self.training, network.styles(drawn.latents)
        lookup = network.pose.lookup(drawn.body)
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
        drawn = self.draw_characters(len(batch["image"]), moment.generator)
        portrait, face, named = self.render(self.generator, drawn, moment.generator)
        if t.reuse:
            self._shown.append((portrait.detach(), face.detach()))
        total = portrait.new_zeros(())
        views = self.judges.views(portrait, face)
        for name, weight in self.weights.items():
            named[f"generator_{name}"] = generator_loss(self.judges[name](views[name]))
            total = total + weight * named[f"generator_{name}"]
        if "consistency" in named:
            return total + t.consistency * named["consistency"], named
        if self.regressor is not None:
            identity, expression = self.regressor(face)
            wanted = face_landmarks(self.people, drawn.latents.identity, drawn.latents.expression)
            named["landmarks"] = landmark_loss(face_landmarks(self.people, identity, expression), wanted)
            total = total + t.landmarks * named["landmarks"]
        if self.generator.pose.process is not None:
            named["pose_smooth"] = self.pose_roughness(drawn)
            total = total + t.pose_smooth * named["pose_smooth"]
        return total, named

    def pose_roughness(self, drawn: Drawn) -> Tensor:
        """Equation 11 on the portrait's samples."""
        pose = self.generator.pose
        assert pose.process is not None
        points, _, _ = self.generator.sample_rays(drawn.portrait, self.model.portrait_view, self.training.portrait)
        volume = pose.half_volume(points, pose.lookup(drawn.body))
        return pose_smoothness(pose.process(volume), pose.process(volume, fixed=True))

    def guide_expression(self, batch: Batch, moment: Moment) -> Named:
        """D^e imitates the parametric face, smoothly and no more than it must (Equations 10, 12, 13)."""
        t = self.training
        drawn = self.draw_characters(len(batch["image"]), moment.generator)
        latents, network = drawn.latents, self.generator
        neutral, offsets = expressive_face(self.people, latents.identity, latents.expression, self.moving)
        points = self._points_near(neutral + offsets, moment.generator)
        film = network.styles(latents).expression
        displacement = network.expression(points, film)
        target, trust = imitation_target(points, neutral, offsets, t.reach)
        named = {
            "imitation": imitation_loss(displacement, target, trust),
            "expression_smooth": expression_smoothness(
                lambda x: network.expression(x, film), points, t.step_deviation, moment.generator
            ),
            "minimal": minimal_deformation(displacement),
        }
        total = t.imitation * named["imitation"] + t.expression_smooth * named["expression_smooth"]
        return total + t.minimal * named["minimal"], named

    @property
    def moving(self) -> Tensor:
        """(M,) vertices that some expression moves."""
        if self._moving is None:
            weights = self.people.skinning_weights
            units = torch.eye(self.model.expression, device=weights.device, dtype=weights.dtype)
            reach = self.people.expression_offsets(units).norm(dim=-1).amax(dim=0)
            self._moving = (reach > MOVES).nonzero().squeeze(1)
        return self._moving

    def _points_near(self, vertices: Tensor, random: torch.Generator) -> Tensor:
        """(N, P, 3) points scattered about vertices (N, M, 3), as far as trust in them reaches."""
        n, count, _ = vertices.shape
        size = n, self.training.deformed_points
        chosen = torch.randint(count, size, generator=random, device=random.device)
        spread = torch.randn(*size, 3, generator=random, device=random.device) * self.training.reach
        return vertices.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 3)) + spread

    def judge(self, batch: Batch, moment: Moment) -> Named:
        """The discriminators' part without the penalty."""
        if self._shown:
            portrait, face = self._shown.pop(0)
        else:
            with torch.no_grad():
                drawn = self.draw_characters(len(batch["image"]), moment.generator)
                portrait, face, _ = self.render(self.generator, drawn, moment.generator)
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
        first = self.draw_characters(rows, random).latents
        shown = []
        for n in range(rows):
            asked = self.draw_characters(columns, random)
            same = Latents(*(part[n : n + 1].expand(columns, *[-1] * (part.ndim - 1)) for part in vars(first).values()))
            moved = Latents(same.identity, same.shape, asked.latents.expression, asked.latents.pose, same.noise)
            for c in range(columns):
                drawn = self.place(moved[c : c + 1], asked.portrait[c : c + 1])
                shown.append(self.render(network, drawn, None)[0])
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
