"""The game of the head generators: EG3D's, with what PanoHead and SphereHead added to it.

One iteration: the generator against the discriminator, now and then with density regularisation; then the
discriminator on real and generated pictures, from phase III on also on real pictures under wrong cameras (ViCo,
SphereHead Eq. 2), now and then with R1. Generated heads are seen from the cameras of the batch's own pictures. The
mapping network is told another camera of the batch with the probability ``swap``, so that identity does not depend on
the view.

What runs through training is declared in a plan of phases and curves, counted in images; see :func:`plan_of`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from models import fir
from models.augment import Augment, AugmentConfig
from models.discriminators import Discriminator, Shown
from models.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from models.losses.density import density_variation
from models.losses.mask import mask_decision
from models.losses.viewconsistency import view_consistency_loss
from models.planes import Sphere
from models.spherehead import HeadConfig, HeadGenerator, HeadOutput, Variant
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.store.parsing import mirrored_classes
from ops.train import ddp
from ops.train.objective import Batch, Moment, Term, Update
from ops.train.objectives.shared import Named, Player, around, chance, game, latents, number
from ops.train.schedule import Curve, Phase, Plan

DRAWN_AT_ONCE = 16  # pictures; bounds memory


class HeadVariant(NamedTuple):
    """One line of the paper's ablation: a representation, with or without ViCo, with or without parsing."""

    base: Variant
    vico: bool
    parsing: bool

    @classmethod
    def parse(cls, name: str) -> HeadVariant:
        """``spherehead``, ``panohead_vico``, ``dual_sphere_vico_parsing``, ``spherehead_novico``…

        Without a suffix, spherehead has both and the others have neither.

        Raises:
            LineamentError: no such variant.
        """
        pattern = rf"({'|'.join(get_args(Variant))})(_(?:no)?vico)?(_(?:no)?parsing)?"
        found = re.fullmatch(pattern, name)
        if found is None:
            raise LineamentError(
                f"there is no head generator {name!r}; choose one of {', '.join(get_args(Variant))}, "
                "with _vico or _novico, then _parsing or _noparsing, behind it if you like."
            )
        base = cast(Variant, found[1])
        vico, parsing = (base == "spherehead" if part is None else "_no" not in part for part in found.groups()[1:])
        if base == "eg3d" and parsing:
            raise LineamentError(f"{name!r}: eg3d renders no foreground of its own, so it has no parsing to learn.")
        return cls(base, vico, parsing)

    @property
    def spherical(self) -> bool:
        """Whether its planes are spheres, which are trained in phases."""
        return self.base not in ("eg3d", "panohead")


class HeadsTraining(Params):
    """Weights, rates and schedule of the losses. What is None differs between the papers: the variant decides."""

    lr_generator: float = Field(default=0.0025, gt=0)  # EG3D
    lr_discriminator: float = Field(default=0.002, gt=0)  # EG3D for FFHQ
    settle: tuple[int, int] | None = None  # images from and to which rates fall to 0; the papers keep them
    r1: float = Field(default=1.0, ge=0)  # gamma: EG3D for FFHQ at 512; PanoHead the same for the mask
    r1_every: int = Field(default=16, ge=1)  # StyleGAN2
    density: float | None = Field(default=None, ge=0)  # EG3D 0.25, PanoHead 0
    density_every: int = Field(default=4, ge=1)  # EG3D
    offset: float = Field(default=10.0, ge=0)  # PanoHead: mean square of the cameras' shift
    mask_decision: float = Field(default=0.0, ge=0)  # none published: the discriminator judges masks
    parsing_scale: float = Field(default=1.0, gt=0)  # unpublished: our choice; of the parsing the discriminator sees
    background_swap: float = Field(default=0.2, ge=0, le=1)  # PanoHead: another sample's background
    swap: float | None = Field(default=None, ge=0, le=1)  # the end of 1 -> swap: EG3D 0.5, PanoHead 0.7
    swap_images: int = Field(default=1_000_000, gt=0)  # EG3D
    blur: float = Field(default=10.0, ge=0)  # EG3D: sigma in pixels of 512; fades to 0
    blur_images: int | None = Field(default=None, gt=0)  # EG3D 200,000; SphereHead Sec. 5.1: all of phase I
    density_noise: float | None = Field(default=None, ge=0)  # EG3D 0, PanoHead 1; fades to 0
    density_noise_images: int = Field(default=200_000, gt=0)  # PanoHead
    near_front_images: int = Field(default=2_000_000, gt=0)  # SphereHead Sec. 5.1: phase I
    vico_after: int = Field(default=10_000_000, gt=0)  # SphereHead Sec. 5.1: phases I and II
    single_early: float = Field(default=0.33, ge=0, le=0.5)  # SphereHead Sec. 5.1: A alone, and B alone
    single_late: float = Field(default=0.10, ge=0, le=0.5)  # SphereHead Sec. 5.1: in phase III
    vico: float = Field(default=1.0, ge=0)  # unpublished: our choice
    vico_degrees: float = Field(default=15.0, ge=0)  # unpublished: our choice; nearer views are no mismatch
    reuse: bool = False  # judge the heads the generator just learnt from; the papers draw new ones
    augment: AugmentConfig | None = None  # ADA: off for FFHQ in EG3D

    @field_validator("settle")
    @classmethod
    def _rises(cls, settle: tuple[int, int] | None) -> tuple[int, int] | None:
        if settle is not None and not 0 <= settle[0] < settle[1]:
            raise ValueError(
                f"rates fall from one number of images to a larger one, not from {settle[0]} to {settle[1]}"
            )
        return settle


