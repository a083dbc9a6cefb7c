"""Adaptive augmentation of what a discriminator sees (Karras et al. 2020, ADA): pixel blitting, geometry, colour.

Every picture, real or generated, passes through the same random transformations, each with probability ``p``, which
rises while the discriminator is too sure of the real ones. Below about 0.8 the discriminator can undo them in
distribution, so they do not leak into what is generated. Two departures from the paper: pictures are read bilinearly,
without its wavelet filters; and a mirrored picture gets its mirrored camera, for a face seen from its left is no face
seen from its right.

All of it differentiates twice, as the R1 penalty needs: `grid_sample` does not, so pictures are read by plain indexing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.camera import mirror_label
from models.config import Config


class AugmentConfig(Config):
    """Which transformations there are, and how far they go; 0 leaves one out. Defaults: the paper's appendix B."""

    flip: bool = True  # mirror left to right
    quarter_turns: bool = True  # rotate by 90, 180 or 270 degrees
    shift: float = 0.125  # whole pixels, within +- this share of the side
    scale: float = 0.2  # deviation of log2
    turn: float = 1.0  # rotate by any angle, within +- this share of 180 degrees
    stretch: float = 0.2  # deviation of log2 of the aspect ratio
    slide: float = 0.125  # deviation of a shift by parts of pixels, share of the side
    brightness: float = 0.2  # deviation
    contrast: float = 0.5  # deviation of log2
    luma_flip: bool = True  # turn light and dark around
    hue: float = 1.0  # rotate by +- this share of 180 degrees
    saturation: float = 1.0  # deviation of log2
    target: float = 0.6  # of the mean sign of the logits of real pictures
    every: int = 4  # steps between two changes of p
    images: int = 500_000  # in which p goes from 0 to 1 at most


