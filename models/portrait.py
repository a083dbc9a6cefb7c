"""AniPortraitGAN: an animatable 3D-aware generator of head-and-shoulder portraits (Wu et al., 2023).

A ray's samples in the posed space go to the neutral pose (inverse skinning, processed by D^p), then to the neutral
expression (D^e), where a scalar field M says which of 24 manifolds they cross; a radiance field phi colours the
crossings, and they are laid over one another from near to far (paper, Figure 2). For large pictures the manifolds
are coloured once, in the neutral pose, as atlases, which U enlarges.

A picture is made in two halves. :meth:`PortraitGenerator.cast` works on the whole picture, because D^p looks at
neighbouring rays; :meth:`PortraitGenerator.shade` works on each ray alone. So the expensive half can go in bands of
rows, forward and backward: see :func:`backward_in_bands`.

A trap of the public code avoided here: it jitters the samples of its rays and drops the result. Here ``jitter``
moves the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models import camera
from models.config import Config
from models.pointwise import in_pieces
from models.portrait_atlas import AtlasConfig, Upsampler, atlas_points, sample_atlases
from models.portrait_cameras import FACE_VIEW, PORTRAIT_VIEW, ViewConfig
from models.portrait_fields import (
    ExpressionConfig,
    ExpressionField,
    ManifoldConfig,
    ManifoldField,
    RadianceConfig,
    RadianceField,
)
from models.portrait_pose import Body, NearestTransforms, PoseConfig, PoseField, TransformVolume
from models.render.manifolds import Composite, composite, crossings, level_values
from models.siren import Film
from models.stylegan import Precision, working_dtype

_EMPTY = 1e3  # depth of a level that a ray does not cross: behind everything


class PortraitConfig(Config):
    """Sizes of the generator; the defaults are the paper's, with the 3DMM and SMPL of the release."""

    identity: int = 80  # paper, Section 3.1: 3DMM identity coefficients
    shape: int = 10  # paper, Section 3.1: SMPL shape; acts through the body alone
    expression: int = 64  # paper, Section 3.1: 3DMM expression coefficients
    joints: int = 6  # paper, Section 3.1: neck, head, both collars, both shoulders
    noise: int = 80  # AniPortraitGAN generators_manifold_sr.py
    manifolds: ManifoldConfig = ManifoldConfig()
    radiance: RadianceConfig = RadianceConfig()
    expression_field: ExpressionConfig = ExpressionConfig()
    pose: PoseConfig = PoseConfig()
    atlas: AtlasConfig = AtlasConfig()
    portrait_view: ViewConfig = PORTRAIT_VIEW
    face_view: ViewConfig = FACE_VIEW
    background: float = 1.0  # AniPortraitGAN curriculums.py: white
    truncation: float = 0.7  # AniPortraitGAN gen_video.py, for sampling
    precision: Precision = "float32"  # unpublished: our choice; of the fields where no gradient is wanted


@dataclass(frozen=True)
class Latents:
    """The codes of N characters (paper, Section 3.1).

    Attributes:
        identity: (N, 80) face identity.
        shape: (N, 10) body shape; read by the parametric model, not by the networks.
        expression: (N, 64).
        pose: (N, 6, 3) joint rotations; read by the parametric model, not by the networks.
        noise: (N, 80), standard normal: everything else.
    """

    identity: Tensor
    shape: Tensor
    expression: Tensor
    pose: Tensor
    noise: Tensor

    def __getitem__(self, index: slice | Tensor) -> Latents:
        """Some of the characters."""
        return Latents(*(getattr(self, f.name)[index] for f in fields(self)))

    @property
    def appearance(self) -> Tensor:
        """(N, identity + noise): what the radiance field and the super-resolution read."""
        return torch.cat([self.identity, self.noise], dim=-1)

    def face(self, config: ExpressionConfig) -> Tensor:
        """(N, identity + expression): what the expression field reads."""
        return torch.cat([config.identity_gain * self.identity, config.expression_gain * self.expression], dim=-1)