def plan_of(training: HeadsTraining, variant: HeadVariant) -> Plan:
    """The phases and curves of a variant.

    EG3D and PanoHead train on everything from the start. Spheres train on near-front pictures first, each sphere alone
    for two thirds of the time; then on everything; then on the fused spheres most of the time (SphereHead, Sec. 5.1).
    ViCo comes with the third phase in every variant that has it.
    """
    t, vico = training, training.vico if variant.vico else 0.0
    early = t.single_early if variant.base in ("dual_sphere", "spherehead") else 0.0
    late = t.single_late if variant.base in ("dual_sphere", "spherehead") else 0.0
    if t.vico_after <= t.near_front_images:
        raise LineamentError(
            f"phase III begins after {t.vico_after} images, before phase I ends after {t.near_front_images}: "
            "raise vico_after or lower near_front_images."
        )
    first = Phase(name="near_front", images=t.near_front_images, settings=_settings("front", early, 0.0))
    second = Phase(
        name="all", images=t.vico_after - t.near_front_images * variant.spherical, settings=_settings("all", early, 0.0)
    )
    third = Phase(name="consistent", settings=_settings("all", late, vico))
    blur_images = t.blur_images or (t.near_front_images if variant.spherical else 200_000)
    noise = t.density_noise if t.density_noise is not None else float(variant.base != "eg3d")
    swap = t.swap if t.swap is not None else (0.5 if variant.base == "eg3d" else 0.7)
    settle = {"lr": Curve(knots=((t.settle[0], 1.0), (t.settle[1], 0.0)))} if t.settle else {}
    return Plan(
        phases=(first, second, third) if variant.spherical else (second, third),
        curves={
            **settle,
            "swap": Curve(knots=((0, 1.0), (t.swap_images, swap))),
            "blur": Curve(knots=((0, t.blur), (blur_images, 0.0))),
            "density_noise": Curve(knots=((0, noise), (t.density_noise_images, 0.0))),
        },
    )


def _settings(data: str, single: float, vico: float) -> dict[str, bool | float | str]:
    return {"data": data, "single": single, "vico": vico}


