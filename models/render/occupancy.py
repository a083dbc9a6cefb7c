"""Rendering one field many times: a grid says where samples would see nothing, and they are left out.

A coarse grid of densities is measured once. Where a cell and its neighbours are so thin that a whole ray through them
would stay transparent, a sample's density is read off the grid and its features, which count for nothing, are never
computed. Where the densest a grid can promise already hides what lies behind, samples behind are left out too. All
others sit exactly where :func:`models.render.volume.render` puts them without jitter, so the picture is the same up to
the grid's thresholds; it is only made from fewer look-ups (performance notes of EG3D's family; Mueller et al. 2022 keep
such a grid in training).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import Config
from models.render.volume import (
    Field,
    RenderConfig,
    Rendered,
    importance_depths,
    march,
    mean_depth,
    merge_ranks,
    ray_limits,
    stratified_depths,
    weights_of_samples,
)


class OccupancyConfig(Config):
    """The grid, and what it may leave out."""

    resolution: int = 80  # cells a side; unpublished: our choice
    side: float = 1.6  # of the cube it covers, in units of the planes' box; beyond it nothing is left out. Our choice
    haze: float = 1e-3  # opacity that a whole ray through empty cells may lose. Unpublished: our choice
    hidden: float = 1e-4  # transparency below which what lies behind is not computed. Unpublished: our choice
    batch: int = 1 << 17  # points of the grid measured at a time


class Occupancy:
    """Densities of one field on a grid.

    Args:
        field: features and raw densities at world points, of a single scene.
        render: how the scene will be rendered.
        box: side of the cube the field is defined in, world units.
        config: the grid.
        device: where the field lives.
    """

    @torch.no_grad()
    def __init__(
        self, field: Field, render: RenderConfig, box: float, config: OccupancyConfig, device: torch.device | str
    ) -> None:
        self.config, self.render, self.half = config, render, config.side * box / 2
        axis = (torch.arange(config.resolution, device=device) + 0.5) * (2 / config.resolution) - 1
        points = torch.cartesian_prod(axis, axis, axis) * self.half
        density = torch.cat([field(part[None])[1][0] for part in points.split(config.batch)])
        grid = density.view(1, 1, *[config.resolution] * 3)
        most, least = F.max_pool3d(grid, 3, 1, 1), -F.max_pool3d(-grid, 3, 1, 1)  # a cell and its 26 neighbours
        length = render.far - render.near
        self.density = density
        self.full = F.softplus(most.flatten() + render.density_shift) * length > config.haze
        self.least = F.softplus(least.flatten() + render.density_shift)  # per world unit

    @property
    def filled(self) -> float:
        """The share of cells that samples are not left out of."""
        return self.full.float().mean().item()

    def look(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the grid knows at points (P, 3): density, whether it matters, least optical thickness a world unit."""
        side = self.config.resolution
        cell = ((points / self.half + 1) * (side / 2)).floor().long()
        inside = ((cell >= 0) & (cell < side)).all(dim=-1)
        x, y, z = cell.clamp(0, side - 1).unbind(-1)
        index = (x * side + y) * side + z
        return self.density[index], self.full[index] | ~inside, self.least[index] * inside


