"""The game of the animatable heads: EG3D's, driven by fitted meshes and judged beside their contours.

InvertAvatar (Zhao et al. 2024, section 3.2 and appendix A.1) and Next3D (Sun et al. 2023), the baseline of its table 1.
A generated head takes identity code, expression and camera from a picture of the batch, so both that picture and the
head are shown to the discriminator beside the same drawing of the face: the contours of its landmarks (InvertAvatar) or
its rendered mesh (Next3D). A head that does not make the face it was told looks wrong beside it.

What runs through training is declared in a plan of phases and curves, counted in images; see :func:`plan_of`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, cast, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from models import fir
from models.avatar import AvatarConfig, AvatarGenerator, AvatarOutput, SurfaceMap
from models.avatar_mesh import AvatarMesh
from models.discriminators import Discriminator, Shown
from models.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from models.losses.density import density_variation
from models.next3d import Next3DConfig, Next3DGenerator, Views
from models.parametric.person import Person
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.train.objective import Batch, Moment, Term, Update
from ops.train.objectives.glimpse import Glimpse
from ops.train.objectives.shared import Named, Player, around, game, latents, number
from ops.train.schedule import Curve, Phase, Plan

Variant = Literal["avatar", "next3d"]
DRAWN_AT_ONCE = 16  # pictures; bounds memory
TURN = 40.0  # degrees to either side that the grid shows; unpublished: our choice


class Faces(NamedTuple):
    """Fitted faces: identity (M, I) and expression (M, E) codes, cameras (M, 25) in the heads' frame."""

    identity: Tensor
    expression: Tensor
    camera: Tensor

    def pick(self, index: Tensor) -> Faces:
        """Some of them."""
        return Faces(*(part[index.to(part.device)] for part in self))

    def to(self, device: torch.device) -> Faces:
        """The same on a device."""
        return Faces(*(part.to(device) for part in self))


class Next3DParams(Params):
    """What Next3D has beside InvertAvatar's sizes, see `models.next3d.Next3DConfig`."""

    neural_resolution: int = Field(default=64, ge=4)  # Next3D
    mouth_side: int = Field(default=64, ge=4)
    mouth_lowest: int = Field(default=4, ge=4)
    blend_lowest: int = Field(default=32, ge=4)


class AvatarTraining(Params):
    """Weights, rates and schedule of the losses. What is None differs between the papers: the variant decides."""

    lr_generator: float = Field(default=0.0025, gt=0)  # EG3D, appendix A.1
    lr_discriminator: float = Field(default=0.002, gt=0)  # EG3D, appendix A.1
    r1: float | None = Field(default=None, ge=0)  # gamma: public codes 8 (InvertAvatar), 4 (Next3D)
    r1_every: int = Field(default=16, ge=1)  # StyleGAN2
    density: float = Field(default=0.25, ge=0)  # EG3D
    density_every: int = Field(default=4, ge=1)  # EG3D
    swap: float = Field(default=0.8, ge=0, le=1)  # the end of 1 -> swap: EG3D on its rebalanced FFHQ
    swap_images: int = Field(default=1_000_000, gt=0)  # EG3D
    blur: float = Field(default=10.0, ge=0)  # EG3D: sigma in pixels of 512; fades to 0
    blur_images: int = Field(default=200_000, gt=0)  # EG3D at a batch of 32
    label_noise: float | None = Field(default=None, ge=0)  # deviations; Next3D's disc_c_noise 1, InvertAvatar 0
    coarse_resolution: int = Field(default=64, ge=4)  # appendix A.1: of the rays, at first
    coarse_images: int = Field(default=12_500_000, gt=0)  # appendix A.1: half of the time, two of four days
    reuse: bool = False  # judge the heads the generator just learnt from; the papers draw new ones
    # Beside the game, pictures are to be painted again from what is glimpsed of them; our choice, not the papers'.
    imitate: float = Field(default=0.0, ge=0, description="weight of L1 to the pictures, at first")
    imitate_end: float = Field(default=0.0, ge=0, description="and after imitate_images")
    imitate_images: int = Field(default=1_000_000, gt=0)
    imitate_share: float = Field(default=0.5, gt=0, le=1, description="of a batch's heads, those that imitate")