class Styles(NamedTuple):
    """What the mapping networks make of the codes: modulation of phi, of D^e, and (N, K) styles of U."""

    radiance: Film
    expression: Film
    atlas: Tensor | None

    def truncated(self, mean: Styles, psi: float) -> Styles:
        """Pull appearance towards its mean; the expression is asked for, so it stays."""
        atlas = None if self.atlas is None or mean.atlas is None else mean.atlas.lerp(self.atlas, psi)
        return Styles(self.radiance.towards(mean.radiance, psi), self.expression, atlas)


class Rays(NamedTuple):
    """Rays of N pictures, H rows of W.

    Attributes:
        points: (N, H, W, S, 3) samples brought to the neutral pose.
        directions: (N, H, W, 3) unit viewing directions in the posed world.
        depths: (N, H, W, S) distances of the samples from the camera.
    """

    points: Tensor
    directions: Tensor
    depths: Tensor

    def rows(self, begin: int, end: int) -> Rays:
        """A band of rows."""
        return Rays(*(part[:, begin:end] for part in self))


class Rendering(NamedTuple):
    """Pictures.

    Attributes:
        image: (N, 3, H, W) in [-1, 1].
        depth: (N, 1, H, W) expected distance from the camera; the view's far end where nothing is.
        opacity: (N, 1, H, W) in [0, 1].
        coarse: (N, 3, h, w) the same picture from the atlases before their enlargement, or None.
    """

    image: Tensor
    depth: Tensor
    opacity: Tensor
    coarse: Tensor | None = None


class Surface(NamedTuple):
    """Where P rays meet M manifolds: canonical points (N, P, M, 3), depths and validity (0 or 1), both (N, P, M)."""

    points: Tensor
    depths: Tensor
    valid: Tensor


