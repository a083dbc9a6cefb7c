"""Single-view inversion: the styles whose head looks like a picture, then the generator tuned until it does.

First the styles are found by gradient descent (StyleGAN2's projection: one style for all layers, W, or one a layer,
W+), with the generator fixed. Then the styles are the pivot, and the generator's weights are tuned around it (PTI,
Roich et al. 2022). Numbers are PanoHead's, which SphereHead uses for its own comparison (section 5.5): 0.1 of the
squared difference, a perceptual distance, and the distance of the styles from the average. Two terms are ours and off
unless asked for: the head's mask and its parsing, which hold the shape where colours do not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from models import fir
from models.features import MobileNetV2, distance_of_maps
from models.spherehead import HeadGenerator, HeadOutput
from ops.apply.cameras import orbit
from ops.apply.heads import Heads
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params

Watch = Callable[[Iterable[int], str], Iterable[int]]  # puts a progress bar around steps


class InversionParams(Params):
    """How a picture is inverted."""

    space: Literal["w", "w+"] = "w"  # PanoHead's projector; W+ fits closer and turns worse
    steps: int = Field(default=500, ge=1, description="of finding the styles")  # PanoHead
    lr: float = Field(default=0.1, gt=0, description="of the styles")  # StyleGAN2's projector
    tuning_steps: int = Field(default=350, ge=0, description="of tuning the generator; 0 for none")  # PanoHead
    tuning_lr: float = Field(default=3e-4, gt=0)  # PanoHead
    squares: float = Field(default=0.1, ge=0, description="weight of the squared difference")  # PanoHead
    perceptual: float = Field(default=1.0, ge=0, description="weight of the perceptual distance")  # PanoHead, by LPIPS
    average: float = Field(default=1.0, ge=0, description="weight of the styles' distance from the average")  # PanoHead
    mask: float = Field(default=0.0, ge=0, description="weight of the mask")  # unpublished: our choice
    parsing: float = Field(default=0.0, ge=0, description="weight of the parsing")  # unpublished: our choice
    noise: float = Field(default=0.05, ge=0, description="on the styles, while they are found")  # StyleGAN2
    perceptual_side: int = Field(default=224, ge=32, description="pixels")  # of MobileNetV2's training
    latents: int = Field(default=600, ge=2, description="of which the average is taken")  # PanoHead
    seed: int = Field(default=0, ge=0)  # unpublished: our choice


class Target(NamedTuple):
    """What is to be found again.

    picture: (1, 3, H, H) in [-1, 1]. camera: (1, 25). mask: (1, 1, h, h) in [0, 1], or None. parsing: (1, h, h) class
    numbers, or None.
    """

    picture: Tensor
    camera: Tensor
    mask: Tensor | None = None
    parsing: Tensor | None = None


@dataclass(frozen=True)
class Inversion:
    """What was found.

    Attributes:
        average: (1, w_count, w_size) where the search began.
        styles: (1, w_count, w_size) the pivot.
        net: the tuned generator.
        losses: of every step, the search before the tuning.
    """

    average: Tensor
    styles: Tensor
    net: HeadGenerator
    losses: list[float] = field(repr=False)


def invert(
    heads: Heads, target: Target, network: MobileNetV2, p: InversionParams, watch: Watch = lambda steps, _: steps
) -> Inversion:
    """Find the styles of a picture, then tune a copy of the generator.

    Args:
        heads: the generator, which stays as it is.
        target: the picture and its camera.
        network: of the perceptual distance.
        p: weights and steps.
        watch: puts a progress bar around steps.

    Raises:
        LineamentError: a term is asked for that the generator or the target lacks, or the search diverged.
    """
    _check(heads, target, p)
    target = Target(*(None if part is None else part.to(heads.device) for part in target))  # type: ignore[arg-type]
    net = copy.deepcopy(heads.net)
    loss = _Loss(net, target, network.to(heads.device), p)
    average, deviation = _spread(heads, p)
    count = net.w_count if p.space == "w+" else 1
    ws = average[:, :1].repeat(1, count, 1).requires_grad_()
    optimiser = torch.optim.Adam([ws], lr=p.lr, betas=(0.9, 0.999))
    generator = torch.Generator().manual_seed(p.seed)
    losses = []
    for step in watch(range(p.steps), "styles"):
        done = step / p.steps
        for group in optimiser.param_groups:
            group["lr"] = p.lr * _ramp(done)
        grain = torch.randn(ws.shape, generator=generator).to(ws) * deviation * p.noise
        noisy = ws + grain * max(0.0, 1 - done / 0.75) ** 2  # StyleGAN2's projector
        value = loss(noisy.expand(1, net.w_count, -1)) + p.average * (ws - average[:, :1]).square().mean()
        losses.append(_descend(optimiser, value))
    styles = ws.detach().expand(1, net.w_count, -1).contiguous()
    if p.tuning_steps:
        net.requires_grad_(True)
        optimiser = torch.optim.Adam([w for w in net.parameters() if w.requires_grad], lr=p.tuning_lr)
        for _ in watch(range(p.tuning_steps), "generator"):
            losses.append(_descend(optimiser, loss(styles)))
        net.requires_grad_(False)
    return Inversion(average, styles, net, losses)


class _Loss:
    """How far a head seen from the target's camera is from the target."""

    def __init__(self, net: HeadGenerator, target: Target, network: MobileNetV2, p: InversionParams) -> None:
        self.net, self.target, self.network, self.p = net, target, network, p
        with torch.no_grad():
            self.wanted = network.maps(_looked_at(target.picture, p.perceptual_side)) if p.perceptual else []

    def __call__(self, ws: Tensor) -> Tensor:
        p, target = self.p, self.target
        output = self.net.synthesise(ws, target.camera, noise="const", jitter=False)
        value = p.squares * (output.image - target.picture).square().mean()
        if p.perceptual:
            seen = self.network.maps(_looked_at(output.image, p.perceptual_side))
            value = value + p.perceptual * distance_of_maps(seen, self.wanted).mean()
        return value + self._shape(output)

    def _shape(self, output: HeadOutput) -> Tensor:
        p, total = self.p, output.image.new_zeros(())
        if p.mask and output.mask is not None and self.target.mask is not None:
            wanted = fir.resize(self.target.mask, output.mask.shape[-1])
            total = total + p.mask * (output.mask - wanted).square().mean()
        if p.parsing and output.parsing is not None and self.target.parsing is not None:
            side = output.parsing.shape[-1]
            wanted = F.interpolate(self.target.parsing[:, None].float(), (side, side), mode="nearest")[:, 0].long()
            total = total + p.parsing * F.nll_loss(output.parsing.clamp_min(1e-6).log(), wanted)
        return total