def check_variant(name: str) -> Variant:
    """The variant of a name.

    Raises:
        LineamentError: no such variant.
    """
    if name not in get_args(Variant):
        raise LineamentError(f"there is no animatable generator {name!r}; choose {' or '.join(get_args(Variant))}.")
    return cast(Variant, name)


def model_of(model: AvatarConfig, next3d: Next3DParams, variant: Variant) -> AvatarConfig:
    """The generator's configuration: InvertAvatar's, or Next3D's of the same sizes."""
    if variant == "avatar":
        return model
    return Next3DConfig.model_validate({**model.model_dump(), "plane_axes": "orthogonal", **next3d.model_dump()})


def generator_of(model: AvatarConfig) -> AvatarGenerator:
    """The generator of a configuration."""
    return Next3DGenerator(model) if isinstance(model, Next3DConfig) else AvatarGenerator(model)


def pose_of(mesh: AvatarMesh, identity: Tensor, expression: Tensor) -> SurfaceMap | Views:
    """The posed meshes as the generator of the mesh's configuration takes them."""
    view = mesh.views if isinstance(mesh.config, Next3DConfig) else mesh.surface
    return view(identity, expression)


def plan_of(training: AvatarTraining, model: AvatarConfig) -> Plan:
    """Few rays first, then all of them (appendix A.1); Next3D's stay as they are."""
    t = training
    side = min(t.coarse_resolution, model.neural_resolution)
    imitation = {"imitate": Curve(knots=((0, t.imitate), (t.imitate_images, t.imitate_end)))} if t.imitate else {}
    return Plan(
        phases=(
            Phase(name="coarse", images=t.coarse_images, settings={"neural_resolution": side}),
            Phase(name="fine", settings={"neural_resolution": model.neural_resolution}),
        ),
        curves={
            "swap": Curve(knots=((0, 1.0), (t.swap_images, t.swap))),
            "blur": Curve(knots=((0, t.blur), (t.blur_images, 0.0))),
            **imitation,
        },
    )