class PortraitGenerator(nn.Module):
    """The generator G with its five networks: M, phi, D^p, D^e and, where ``upsample`` is set, U.

    Args:
        config: sizes.
        upsample: whether to build the super-resolution network (the second stage of training).
    """

    levels: Tensor

    def __init__(self, config: PortraitConfig, upsample: bool = False):
        super().__init__()
        self.config = config
        appearance = config.identity + config.noise
        self.manifolds = ManifoldField(config.manifolds)
        self.radiance = RadianceField(appearance, config.radiance)
        self.pose = PoseField(config.pose, config.portrait_view.pivot)
        self.expression = ExpressionField(config.identity + config.expression, config.expression_field)
        self.upsampler = Upsampler(appearance, config.radiance.features, config.atlas) if upsample else None
        spacing = config.manifolds
        levels = level_values(spacing.level_start, spacing.level_end, spacing.count)
        self.register_buffer("levels", levels, persistent=False)

    def styles(self, latents: Latents) -> Styles:
        """Run the mapping networks."""
        appearance = latents.appearance
        atlas = None if self.upsampler is None else self.upsampler.mapping(appearance)
        return Styles(
            self.radiance.mapping(appearance),
            self.expression.mapping(latents.face(self.config.expression_field)),
            atlas,
        )

    @torch.no_grad()
    def mean_styles(self, latents: Latents) -> Styles:
        """The centre of truncation: styles averaged over many codes (10,000 in the release)."""
        styles = self.styles(latents)
        atlas = None if styles.atlas is None else styles.atlas.mean(0, keepdim=True)
        return Styles(styles.radiance.mean(), styles.expression.mean(), atlas)

    def sample_rays(
        self, label: Tensor, view: ViewConfig, resolution: int, margin: int = 0, jitter: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Samples of the posed space.

        Args:
            label: (N, 25) cameras.
            view: gives the range of the rays.
            resolution: pixels along a side.
            margin: further pixels around the picture, at the same spacing.
            jitter: moves all samples of a ray together by up to half their spacing, if given.

        Returns:
            points (N, H, W, S, 3), directions (N, H, W, 3), depths (N, H, W, S); H = W = resolution + 2 margin.
        """
        side, count = resolution + 2 * margin, self.config.manifolds.samples
        pixels = camera.pixel_grid(side, label.device, label.dtype)
        origins, directions = camera.rays_through(label, ((pixels * side) - margin) / resolution)
        depths = torch.linspace(view.near, view.far, count, device=label.device).expand(*origins.shape[:2], -1)
        if jitter is not None:
            shift = torch.rand(*origins.shape[:2], 1, generator=jitter, device=label.device) - 0.5
            depths = depths + shift * ((view.far - view.near) / (count - 1))
        points = origins.unsqueeze(2) + directions.unsqueeze(2) * depths.unsqueeze(-1)
        return tuple(part.unflatten(1, (side, side)) for part in (points, directions, depths))

    def cast(
        self,
        lookup: NearestTransforms | TransformVolume,
        label: Tensor,
        view: ViewConfig,
        resolution: int,
        margin: int = 0,
        jitter: torch.Generator | None = None,
    ) -> Rays:
        """First half of a picture: rays, brought to the neutral pose.

        Args:
            lookup: from ``self.pose.lookup(body)``; the two cameras of a character can share it.
            label, view, resolution, margin, jitter: see :meth:`sample_rays`.
        """
        points, directions, depths = self.sample_rays(label, view, resolution, margin, jitter)
        return Rays(self.pose(points, lookup), directions, depths)

    def _dtype(self) -> torch.dtype:
        """What the fields compute in."""
        plain = "float32" if torch.is_grad_enabled() else self.config.precision
        return working_dtype(plain, self.levels)

    def surface(self, rays: Rays, styles: Styles) -> Surface:
        """Where rays meet the manifolds of the neutral expression."""
        points = rays.points.flatten(1, 2)
        flat = points.flatten(1, 2)
        dtype = self._dtype()

        def canonical(some: Tensor) -> Tensor:
            where = some + self.expression(some, styles.expression, dtype)
            return torch.cat([where, self.manifolds(where, dtype).unsqueeze(-1)], dim=-1)

        known = in_pieces(canonical, flat).view(*points.shape[:-1], 4)
        found = crossings(known[..., 3], self.levels)
        along = found.interpolate(torch.cat([known[..., :3], rays.depths.flatten(1, 2).unsqueeze(-1)], dim=-1))
        depths = torch.where(found.valid, along[..., 3], _EMPTY)
        return Surface(along[..., :3], depths, found.valid.to(points.dtype))

    def alpha(self, density: Tensor, valid: Tensor) -> Tensor:
        """Opacity of a crossing. A surface has no thickness of its own, so the same constant serves all crossings."""
        return valid * (1 - torch.exp(-self.config.manifolds.thickness * F.softplus(density)))

    def shade(self, rays: Rays, styles: Styles, far: float) -> Rendering:
        """Second half of a picture: manifolds, radiance and compositing (paper Eqs. 1, 2, 6, 8). Each ray by itself."""
        height, width = rays.points.shape[1:3]
        surface = self.surface(rays, styles)
        count = surface.points.shape[2]
        directions = rays.directions.flatten(1, 2).unsqueeze(2).expand(-1, -1, count, -1)
        where = surface.points.flatten(1, 2)
        seen = self.radiance(where, directions.flatten(1, 2), styles.radiance, dtype=self._dtype())
        colour, density = (part.unflatten(1, (height * width, count)) for part in (seen.colour, seen.density))
        alpha = self.alpha(density, surface.valid)
        result = composite(colour, alpha, surface.depths, self.config.background, far)
        return _pictures(result, height, width)

    def forward(
        self,
        latents: Latents,
        body: Body,
        label: Tensor,
        view: ViewConfig,
        resolution: int,
        jitter: torch.Generator | None = None,
    ) -> Rendering:
        """Pictures without super-resolution: N characters, N bodies, (N, 25) cameras of one view."""
        rays = self.cast(self.pose.lookup(body), label, view, resolution, jitter=jitter)
        return self.shade(rays, self.styles(latents), view.far)

    def atlases(self, styles: Styles) -> Tensor:
        """The manifolds of each character, flattened: (N, M, 4 + features, R, R) colour, alpha, features."""
        side, count, n = self.config.atlas.resolution, len(self.levels), len(styles.radiance.phase)
        points = atlas_points(self.config.atlas, self.config.manifolds.samples, self.levels.device)
        # M has no latent code: the manifolds are the same for all characters and need be found once.
        found = crossings(self.manifolds(points[None]), self.levels)
        where = found.interpolate(points[None]).flatten(1, 2).expand(n, -1, -1)
        ahead = where.new_tensor([0.0, 0.0, -1.0]).expand_as(where)
        seen = self.radiance(where, ahead, styles.radiance, features=True, dtype=self._dtype())
        assert seen.features is not None
        alpha = self.alpha(seen.density.unflatten(1, (-1, count)), found.valid.to(where.dtype)).flatten(1, 2)
        texels = torch.cat([seen.colour, alpha.unsqueeze(-1), seen.features], dim=-1)
        return texels.view(n, side, side, count, -1).permute(0, 3, 4, 1, 2)

    def enlarge(self, atlases: Tensor, styles: Styles) -> Tensor:
        """(N, M, 4 + features, R, R) atlases through U to (N, M, 4, s R, s R).

        Raises:
            ValueError: if the generator was built without its super-resolution network.
        """
        if self.upsampler is None or styles.atlas is None:
            raise ValueError("this generator has no super-resolution network; build it with upsample=True")
        return self.upsampler(atlases, styles.atlas)

    def shade_atlases(
        self, rays: Rays, styles: Styles, atlases: Tensor, large: Tensor, far: float, band: int | None = None
    ) -> Rendering:
        """Second half of a large picture, from atlases.

        Args:
            rays: from :meth:`cast` with ``margin=1``.
            styles: of the characters.
            atlases: (N, M, >= 4, R, R) before and
            large: (N, M, 4, s R, s R) after their enlargement.
            far: depth of an empty ray.
            band: rows of the large picture that are laid at a time; with gradients, the others' activations are
                computed again. None: all rows.

        Returns:
            pictures s times larger than the rays' inner grid, and the ``coarse`` ones from ``atlases``.
        """
        height, width = rays.points.shape[1:3]
        surface = self.surface(rays, styles)
        scale = self.config.atlas.scale
        inner = _resize_surface(surface, height, width, 1)
        finer = _resize_surface(surface, height, width, scale)
        coarse = self._lay(inner, atlases[:, :, :4], height - 2, width - 2, far)
        tall, wide = scale * (height - 2), scale * (width - 2)
        if band is None or band >= tall:
            return self._lay(finer, large, tall, wide, far)._replace(coarse=coarse.image)

        def lay(*part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            *surface, large = part
            return tuple(self._lay(Surface(*surface), large, surface[0].shape[1] // wide, wide, far)[:3])  # type: ignore[return-value]

        parts = []
        for begin, end in bands(tall, band):
            part = (*(values[:, begin * wide : end * wide] for values in finer), large)
            parts.append(checkpoint(lay, *part, use_reentrant=False) if torch.is_grad_enabled() else lay(*part))
        image, depth, opacity = (torch.cat(pieces, dim=2) for pieces in zip(*parts))
        return Rendering(image, depth, opacity, coarse.image)

    def _lay(self, surface: Surface, atlases: Tensor, height: int, width: int, far: float) -> Rendering:
        texels = sample_atlases(atlases, surface.points, self.config.atlas)
        depths = torch.where(surface.valid > 0, surface.depths, _EMPTY)
        alpha = texels[..., 3] * surface.valid
        return _pictures(composite(texels[..., :3], alpha, depths, self.config.background, far), height, width)

    def render_large(self, latents: Latents, body: Body, label: Tensor, view: ViewConfig, resolution: int) -> Rendering:
        """Pictures with super-resolution.

        Args:
            latents, body, label, view: as in :meth:`forward`.
            resolution: side of the pictures, a multiple of twice the enlargement.
        """
        scale = self.config.atlas.scale
        if resolution % (2 * scale):
            raise ValueError(f"a picture through {scale}-fold atlases has a side of a multiple of {2 * scale}")
        styles = self.styles(latents)
        atlases = self.atlases(styles)
        rays = self.cast(self.pose.lookup(body), label, view, resolution // scale, margin=1)
        return self.shade_atlases(rays, styles, atlases, self.enlarge(atlases, styles), view.far)


def _pictures(result: Composite, height: int, width: int) -> Rendering:
    """Rays in rows to pictures; colour from [0, 1] to [-1, 1]."""
    image = result.colour.transpose(1, 2).unflatten(2, (height, width)) * 2 - 1
    depth, opacity = (
        part.unflatten(1, (height, width)).unsqueeze(1) for part in (result.depth, result.weights.sum(-1))
    )
    return Rendering(image, depth, opacity)


def _resize_surface(surface: Surface, height: int, width: int, scale: int) -> Surface:
    """Crossings of a coarse grid with a margin of one, interpolated to ``scale`` times as many rays without it.

    Rays that miss a manifold have no crossing to interpolate, so crossings are averaged over those that do, and the
    share of these becomes the validity: silhouettes fade over a coarse pixel where the release cuts one off. The
    margin spares the picture's border, which would otherwise repeat the outermost crossings.
    """
    n, _, sheets = surface.depths.shape
    known = torch.cat([surface.points, surface.depths.unsqueeze(-1), torch.ones_like(surface.points[..., :1])], dim=-1)
    grid = (known * surface.valid.unsqueeze(-1)).permute(0, 2, 3, 1).reshape(n * sheets, 5, height, width)
    if scale > 1:
        grid = F.interpolate(grid, scale_factor=scale, mode="bilinear", align_corners=False)
    grid = grid[..., scale:-scale, scale:-scale].reshape(n, sheets, 5, -1).permute(0, 3, 1, 2)
    share = grid[..., 4]
    mean = grid[..., :4] / share.unsqueeze(-1).clamp_min(1e-6)
    return Surface(mean[..., :3], mean[..., 3], share)


def bands(height: int, rows: int) -> list[tuple[int, int]]:
    """(begin, end) of bands of ``rows`` rows, the last one maybe smaller."""
    return [(begin, min(begin + rows, height)) for begin in range(0, height, rows)]


@torch.no_grad()
def shade_in_bands(shade: Callable[[Rays], Rendering], rays: Rays, rows: int) -> Rendering:
    """Shade a picture band by band without gradients: the memory of one band."""
    parts = [shade(rays.rows(begin, end)) for begin, end in bands(rays.points.shape[1], rows)]
    image, depth, opacity = (torch.cat(pieces, dim=2) for pieces in zip(*(part[:3] for part in parts)))
    return Rendering(image, depth, opacity)


def backward_in_bands(
    generator: PortraitGenerator, rays: Rays, styles: Styles, far: float, gradient: Tensor, rows: int
) -> None:
    """Backward pass of :meth:`PortraitGenerator.shade`, band by band (GRAM, supplement).

    The gradient of the loss with respect to the *picture* is known beforehand, from a picture shaded without
    gradients. Each band is shaded again, now with gradients, and sent back at once, so only one band's activations
    exist at a time. Gradients gather in the parameters, and at the seam to :meth:`PortraitGenerator.cast` and the
    mapping networks, through which they go last. The sum equals the whole picture's gradient.

    Args:
        generator: the generator.
        rays: from ``generator.cast``, with its graph.
        styles: from ``generator.styles``, with their graph.
        far: depth of an empty ray.
        gradient: (N, 3, H, W) of the loss with respect to the picture.
        rows: rows of a band.
    """
    seam = [rays.points, *styles.radiance, *styles.expression]
    leaves = [part.detach().requires_grad_(part.requires_grad) for part in seam]
    points, film, face = leaves[0], Film(*leaves[1:3]), Film(*leaves[3:5])
    cut, local = rays._replace(points=points), Styles(film, face, None)
    for begin, end in bands(gradient.shape[2], rows):
        image = generator.shade(cut.rows(begin, end), local, far).image
        image.backward(gradient[:, :, begin:end])
    back = [(part, leaf.grad) for part, leaf in zip(seam, leaves) if leaf.grad is not None]
    if back:
        torch.autograd.backward([part for part, _ in back], [g for _, g in back])