@torch.no_grad()
def render_occupied(field: Field, occupancy: Occupancy, origin: Tensor, direction: Tensor, box: float) -> Rendered:
    """What :func:`models.render.volume.render` shows without jitter, from fewer samples.

    Args:
        field: features and raw densities at world points, of a single scene.
        occupancy: its grid.
        origin, direction: (1, R, 3) rays.
        box: side of the cube the field is defined in, world units.

    Returns:
        :class:`models.render.volume.Rendered` of one picture.

    Raises:
        ValueError: several pictures, or sampling without importance samples.
    """
    config = occupancy.render
    if origin.shape[0] != 1 or config.coarse_pass != "composite" or config.fine == 0:
        raise ValueError("an occupancy grid serves one picture at a time, with coarse and fine samples composited")
    near, far, hit = ray_limits(origin, direction, config, box)
    o, d, near, far = origin[0], direction[0], near[0], far[0]
    depth = stratified_depths(near, far, config.coarse, jitter=False)
    step = ((far - near) / config.coarse).unsqueeze(-1)

    def places(at: Tensor) -> Tensor:
        return o.unsqueeze(1) + at.unsqueeze(-1) * d.unsqueeze(1)

    def needed(at: Tensor, full: Tensor, least: Tensor) -> Tensor:
        beside = F.max_pool1d(full.float().unsqueeze(1), 3, 1, 1)[:, 0] > 0  # an interval takes half from either end
        passed = torch.minimum(least[:, 1:], least[:, :-1]) * at.diff(dim=-1)
        before = F.pad(passed.cumsum(dim=-1)[:, :-1], (2, 0))  # up to the sample before this one
        return beside & (torch.exp(-before) >= occupancy.config.hidden)

    # The coarse samples, where the grid has something.
    density, full, least = occupancy.look(places(depth))
    wanted = needed(depth, full, least)
    feature_width = 0
    found: list[tuple[Tensor, Tensor, Tensor]] = []  # ray, place along it, features
    if wanted.any():
        ray, place = wanted.nonzero(as_tuple=True)
        features, densities = field(_points(o, d, depth, ray, place))
        density[ray, place], feature_width = densities[0], features.shape[-1]
        found.append((ray, place, features[0]))
    live = wanted.any(dim=-1).nonzero()[:, 0]  # the rays that may see something
    total = o.new_zeros(len(o), feature_width or field(o[None, :1])[0].shape[-1])
    seen_depth, opacity = far - step[:, 0] / 2, o.new_zeros(len(o))
    if len(live):
        fine = importance_depths(
            depth[live], march(density[live], depth[live], config.density_shift), config.fine, jitter=False
        )
        rank = torch.cat(merge_ranks(depth[live], fine), dim=-1)
        order = torch.empty_like(rank).scatter_(-1, rank, torch.arange(rank.shape[-1], device=o.device).expand_as(rank))
        depths = torch.cat([depth[live], fine], dim=-1).gather(-1, order)
        points = o[live].unsqueeze(1) + depths.unsqueeze(-1) * d[live].unsqueeze(1)
        densities, full, least = occupancy.look(points)
        known = torch.zeros_like(full)
        (ray, place, _), row = found[0], torch.empty(len(o), dtype=torch.long, device=o.device)
        row[live] = torch.arange(len(live), device=o.device)
        at = row[ray], rank[row[ray], place]
        known[at], densities[at] = True, density[ray, place]
        found[0] = (at[0], at[1], found[0][2])
        ray, place = (needed(depths, full, least) & ~known).nonzero(as_tuple=True)
        if len(ray):
            features, more = field(_points(o[live], d[live], depths, ray, place))
            densities[ray, place] = more[0]
            found.append((ray, place, features[0]))
        weight = march(densities, depths, config.density_shift)
        share = weights_of_samples(weight)
        summed = total.new_zeros(len(live), total.shape[1])
        for ray, place, features in found:
            summed.index_add_(0, ray, features * share[ray, place].unsqueeze(-1))
        total[live] = summed
        seen_depth[live], opacity[live] = mean_depth(weight, depths)
    if hit is not None:
        keep = hit[0]
        total, opacity = total * keep.unsqueeze(-1), opacity * keep
        seen_depth = torch.where(keep, seen_depth, far)
    if config.white_background:
        total = total + (1 - opacity).unsqueeze(-1)
    return Rendered(total[None], seen_depth[None], opacity[None])


def _points(origin: Tensor, direction: Tensor, depth: Tensor, ray: Tensor, place: Tensor) -> Tensor:
    """(1, K, 3) world points of chosen samples."""
    return (origin[ray] + depth[ray, place].unsqueeze(-1) * direction[ray]).unsqueeze(0)