class Augment(nn.Module):
    """The pipeline with its probability, which is state: keep it in checkpoints.

    Args:
        config: what is done.
        mirrored: (C,) the channel that each channel becomes in a mirrored picture; as they are if None. Class maps
            have left and right eyes.

    Attributes:
        p: probability of each transformation.
    """

    p: Tensor
    signs: Tensor
    seen: Tensor

    def __init__(self, config: AugmentConfig, mirrored: Sequence[int] | None = None, p: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("signs", torch.zeros(()))  # sum over steps since p changed
        self.register_buffer("seen", torch.zeros(()))  # steps since p changed
        self.register_buffer("mirrored", None if mirrored is None else torch.tensor(mirrored), persistent=False)

    def forward(
        self, x: Tensor, label: Tensor, pictures: int = 1, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Transform a batch.

        Args:
            x: (N, C, H, H); the first ``3 * pictures`` channels are colours in [-1, 1], transformed alike. Others go
                through the geometry alone.
            label: (N, 25) cameras.
            generator: of all random numbers.

        Returns:
            the transformed channels, and the labels, mirrored where the picture is.
        """
        draw = _Draw(x.shape[0], self.p, generator, x.device)
        affine, flipped = draw_geometry(self.config, draw, x.shape[-1])
        if isinstance(self.mirrored, Tensor):
            x = torch.where(flipped[:, None, None, None], x[:, self.mirrored], x)
        x = warp(x, affine)
        matrix = draw_colour(self.config, draw).to(x.dtype)
        colours = x[:, : 3 * pictures].unflatten(1, (pictures, 3)).flatten(3)
        colours = matrix[:, None, :3, :3] @ colours + matrix[:, None, :3, 3:]
        x = torch.cat([colours.flatten(1, 2).unflatten(2, x.shape[2:]), x[:, 3 * pictures :]], dim=1)
        return x, torch.where(flipped[:, None], mirror_label(label), label)

    @torch.no_grad()
    def learn(self, sign: Tensor, images: int) -> None:
        """Count the mean sign of a step's logits of real pictures; every few steps move p towards the target.

        Args:
            sign: scalar in [-1, 1], over all ranks.
            images: a step.
        """
        self.signs += sign
        self.seen += 1
        if self.seen >= self.config.every:
            step = images * self.config.every / self.config.images
            too_sure = torch.sign(self.signs / self.seen - self.config.target)
            self.p.copy_((self.p + too_sure * step).clamp(0, 1))
            self.signs.zero_()
            self.seen.zero_()


class _Draw:
    """Random numbers for N pictures, each with a chance ``p`` to be something else than "nothing happens"."""

    def __init__(self, n: int, p: Tensor, generator: torch.Generator | None, device: torch.device) -> None:
        self.n, self.p, self.generator, self.device = n, p, generator, device

    def uniform(self, low: float = 0.0, high: float = 1.0, count: int = 1) -> Tensor:
        return torch.rand(self.n, count, generator=self.generator, device=self.device) * (high - low) + low

    def normal(self, deviation: float, count: int = 1) -> Tensor:
        return torch.randn(self.n, count, generator=self.generator, device=self.device) * deviation

    def maybe(self, value: Tensor, nothing: float, p: Tensor | None = None) -> Tensor:
        """``value`` (N, K) with probability p for each picture, else ``nothing``."""
        chosen = self.uniform() < (self.p if p is None else p)
        return torch.where(chosen, value, torch.full_like(value, nothing))


def draw_geometry(config: AugmentConfig, draw: _Draw, side: int) -> tuple[Tensor, Tensor]:
    """(N, 3, 3) maps from pixels of the result to those of the source, about the middle; (N,) mirrored or not."""
    flip = draw.maybe(torch.where(draw.uniform() < 0.5, -1.0, 1.0), 1.0) if config.flip else draw.uniform(1, 1)
    affine = _matrix(flip, 0, 0, 1)
    if config.quarter_turns:
        affine = affine @ _rotation(draw.maybe((draw.uniform(0, 4)).floor(), 0) * (math.pi / 2), exact=True)
    if config.shift:
        affine = affine @ _shift(draw.maybe((draw.uniform(-1, 1, 2) * config.shift * side).round(), 0))
    if config.scale:
        size = draw.maybe(draw.normal(config.scale).exp2(), 1)
        affine = affine @ _matrix(size, 0, 0, size)
    # Two rotations, before and after stretching, together with probability p.
    once = 1 - (1 - draw.p).clamp_min(0).sqrt()
    limit = config.turn * math.pi
    if config.turn:
        affine = affine @ _rotation(draw.maybe(draw.uniform(-limit, limit), 0, once))
    if config.stretch:
        ratio = draw.maybe(draw.normal(config.stretch).exp2(), 1)
        affine = affine @ _matrix(ratio, 0, 0, 1 / ratio)
    if config.turn:
        affine = affine @ _rotation(draw.maybe(draw.uniform(-limit, limit), 0, once))
    if config.slide:
        affine = affine @ _shift(draw.maybe(draw.normal(config.slide, 2) * side, 0))
    return affine, flip[:, 0] < 0


def draw_colour(config: AugmentConfig, draw: _Draw) -> Tensor:
    """(N, 4, 4) maps of homogeneous colours; (1, 1, 1) is the axis of brightness."""
    eye = torch.eye(4, device=draw.device).expand(draw.n, 4, 4)
    axis = torch.full((3, 1), 3**-0.5, device=draw.device)
    along = torch.zeros(4, 4, device=draw.device)
    along[:3, :3] = axis @ axis.T
    across = torch.eye(4, device=draw.device) - along
    matrix = eye
    if config.brightness:
        shift = torch.zeros(draw.n, 4, 4, device=draw.device)
        shift[:, :3, 3] = draw.maybe(draw.normal(config.brightness), 0)
        matrix = (eye + shift) @ matrix
    if config.contrast:
        gain = draw.maybe(draw.normal(config.contrast).exp2(), 1)
        matrix = torch.diag_embed(torch.cat([gain.expand(-1, 3), torch.ones_like(gain)], dim=1)) @ matrix
    if config.luma_flip:
        turned = draw.maybe(draw.uniform().round(), 0)[..., None]
        matrix = (eye - 2 * turned * along) @ matrix
    if config.hue:
        limit = config.hue * math.pi
        angle = draw.maybe(draw.uniform(-limit, limit), 0)[..., None]
        s = 3**-0.5
        cross = torch.tensor([[0, -s, s, 0], [s, 0, -s, 0], [-s, s, 0, 0], [0, 0, 0, 0]], device=draw.device)
        matrix = (eye + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)) @ matrix  # Rodrigues
    if config.saturation:
        gain = draw.maybe(draw.normal(config.saturation).exp2(), 1)[..., None]
        colour = across.clone()
        colour[3, 3] = 0
        matrix = (eye + (gain - 1) * colour) @ matrix
    return matrix


def warp(x: Tensor, affine: Tensor) -> Tensor:
    """Read pictures elsewhere: bilinear, reflected at the borders, differentiable twice.

    Args:
        x: (N, C, H, H).
        affine: (N, 3, 3), pixels of the result to pixels of the source, relative to the middle.
    """
    side = x.shape[-1]
    middle = (side - 1) / 2
    line = torch.arange(side, device=x.device, dtype=affine.dtype) - middle
    v, u = torch.meshgrid(line, line, indexing="ij")
    target = torch.stack([u.flatten(), v.flatten(), torch.ones_like(u).flatten()])
    at = (affine[:, :2] @ target + middle + 0.5).remainder(2 * side)  # (N, 2, P), in a mirrored tiling
    at = (side - (at - side).abs() - 0.5).clamp(0, side - 1)
    low = at.floor().clamp_max(max(side - 2, 0))
    fraction = (at - low).to(x.dtype)
    (left, top), (fu, fv) = low.long().unbind(1), fraction.unbind(1)
    flat = x.flatten(2)

    def read(down: int, right: int) -> Tensor:
        index = (top + down) * side + left + right
        return flat.gather(2, index.unsqueeze(1).expand(-1, x.shape[1], -1))

    fu, fv = fu.unsqueeze(1), fv.unsqueeze(1)
    rows: list[Tensor] = [read(down, 0) * (1 - fu) + read(down, 1) * fu for down in (0, 1)]
    return (rows[0] * (1 - fv) + rows[1] * fv).view_as(x)


def _matrix(a: Tensor, b: Tensor | float, c: Tensor | float, d: Tensor | float) -> Tensor:
    """(N, 3, 3) from the entries of the linear part, (N, 1) or numbers."""
    matrix = torch.eye(3, device=a.device).repeat(a.shape[0], 1, 1)
    for row, column, value in ((0, 0, a), (0, 1, b), (1, 0, c), (1, 1, d)):
        matrix[:, row, column] = value[:, 0] if isinstance(value, Tensor) else value
    return matrix


def _rotation(angle: Tensor, exact: bool = False) -> Tensor:
    """(N, 3, 3) rotations by (N, 1) radians; ``exact`` for quarter turns, which keep pixels whole."""
    clean: Callable[[Tensor], Tensor] = torch.round if exact else lambda x: x
    cos, sin = clean(angle.cos()), clean(angle.sin())
    return _matrix(cos, -sin, sin, cos)


def _shift(by: Tensor) -> Tensor:
    """(N, 3, 3) shifts by (N, 2) pixels."""
    matrix = torch.eye(3, device=by.device).repeat(by.shape[0], 1, 1)
    matrix[:, :2, 2] = by
    return matrix
