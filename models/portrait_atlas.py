"""Manifold super-resolution U: each manifold, flattened to a picture, is enlarged by a network (paper Eq. 3; GRAM-HD).

A manifold is flattened by looking at it from the front, along -z, through a square window (orthographically). The
resulting *atlas* has a texel for each (x, y): colour, alpha and features. U turns 128^2 atlases of 36 channels into
512^2 atlases of colour and alpha; a point of the manifold is then looked up by its own (x, y).

A trap of the public code avoided here: atlas texels are laid out from edge to edge of the window and read as if they
were cell centres, so what is read lies up to half a texel off. Here texels are the centres of cells, in both.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.config import Config
from models.siren import Mapping

_SLOPE = 0.2
_LEAST = 1e-4  # from 0 and 1, of what is enlarged before it is added to; unpublished: our choice


class AtlasConfig(Config):
    """The atlases and the super-resolution network U; paper Figure 10."""

    resolution: int = 128  # paper, Section 3.2
    half_side: float = 0.22  # AniPortraitGAN generators_manifold_sr.py: of the window, world units
    centre_y: float = -0.02830771  # AniPortraitGAN generators_manifold_sr.py
    near_z: float = 0.2  # AniPortraitGAN generators_manifold_sr.py: rays run from here ...
    far_z: float = -0.2  # ... to here
    channels: int = 64  # AniPortraitGAN curriculums.py
    blocks: int = 4  # paper, Figure 10
    growth: int = 32  # AniPortraitGAN curriculums.py
    up_channels: tuple[int, ...] = (64, 32)  # AniPortraitGAN curriculums.py: each doubles the side
    mapping_width: int = 256  # AniPortraitGAN styleesrgan.py
    residual: bool = False  # not in the paper; ours, where training is short: U learns what bilinear enlargement misses
    half: bool = True  # unpublished: our choice; in bfloat16 where no gradient is wanted: colours differ by below 0.003
    sheets_at_once: int = 24  # unpublished: our choice; fewer use less memory, recomputing in the backward pass

    @property
    def scale(self) -> int:
        """How many times larger an atlas becomes."""
        return 2 ** len(self.up_channels)


def atlas_points(config: AtlasConfig, samples: int, device: torch.device | None = None) -> Tensor:
    """(R * R, samples, 3) canonical points on rays along -z through the texel centres, row by row from the top."""
    steps = (torch.arange(config.resolution, device=device) + 0.5) / config.resolution * 2 - 1
    y, x = torch.meshgrid(config.centre_y - config.half_side * steps, config.half_side * steps, indexing="ij")
    z = torch.linspace(config.near_z, config.far_z, samples, device=device)
    plane = torch.stack([x, y], dim=-1).reshape(-1, 1, 2).expand(-1, samples, -1)
    return torch.cat([plane, z.view(1, -1, 1).expand(len(plane), -1, -1)], dim=-1)


def sample_atlases(atlases: Tensor, points: Tensor, config: AtlasConfig) -> Tensor:
    """What the manifolds show at canonical points.

    Args:
        atlases: (N, M, C, R, R) of any resolution, row 0 at the top.
        points: (N, P, M, 3), one point on each manifold; its x and y choose the texels (bilinear). Beyond the
            window the outermost texel is repeated.

    Returns:
        (N, P, M, C).
    """
    n, sheets = atlases.shape[:2]
    where = torch.stack([points[..., 0], config.centre_y - points[..., 1]], dim=-1) / config.half_side
    where = where.transpose(1, 2).reshape(n * sheets, 1, -1, 2)
    found = F.grid_sample(atlases.flatten(0, 1), where, padding_mode="border", align_corners=False)
    return found.view(n, sheets, atlases.shape[2], -1).permute(0, 3, 1, 2)


class _DenseBlock(nn.Module):
    """Five convolutions, each reading all before it; a fifth of the last is added to the input (ESRGAN)."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels + i * growth, growth if i < 4 else channels, 3, padding=1) for i in range(5)
        )

    def forward(self, x: Tensor) -> Tensor:
        known = x
        for conv in self.convs[:-1]:
            known = torch.cat([known, F.leaky_relu(conv(known), _SLOPE)], dim=1)
        return x + 0.2 * self.convs[-1](known)


