"""What the three stages of learning to invert share: the prior's world, drawn and photographed, and how it is compared.

A *subject* is a picture of a person with the codes and the camera behind it: a real one with its fit, or one that the
prior painted, of which then everything is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from models import fir
from models.avatar import AvatarOutput
from models.avatar_mesh import AvatarMesh
from models.camera import FFHQ_RADIUS, pack_label, pose_on_sphere, unpack_label
from models.headmask import HeadMask
from models.inversion import Canonical, Frame, Inverter, posed_frame
from models.parametric.person import Person
from ops.runtime.params import Params
from ops.train.likeness import Likeness, LikenessParams
from ops.train.objective import Batch, Moment
from ops.train.priors import Priors

Named = tuple[Tensor, dict[str, Tensor]]
TURN = 0.5  # radians that previews turn heads to the side; unpublished: our choice


class InversionTraining(Params):
    """What all stages are told. The weights of L1, raw, planes and textures are 1, 1, 0.001 and 0.001 (A.2.2)."""

    synthetic: float = Field(default=0.5, ge=0, le=1, description="share of the prior's own samples")  # our choice
    truncation: float = Field(default=0.8, gt=0, le=1)  # public code, stage 2
    lr: float = Field(default=1e-4, gt=0)  # A.2.1, A.2.2; public code: 4e-5 for the latent encoder
    betas: tuple[float, float] = (0.9, 0.999)  # unpublished: Adam's own
    pixels: float = Field(default=1.0, ge=0, description="weight of L1")  # Equations 2 and 3
    perceptual: float = Field(default=1.0, ge=0)  # Equation 3
    raw: float = Field(default=1.0, ge=0, description="weight of L1 of the rendered picture")  # Equation 3
    planes: float = Field(default=0.001, ge=0, description="weight of L1 of the static tri-plane")  # Equation 3
    textures: float = Field(default=0.001, ge=0)  # Equation 3; public code: 0
    likeness: LikenessParams = LikenessParams()


class Pose(NamedTuple):
    """identity (N, 80), expression (N, 52), camera (N, 25) in the head's frame."""

    identity: Tensor
    expression: Tensor
    camera: Tensor


class Subjects(NamedTuple):
    """Pictures (N, 3, R, R) and their poses; of the last ones, which the prior painted, also what it painted from."""

    image: Tensor
    pose: Pose
    canonical: Canonical | None = None
    shown: AvatarOutput | None = None

    @property
    def real(self) -> int:
        """How many come first that the prior did not paint."""
        return len(self.image) - (0 if self.canonical is None else len(self.canonical.ws))

    def raw(self, side: int) -> Tensor:
        """(N, 3, side, side) rendered pictures where they are known, else the shrunk pictures."""
        small = fir.resize(self.image, side)
        return small if self.shown is None else torch.cat([small[: self.real], self.shown.raw])


class Frozen(nn.Module):
    """What training uses and never changes: not saved with a run, whose configuration has its digest."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Frozen:
        """Always evaluation."""
        return super().train(False)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Empty."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Nothing to load."""
        if state_dict:
            raise ValueError(f"nothing frozen is saved, yet there is {next(iter(state_dict))}")