class AvatarObjective:
    """`ops.train.objective.Objective` of one variant; it draws too.

    Args:
        model: of the generator, see :func:`model_of`: Next3D's configuration makes it Next3D.
        training: weights and rates.
        person: the parametric model of the batch's codes.
        faces: fitted faces spread over the data set, from which snapshots are drawn.
        discriminator: options of `AvatarConfig.discriminator`.
        glimpse: latents of pictures, told their cameras; where ``training.imitate`` asks for them.
    """

    networks: Mapping[str, nn.Module]
    averaged: Sequence[str] = ("generator",)
    optimizers: Mapping[str, torch.optim.Optimizer]
    updates: Sequence[Update]

    def __init__(
        self,
        model: AvatarConfig,
        training: AvatarTraining,
        person: Person,
        faces: Faces,
        discriminator: Mapping[str, object] | None = None,
        glimpse: Glimpse | None = None,
    ) -> None:
        self.model, self.training, self.faces, self.glimpse = model, training, faces, glimpse
        self.mesh = AvatarMesh(person, model)
        self.generator = generator_of(model)
        self.next3d = isinstance(model, Next3DConfig)
        options = {"image_channels": 9 if self.next3d else 7, **(discriminator or {})}
        self.discriminator = Discriminator(model.discriminator(**options))
        self.networks = {"generator": self.generator, "discriminator": self.discriminator, "mesh": self.mesh}
        if glimpse is not None:
            self.networks["glimpse"] = glimpse
        self._made: list[tuple[Shown, Tensor]] = []  # heads and drawings that the discriminator has yet to judge
        t = training
        self.r1 = t.r1 if t.r1 is not None else 4.0 if self.next3d else 8.0
        self.label_noise = t.label_noise if t.label_noise is not None else float(self.next3d)
        density = Term("density", self.smooth_density, every=t.density_every) if t.density else None
        r1 = Term("r1", self.penalise, every=t.r1_every, second_order=True) if self.r1 else None
        self.optimizers, self.updates = game(
            generator=Player(self.generator, t.lr_generator, Term("generator", self.fool), density),
            discriminator=Player(self.discriminator, t.lr_discriminator, Term("discriminator", self.judge), r1),
        )

    # --- what the networks are shown ----------------------------------------------------------------------------------

    def render(self, batch: Batch, moment: Moment, learning: bool = False) -> AvatarOutput:
        """New heads with the batch's meshes, seen from its cameras; ``learning`` also moves the mean style."""
        z, told = self._latents(batch, moment)
        if learning:
            z = torch.cat([self._glimpsed(batch, moment), z])[: len(z)]
        return self.generator(
            z,
            batch["camera"],
            self._pose(batch),
            conditioning=told,
            update_average=learning,
            neural_resolution=self._side(moment),
        )

    def draw_faces(self, batch: Batch) -> Tensor:
        """The drawings that pictures are judged beside, at the size of the pictures."""
        draw = self.mesh.rendering if self.next3d else self.mesh.contours
        return draw(batch["identity"], batch["expression"], batch["camera"], self.model.resolution)

    def real(self, batch: Batch, moment: Moment) -> Shown:
        """The batch as the generator would show it."""
        return Shown(batch["image"], fir.resize(batch["image"], self._side(moment)))

    def logits(self, shown: Shown, drawn: Tensor, label: Tensor, moment: Moment) -> Tensor:
        """(N,) logits of blurred pictures beside their drawings, from cameras that are known a little wrongly."""
        sigma = number(moment, "blur") * self.model.resolution / 512
        stack = shown._replace(image=fir.gaussian_blur(shown.image, sigma)).stack()
        if self.label_noise:
            error = torch.randn(label.shape, generator=moment.generator, device=moment.device)
            label = label + self.label_noise * label.std(0, unbiased=False) * error
        return self.discriminator(torch.cat([stack, drawn], dim=1), label)

    # --- losses -------------------------------------------------------------------------------------------------------

    def fool(self, batch: Batch, moment: Moment) -> Named:
        """The generator's part of the game."""
        made, drawn = self.render(batch, moment, learning=True), self.draw_faces(batch)
        if self.training.reuse:
            self._made.append((Shown(made.image.detach(), made.raw.detach()), drawn))
        loss = generator_loss(self.logits(Shown(made.image, made.raw), drawn, batch["camera"], moment))
        count, weight = self._imitating(batch, moment), number(moment, "imitate")
        if not count:
            return loss, {"generator": loss}
        real = self.real(batch, moment)
        pairs = (made.image, real.image), (made.raw, real.raw)
        apart = torch.stack([(a[:count] - b[:count]).abs().mean() for a, b in pairs if b is not None]).sum()
        return loss + weight * apart, {"generator": loss, "imitation": apart}

    def smooth_density(self, batch: Batch, moment: Moment) -> Named:
        """Density differs little between neighbours."""
        z, told = self._latents(batch, moment)
        ws, surface = self.generator.mapping(z, told), self._pose(batch)
        field = self.generator.field(self.generator.posed_planes(ws, surface))  # type: ignore[arg-type]
        with torch.autocast(moment.device.type, enabled=False):  # as in the renderer
            loss = density_variation(lambda x: field(x)[1], len(z), self.model.box, device=moment.device)
        return self.training.density * self.training.density_every * loss, {"density": loss}

    def judge(self, batch: Batch, moment: Moment) -> Named:
        """The discriminator's part without the penalty."""
        if self._made:
            made, drawn = self._made.pop(0)
        else:
            with torch.no_grad():
                out, drawn = self.render(batch, moment), self.draw_faces(batch)
            made = Shown(out.image, out.raw)
        fake = self.logits(made, drawn, batch["camera"], moment)
        real = self.logits(self.real(batch, moment), drawn, batch["camera"], moment)
        loss = discriminator_loss(real, fake)
        return loss, {"discriminator": loss, "real": real.mean(), "fake": fake.mean()}

    def penalise(self, batch: Batch, moment: Moment) -> Named:
        """``gamma / 2`` times R1 over picture and rendered picture; what is drawn beside them is a condition."""
        shown = self.real(batch, moment)
        assert shown.raw is not None
        image, raw = shown.image.detach().requires_grad_(), shown.raw.detach().requires_grad_()
        penalty = r1_penalty(
            self.logits(Shown(image, raw), self.draw_faces(batch), batch["camera"], moment), image, raw
        )
        return self.r1 / 2 * self.training.r1_every * penalty, {"r1": penalty}

    def after(self, moment: Moment) -> None:
        """Forget what was not judged."""
        self._made.clear()

    # --- pictures -----------------------------------------------------------------------------------------------------

    def sample(self, networks: Mapping[str, nn.Module], rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """One person a row: with other expressions from the front, then turning from one side to the other."""
        device = generator.device
        z = torch.randn(rows, self.model.mapping.z_size, generator=generator, device=device)
        faces = self.faces.to(device)
        who = faces.pick(_spread(len(faces.identity), rows)).identity
        ways = (columns + 1) // 2
        expression = faces.expression[_liveliest(faces.expression, ways)]
        turn = torch.linspace(-TURN, TURN, columns - ways, device=device).deg2rad()
        turn = torch.cat([turn.new_zeros(ways), turn])
        expression = torch.cat([expression, expression[:1].expand(columns - ways, -1)])
        label = around(turn, self.faces.camera[:1])
        shown = []
        for code, identity in zip(z, who):
            told = label[:1].expand(columns, -1)
            shown.append(self._show(networks, code, identity.expand(columns, -1), expression, label, told))
        return torch.cat(shown)

    def draw(
        self, networks: Mapping[str, nn.Module], count: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """New heads, each with a mesh and from a camera of the data, as EG3D measures its FID."""
        device = generator.device
        chosen = self.faces.pick(_spread(len(self.faces.identity), count)).to(device)
        for identity, expression, label in zip(*(part.split(DRAWN_AT_ONCE) for part in chosen)):
            z = torch.randn(len(label), self.model.mapping.z_size, generator=generator, device=device)
            yield self._show(networks, z, identity, expression, label, label), label

    def _show(
        self,
        networks: Mapping[str, nn.Module],
        z: Tensor,
        identity: Tensor,
        expression: Tensor,
        label: Tensor,
        told: Tensor,
    ) -> Tensor:
        network = cast(AvatarGenerator, networks["generator"])
        surface = pose_of(self.mesh, identity, expression)
        z = z.expand(len(label), -1)
        return network(z, label, surface, conditioning=told, noise="const", jitter=False).image

    # --- chance -------------------------------------------------------------------------------------------------------

    def _latents(self, batch: Batch, moment: Moment) -> tuple[Tensor, Tensor]:
        return latents(self.model.mapping.z_size, batch["camera"], moment)

    def _imitating(self, batch: Batch, moment: Moment) -> int:
        """How many of a batch's heads, the first ones, are to be its pictures."""
        wanted = self.glimpse is not None and number(moment, "imitate") > 0
        return max(1, round(self.training.imitate_share * len(batch["image"]))) if wanted else 0

    def _glimpsed(self, batch: Batch, moment: Moment) -> Tensor:
        """Latents of those."""
        count = self._imitating(batch, moment)
        if self.glimpse is None or not count:
            return batch["image"].new_zeros(0, self.model.mapping.z_size)
        return self.glimpse(batch["image"][:count], batch["camera"][:count])

    def _pose(self, batch: Batch) -> SurfaceMap | Views:
        with torch.no_grad():
            return pose_of(self.mesh, batch["identity"], batch["expression"])

    def _side(self, moment: Moment) -> int:
        return round(number(moment, "neural_resolution", self.model.neural_resolution))


def _spread(length: int, count: int) -> Tensor:
    """``count`` numbers below ``length``, evenly spaced."""
    return torch.linspace(0, length - 1, count).round().long()


def _liveliest(expression: Tensor, count: int) -> Tensor:
    """Numbers of ``count`` expressions (M, E): the stillest, then each time the one least like those before."""
    chosen = [int(expression.norm(dim=1).argmin())]
    while len(chosen) < count:
        away = torch.cdist(expression, expression[chosen]).amin(1)
        chosen.append(int(away.argmax()))
    return torch.tensor(chosen, device=expression.device)