class _ResidualInResidual(nn.Sequential):
    """Three dense blocks in a residual of their own (RRDB, ESRGAN)."""

    def __init__(self, channels: int, growth: int):
        super().__init__(*(_DenseBlock(channels, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * super().forward(x)


class _StyledConv(nn.Conv2d):
    """A convolution whose weights are scaled by a style and brought back to unit variance (StyleGAN 2, Section 2.2).

    All pictures of a call share the style: they are the manifolds of one character.
    """

    def forward(self, x: Tensor, style: Tensor) -> Tensor:  # type: ignore[override]
        """(M, inputs, H, W) with one style (inputs,) to (M, outputs, H, W)."""
        scaled = self.weight * style.view(1, -1, 1, 1)
        size = scaled.square().sum(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, scaled * (size + 1e-8).rsqrt(), self.bias, padding=self.padding)


class Upsampler(nn.Module):
    """The super-resolution network U of paper Eq. 3: RRDBs, then sub-pixel convolutions with a StyleGAN-like style.

    Args:
        latent: size of the code (identity and noise).
        features: channels of the atlases besides colour and alpha.
        config: sizes.
    """

    def __init__(self, latent: int, features: int, config: AtlasConfig):
        super().__init__()
        self.config = config
        inner = config.channels
        self.first = nn.Conv2d(4 + features, inner, 3, padding=1)
        self.trunk = nn.Sequential(
            *(_ResidualInResidual(inner, config.growth) for _ in range(config.blocks)),
            nn.Conv2d(inner, inner, 3, padding=1),
        )
        sizes = [inner, *config.up_channels]
        self.ups = nn.ModuleList(_StyledConv(a, 4 * b, 3, padding=1) for a, b in pairwise(sizes))
        self.refine = _StyledConv(sizes[-1], sizes[-1], 3, padding=1)
        self.last = _StyledConv(sizes[-1], 4, 1)
        self.style_sizes = [*sizes, sizes[-1]]
        self.mapping = Mapping(latent, config.mapping_width, sum(self.style_sizes))
        # At the start bilinear enlargement and no more. A gain, for zero weights have no unit variance to go back to.
        self.gain = nn.Parameter(torch.zeros(4, 1, 1)) if config.residual else None

    def _enlarge(self, x: Tensor, style: Tensor) -> Tensor:
        plain, small = not torch.is_grad_enabled(), x
        styles = style.split(self.style_sizes)
        # Neighbouring channels in memory, and half the digits where only a picture is wanted: twice as fast each.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=plain and self.config.half):
            x = self.first(x.contiguous(memory_format=torch.channels_last))
            x = x + self.trunk(x)
            for conv, s in zip(self.ups, styles):
                x = F.leaky_relu(F.pixel_shuffle(conv(x, s), 2), _SLOPE, inplace=plain)
            x = F.leaky_relu(self.refine(x, styles[-2]), _SLOPE, inplace=plain)
        x = self.last(x.float() if plain else x, styles[-1])
        if self.gain is not None:
            smooth = F.interpolate(small[:, :4], x.shape[-2:], mode="bilinear", align_corners=False)
            x = self.gain * x + smooth.logit(_LEAST)
        return x.sigmoid()

    def forward(self, atlases: Tensor, style: Tensor) -> Tensor:
        """Enlarge all manifolds of a character with one style.

        Args:
            atlases: (N, M, 4 + features, R, R).
            style: (N, sum of style sizes) from ``self.mapping``.

        Returns:
            (N, M, 4, s R, s R) colour and alpha in (0, 1).
        """
        parts = []
        for one, own in zip(atlases, style):
            for x in one.split(self.config.sheets_at_once):
                if torch.is_grad_enabled() and x.shape[0] < atlases.shape[:2].numel():
                    parts.append(checkpoint(self._enlarge, x, own, use_reentrant=False))
                else:
                    parts.append(self._enlarge(x, own))
        return torch.cat(parts).unflatten(0, atlases.shape[:2])