class World:
    """A prior and the people it paints.

    Args:
        inverter: the prior with its encoders.
        mesh: of the prior.
        person: the parametric model behind the codes.
        priors: how codes and cameras are distributed.
        params: see :class:`InversionTraining`.
        likeness: the comparing networks; made from the params if None.
    """

    def __init__(
        self,
        inverter: Inverter,
        mesh: AvatarMesh,
        person: Person,
        priors: Priors,
        params: InversionTraining,
        likeness: Likeness | None = None,
    ) -> None:
        self.inverter, self.mesh, self.priors, self.params = inverter, mesh, priors, params
        self.prior, self.outline = inverter.prior, HeadMask(person)
        self.likeness = likeness or Likeness(params.likeness)
        self.frozen = Frozen(prior=self.prior, mesh=mesh, outline=self.outline, likeness=self.likeness)

    # --- people ---

    def poses(self, count: int, random: torch.Generator) -> Pose:
        """Fits as they occur."""
        self.priors = self.priors.to(random.device)
        found = self.priors.sample(count, random)
        return Pose(found.identity, found.expression, found.camera_face)

    @torch.no_grad()
    def characters(self, camera: Tensor, random: torch.Generator, truncation: float) -> Canonical:
        """People of the prior, one for each of the cameras (N, 25) that the mapping network is told."""
        size = len(camera), self.prior.mapping.config.z_size
        z = torch.randn(size, generator=random, device=random.device)
        return self.inverter.coarse(self.prior.mapping(z, camera, truncation))

    @torch.no_grad()
    def paint(self, canonical: Canonical, pose: Pose) -> AvatarOutput:
        """People of the prior in a pose."""
        return self.show(canonical, pose)

    def show(self, canonical: Canonical, pose: Pose) -> AvatarOutput:
        """Avatars in a pose, with gradients."""
        return self.inverter.render(canonical, self.mesh.surface(pose.identity, pose.expression), pose.camera)

    def subjects(self, batch: Batch, moment: Moment) -> Subjects:
        """A batch whose last pictures, in the share ``synthetic``, give way to the prior's samples."""
        count = len(batch["image"])
        made = round(self.params.synthetic * count)
        image, pose = batch["image"], Pose(batch["identity"], batch["expression"], batch["camera"])
        if not made:
            return Subjects(image, pose)
        kept = count - made
        drawn = self.poses(made, moment.generator)
        canonical = self.characters(drawn.camera, moment.generator, self.params.truncation)
        shown = self.paint(canonical, drawn)
        together = Pose(*(torch.cat([a[:kept], b]) for a, b in zip(pose, drawn)))
        return Subjects(torch.cat([image[:kept], shown.image]), together, canonical, shown)

    def frame(self, image: Tensor, pose: Pose, first: bool = True) -> Frame:
        """A frame for the inverter; those after the first come with the head's mask, where the inverter wants it."""
        masked = not first and self.inverter.config.later_frames == "head"
        mask = self.outline(pose.identity, pose.camera, image.shape[-1]) if masked else None
        return posed_frame(self.mesh, image, *pose, mask=mask)

    # --- losses ---

    def compare(self, seen: Tensor, rendered: Tensor, image: Tensor, raw: Tensor) -> Named:
        """Pixels, perceptual distance, and the rendered pictures (Equation 3), each by its name.

        Args:
            seen: (N, 3, R, R) reconstructions.
            rendered: (N, 3, r, r) what they were enlarged from.
            image: (N, 3, R, R) what they should be.
            raw: (N, 3, r, r) what the rendered pictures should be.
        """
        p = self.params
        named = {"pixels": (seen - image).abs().mean(), "raw": (rendered - raw).abs().mean()}
        total = p.pixels * named["pixels"] + p.raw * named["raw"]
        apart = self.likeness.apart(seen, image) if p.perceptual else None
        if apart is not None:
            named["perceptual"] = apart
            total = total + p.perceptual * apart
        return total, named

    def within(self, found: Canonical, truth: Canonical, textures: bool = True) -> Named:
        """How far canonical features are from the prior's own (Equation 3)."""
        named: dict[str, Tensor] = {}
        total = found.ws.new_zeros(())
        if found.static.picture is not None and truth.static.picture is not None:
            named["planes"] = (found.static.picture - truth.static.picture).abs().mean()
            total = total + self.params.planes * named["planes"]
        if textures:
            apart = [(a - b).abs().mean() for a, b in zip(found.textures, truth.textures)]
            named["textures"] = torch.stack(apart).mean()
            total = total + self.params.textures * named["textures"]
        return total, named


def last(canonical: Canonical, count: int) -> Canonical:
    """The last ones of a batch of avatars."""
    return Canonical(*_last((canonical.ws, canonical.textures, canonical.static), count))


def _last(value: Any, count: int) -> Any:
    if isinstance(value, Tensor):
        return value[len(value) - count :]
    if value is None:
        return None
    parts = [_last(part, count) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def rows_of(shown: tuple[Tensor, Pose], rows: int, device: torch.device) -> tuple[Tensor, Pose]:
    """As many pictures and poses as a preview has rows, again from the first one where they are few."""
    number = torch.arange(rows) % len(shown[0])
    return shown[0][number].to(device), Pose(*(x[number].to(device) for x in shown[1]))


def other_views(pose: Pose) -> Iterator[Pose]:
    """For previews: from the side, with the next one's expression, from the other side, and so on."""
    intrinsic = unpack_label(pose.camera)[1]
    while True:
        for angle in (TURN, None, -TURN):
            if angle is None:
                yield pose._replace(expression=pose.expression.roll(1, 0))
                continue
            azimuth = torch.full_like(pose.camera[:, 0], angle)
            side = pose_on_sphere(azimuth, torch.zeros_like(azimuth), FFHQ_RADIUS)
            yield pose._replace(camera=pack_label(side, intrinsic))


def in_rows(columns: list[Tensor]) -> Tensor:
    """Columns of (N, 3, H, W) pictures to (N * columns, 3, H, W), row by row."""
    return torch.stack(columns, dim=1).flatten(0, 1)