class HeadsObjective:
    """`ops.train.objective.Objective` of one variant; it draws too.

    Args:
        model: sizes of the generator; its variant and parsing are those of ``variant``, see :func:`model_of`.
        training: weights and rates.
        variant: see :class:`HeadVariant`.
        cameras: (M, 25) labels spread over the data set, from which snapshots are drawn.
        discriminator: options of `HeadConfig.discriminator`.
    """

    networks: Mapping[str, nn.Module]
    averaged: Sequence[str] = ("generator",)
    optimizers: Mapping[str, torch.optim.Optimizer]
    updates: Sequence[Update]

    def __init__(
        self,
        model: HeadConfig,
        training: HeadsTraining,
        variant: HeadVariant,
        cameras: Tensor,
        discriminator: Mapping[str, object] | None = None,
    ) -> None:
        self.model, self.training, self.variant, self.cameras = model, training, variant, cameras
        self.generator = HeadGenerator(model)
        self.discriminator = Discriminator(model.discriminator(**(discriminator or {})))
        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        self.augment = Augment(training.augment, _mirrored_channels(model)) if training.augment else None
        if self.augment is not None:
            self.networks["augment"] = self.augment
        # Within an iteration: what the generator showed, and the signs of the real pictures' logits.
        self._made: list[Shown] = []
        self._signs: list[Tensor] = []
        t = training
        self.density = t.density if t.density is not None else 0.25 * (variant.base == "eg3d")
        density = Term("density", self.smooth_density, every=t.density_every) if self.density else None
        r1 = Term("r1", self.penalise, every=t.r1_every, second_order=True) if t.r1 else None
        self.optimizers, self.updates = game(
            generator=Player(self.generator, t.lr_generator, Term("generator", self.fool), density),
            discriminator=Player(self.discriminator, t.lr_discriminator, Term("discriminator", self.judge), r1),
        )

    # --- what the networks are shown ----------------------------------------------------------------------------------

    def render(self, batch: Batch, moment: Moment, learning: bool = False) -> HeadOutput:
        """New heads seen from the batch's cameras; ``learning`` also moves the mean style."""
        z, told = self._codes(batch, moment)
        behind = None
        if self.model.foreground:
            behind = torch.where(chance(z, moment, self.training.background_swap), z.roll(1, 0), z)
        return self.generator(
            z,
            batch["camera"],
            conditioning=told,
            background=behind,
            update_average=learning,
            sphere=self._sphere(moment),
            density_noise=number(moment, "density_noise"),
            neural_resolution=self._side(moment),
        )

    def real(self, batch: Batch, moment: Moment) -> Shown:
        """The batch as the generator would show it: picture; picture, mask and parsing at the rays' resolution."""
        side = self._side(moment)
        image = batch["image"]
        mask = parsing = None
        if self.model.foreground:
            mask = fir.resize(batch["mask"], side)
        if self.model.has_parsing:
            classes = F.one_hot(batch["parsing"].long(), self.model.parsing_classes).permute(0, 3, 1, 2)
            parsing = fir.resize(classes.to(image.dtype), side)
        return Shown(image, fir.resize(image, side), mask, parsing)

    def look(self, shown: Shown, label: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        """The discriminator's features of blurred and augmented pictures, and the labels to judge them by.

        A real parsing has one class a pixel, a generated one shares of many, which tells them apart at a glance: the
        smaller ``parsing_scale``, the more a discriminator that has little time looks at the pictures instead.
        """
        sigma = number(moment, "blur") * self.model.resolution / 512
        parsing = None if shown.parsing is None else shown.parsing * self.training.parsing_scale
        stack = shown._replace(image=fir.gaussian_blur(shown.image, sigma), parsing=parsing).stack()
        if self.augment is not None:
            stack, label = self.augment(stack, label, pictures=2, generator=moment.generator)
        return self.discriminator.look(stack), label

    # --- losses -------------------------------------------------------------------------------------------------------

    def fool(self, batch: Batch, moment: Moment) -> Named:
        """The generator's part of the game, with the camera's shift and the mask held in check."""
        made = self.render(batch, moment, learning=True)
        shown = Shown(made.image, made.raw, made.mask, made.parsing)
        if self.training.reuse:
            self._made.append(Shown(**{name: x.detach() for name, x in _parts(shown).items()}))
        logits = self.discriminator.decide(*self.look(shown, batch["camera"], moment))
        loss = generator_loss(logits)
        named = {"generator": loss}
        if made.offset is not None:
            named["offset"] = made.offset.square().mean()
            loss = loss + self.training.offset * named["offset"]
        if made.mask is not None and self.training.mask_decision:
            named["mask_decision"] = mask_decision(made.mask)
            loss = loss + self.training.mask_decision * named["mask_decision"]
        return loss, named

    def smooth_density(self, batch: Batch, moment: Moment) -> Named:
        """Density differs little between neighbours."""
        z, told = self._codes(batch, moment)
        field = self.generator.field(self.generator.planes(self.generator.mapping(z, told)), self._sphere(moment))
        with torch.autocast(moment.device.type, enabled=False):  # as in the renderer
            loss = density_variation(lambda x: field(x)[1], len(z), self.model.box, device=moment.device)
        return self.density * self.training.density_every * loss, {"density": loss}

    def judge(self, batch: Batch, moment: Moment) -> Named:
        """The discriminator's part without the penalty; ViCo reads the same features under other labels."""
        fake = self.discriminator.decide(*self.look(self._fake(batch, moment), batch["camera"], moment))
        seen, label = self.look(self.real(batch, moment), batch["camera"], moment)
        real = self.discriminator.decide(seen, label)
        loss = discriminator_loss(real, fake)
        named = {"discriminator": loss, "real": real.mean(), "fake": fake.mean()}
        weight = number(moment, "vico")
        if weight:
            named["vico"] = view_consistency_loss(
                lambda wrong: self.discriminator.decide(seen, wrong), label, self.training.vico_degrees
            )
            loss = loss + weight * named["vico"]
        if self.augment is not None:
            self._signs.append(real.detach().sign())
        return loss, named

    def _fake(self, batch: Batch, moment: Moment) -> Shown:
        if self._made:
            return self._made.pop(0)
        with torch.no_grad():
            made = self.render(batch, moment)
        return Shown(made.image, made.raw, made.mask, made.parsing)

    def penalise(self, batch: Batch, moment: Moment) -> Named:
        """``gamma / 2`` times R1 over all that the discriminator is shown."""
        leaves = {name: x.detach().requires_grad_() for name, x in _parts(self.real(batch, moment)).items()}
        logits = self.discriminator.decide(*self.look(Shown(**leaves), batch["camera"], moment))
        penalty = r1_penalty(logits, *leaves.values())
        return self.training.r1 / 2 * self.training.r1_every * penalty, {"r1": penalty}

    def after(self, moment: Moment) -> None:
        """Adapt the augmentation to how sure the discriminator is of the real pictures, on all ranks alike."""
        if self.augment is None or not self._signs:
            return
        signs = torch.cat(self._signs)
        self._signs.clear()
        self.augment.learn(ddp.mean(signs.mean()), len(signs) * ddp.world())

    # --- pictures -----------------------------------------------------------------------------------------------------

    def sample(self, networks: Mapping[str, nn.Module], rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """One head a row, seen from all sides: from the front, by its left, the back, its right."""
        network, device = cast(HeadGenerator, networks["generator"]), generator.device
        turn = torch.arange(columns, device=device) * (2 * torch.pi / columns)
        labels = around(turn, self.cameras[:1])
        codes = torch.randn(rows, self.model.mapping.z_size, generator=generator, device=device)
        shown = []
        for z in codes.split(1):
            ws = network.mapping(z, labels[:1])
            planes = network.planes(ws, noise="const")
            for label in labels.split(DRAWN_AT_ONCE):
                n = len(label)
                out = network.synthesise(
                    ws.expand(n, -1, -1), label, noise="const", jitter=False, planes=planes.expand(n, -1, -1, -1)
                )
                shown.append(out.image)
        return torch.cat(shown)

    def draw(
        self, networks: Mapping[str, nn.Module], count: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """New heads, each from a camera of the data that its identity was told, as EG3D measures its FID."""
        network, device = cast(HeadGenerator, networks["generator"]), generator.device
        every = torch.linspace(0, len(self.cameras) - 1, count).round().long()
        for label in self.cameras[every].to(device).split(DRAWN_AT_ONCE):
            z = torch.randn(len(label), self.model.mapping.z_size, generator=generator, device=device)
            yield network(z, label, noise="const", jitter=False).image, label

    # --- chance -------------------------------------------------------------------------------------------------------

    def _codes(self, batch: Batch, moment: Moment) -> tuple[Tensor, Tensor]:
        return latents(self.model.mapping.z_size, batch["camera"], moment)

    def _sphere(self, moment: Moment) -> Sphere:
        """A, B or both; from torch's own generator, which is seeded at each step, so that no device is waited for."""
        single, drawn = number(moment, "single"), torch.rand(()).item()
        return "a" if drawn < single else "b" if drawn < 2 * single else "fused"

    def _side(self, moment: Moment) -> int:
        return round(number(moment, "neural_resolution", self.model.neural_resolution))


def model_of(model: HeadConfig, variant: HeadVariant) -> HeadConfig:
    """The generator's configuration with the variant put in."""
    return model.model_copy(update={"variant": variant.base, "parsing": variant.parsing})


def _parts(shown: Shown) -> dict[str, Tensor]:
    """What there is of it."""
    return {name: part for name, part in shown._asdict().items() if part is not None}


def _mirrored_channels(model: HeadConfig) -> list[int]:
    """The channel that each channel of a discriminator's input becomes when mirrored."""
    plain = 6 + model.foreground
    if not model.has_parsing:
        return list(range(plain))
    swapped = mirrored_classes().tolist()
    swapped += range(len(swapped), model.parsing_classes)
    return [*range(plain), *(plain + number for number in swapped)]