def _check(heads: Heads, target: Target, p: InversionParams) -> None:
    side = heads.resolution
    if target.picture.shape != (1, 3, side, side):
        raise LineamentError(f"inversion by {heads.folder} takes a picture of {side} px, not {target.picture.shape}.")
    if p.mask and (target.mask is None or not heads.config.foreground):
        raise LineamentError("inversion with a mask term needs a mask, and a generator that renders one (not eg3d).")
    if p.parsing and (target.parsing is None or not heads.config.has_parsing):
        raise LineamentError("inversion with a parsing term needs a parsing, and a generator that renders one.")


@torch.no_grad()
def _spread(heads: Heads, p: InversionParams) -> tuple[Tensor, float]:
    """The average style of many latents, (1, w_count, w_size), and how far styles lie from it."""
    generator = torch.Generator().manual_seed(p.seed)
    z = torch.randn(p.latents, heads.config.mapping.z_size, generator=generator).to(heads.device)
    ws = heads.net.mapping(z, orbit(0.0).to(heads.device).expand(p.latents, -1))
    average = ws.mean(dim=0, keepdim=True)
    return average, float((ws[:, 0] - average[:, 0]).square().sum(dim=1).mean().sqrt() / math.sqrt(ws.shape[-1]))


def _looked_at(image: Tensor, side: int) -> Tensor:
    return F.interpolate((image + 1) / 2, (side, side), mode="bilinear", antialias=True)


def _ramp(done: float) -> float:
    """StyleGAN2's projector: up in the first twentieth, down along a cosine in the last quarter."""
    down = min(1.0, (1 - done) / 0.25)
    return (0.5 - 0.5 * math.cos(down * math.pi)) * min(1.0, max(done, 1e-3) / 0.05)


def _descend(optimiser: torch.optim.Optimizer, value: Tensor) -> float:
    if not value.isfinite():
        raise LineamentError("the inversion diverged: its loss is not finite. Lower lr or tuning_lr.")
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    optimiser.step()
    return float(value.detach())
