"""Volume rendering as in EG3D (sections 4.3 and supplement): two sets of samples per ray, one march over both.

The plain form concatenates coarse and fine samples, sorts them and averages neighbouring features, as the paper has
it. The fast form rests on two facts. Both sets are already sorted, so ranks from two binary searches *merge* them. And
averaging neighbouring features is averaging neighbouring *weights*: only scalars need to be put in order, features stay
where they are and are summed once, set by set. Values and gradients are the same, memory is not.

All depths are Euclidean distances along unit rays, in world units, and carry no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.config import Config

# World points (N, P, 3) to features (N, P, C) and raw densities (N, P).
Field = Callable[[Tensor], tuple[Tensor, Tensor]]


SAMPLES_AT_A_TIME = 1 << 16


class RenderConfig(Config):
    """Where rays are sampled and how samples are composited. Defaults: EG3D's FFHQ settings."""

    near: float = 2.25  # EG3D: distance from the camera, world units
    far: float = 3.3
    limits: Literal["fixed", "box"] = "fixed"  # "box": clip [near, far] of each ray to the cube the planes span
    coarse: int = 48
    fine: int = 48
    density_shift: float = -1.0  # EG3D: softplus(density - 1)
    coarse_pass: Literal["composite", "guide"] = "composite"  # "guide": fine samples alone make the picture
    white_background: bool = False  # EG3D: True for ShapeNet


class Rendered(NamedTuple):
    """What rays saw: features (N, R, C), distances (N, R) and opacities in [0, 1] (N, R)."""

    feature: Tensor
    depth: Tensor
    opacity: Tensor


# --- where to sample --------------------------------------------------------------------------------------------------


def box_limits(origin: Tensor, direction: Tensor, side: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays enter and leave the cube of ``side`` about the origin.

    Args:
        origin: (..., 3); direction: (..., 3) unit vectors.

    Returns:
        near and far (...), and whether the ray meets the cube in front of its origin. A ray that misses it gets the
        interval of length ``side`` about its point closest to the centre, so that nothing degenerates.
    """
    safe = torch.where(direction.abs() < 1e-9, torch.full_like(direction, 1e-9), direction)
    first, second = (-side / 2 - origin) / safe, (side / 2 - origin) / safe
    near = torch.minimum(first, second).amax(dim=-1).clamp_min(0)
    far = torch.maximum(first, second).amin(dim=-1)
    hit = far > near
    closest = -(origin * direction).sum(dim=-1)
    return torch.where(hit, near, closest - side / 2), torch.where(hit, far, closest + side / 2), hit


def ray_limits(
    origin: Tensor, direction: Tensor, config: RenderConfig, box: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Where sampling of rays (N, R, 3) starts and ends (N, R); with limits "box", also which rays meet the cube."""
    near = torch.full(origin.shape[:2], config.near, device=origin.device, dtype=origin.dtype)
    far = torch.full_like(near, config.far)
    if config.limits == "fixed":
        return near, far, None
    enter, leave, hit = box_limits(origin.detach(), direction.detach(), box)
    near, far = torch.where(hit, enter.clamp_min(config.near), near), torch.where(hit, leave, far)
    return near, torch.maximum(torch.where(hit, far.clamp_max(config.far), far), near + 1e-3), hit


def spread(count: int, like: Tensor, jitter: bool) -> Tensor:
    """(*like.shape, count) increasing fractions of [0, 1]: one in each of ``count`` equal cells, or their middles."""
    start = torch.arange(count, device=like.device, dtype=like.dtype)
    offset = torch.rand(*like.shape, count, device=like.device, dtype=like.dtype) if jitter else 0.5
    return (start + offset).expand(*like.shape, count) / count


def stratified_depths(near: Tensor, far: Tensor, count: int, jitter: bool) -> Tensor:
    """(..., count) increasing depths, one in each of ``count`` equal parts of [near, far] (...)."""
    return near.unsqueeze(-1) + (far - near).unsqueeze(-1) * spread(count, near, jitter)


@torch.no_grad()
def importance_depths(depth: Tensor, weight: Tensor, count: int, jitter: bool) -> Tensor:
    """Draw depths where the coarse march found weight.

    The weights are widened (maximum, then mean of neighbours) and raised by 0.01, as in mip-NeRF and EG3D, and taken as
    a density that is constant between neighbouring samples.

    Args:
        depth: (..., S) increasing.
        weight: (..., S - 1) weights of the intervals, from :func:`march`.

    Returns:
        (..., count) increasing depths.
    """
    intervals = weight.shape[-1]
    wide = F.max_pool1d(weight.reshape(-1, 1, intervals), 2, stride=1, padding=1)
    pdf = F.avg_pool1d(wide, 2, stride=1).view_as(weight) + 0.01
    cdf = F.pad((pdf / pdf.sum(dim=-1, keepdim=True)).cumsum(dim=-1), (1, 0))
    u = spread(count, depth[..., 0], jitter)
    low = (torch.searchsorted(cdf, u, right=True) - 1).clamp(0, intervals - 1)
    cdf_low, cdf_high = cdf.gather(-1, low), cdf.gather(-1, low + 1)
    depth_low, depth_high = depth.gather(-1, low), depth.gather(-1, low + 1)
    fraction = ((u - cdf_low) / (cdf_high - cdf_low).clamp_min(1e-8)).clamp(0, 1)
    return (depth_low + fraction * (depth_high - depth_low)).cummax(dim=-1).values  # rounding must not unsort them


def merge_ranks(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of two increasing rows (..., A) and (..., B) in their union; ties keep ``first`` before ``second``."""
    in_second = torch.searchsorted(second, first)
    in_first = torch.searchsorted(first, second, right=True)
    count = torch.arange(max(first.shape[-1], second.shape[-1]), device=first.device)
    return in_second + count[: first.shape[-1]], in_first + count[: second.shape[-1]]


# --- the march --------------------------------------------------------------------------------------------------------


def march(density: Tensor, depth: Tensor, shift: float = -1.0) -> Tensor:
    """Weights (..., S - 1) of the intervals between S samples at increasing depths (Max 1995; EG3D's mid-point rule).

    alpha = 1 - exp(-softplus(mean density + shift) * length), weight = alpha * product of (1 - alpha) before it. The
    product is the exponential of a sum, so the weights add up to at most 1.
    """
    thickness = F.softplus((density[..., 1:] + density[..., :-1]) / 2 + shift) * (depth[..., 1:] - depth[..., :-1])
    behind = thickness.cumsum(dim=-1)
    return torch.exp(thickness - behind) * -torch.expm1(-thickness)


def weights_of_samples(weight: Tensor) -> Tensor:
    """Interval weights (..., S - 1) to sample weights (..., S): half of each interval goes to either end."""
    return (F.pad(weight, (0, 1)) + F.pad(weight, (1, 0))) / 2


def mean_depth(weight: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Expected distance and opacity (...) of intervals; a ray that meets nothing gets its last depth."""
    opacity = weight.sum(dim=-1)
    middle = (depth[..., 1:] + depth[..., :-1]) / 2
    expected = (weight * middle).sum(dim=-1) / opacity.clamp_min(1e-8)
    return torch.where(opacity > 1e-6, expected, depth[..., -1]), opacity


def composite_sorted(feature: Tensor, density: Tensor, depth: Tensor, shift: float = -1.0) -> Rendered:
    """The plain march over sorted samples: features (..., S, C), densities and depths (..., S)."""
    weight = march(density, depth, shift)
    middle = (feature[..., 1:, :] + feature[..., :-1, :]) / 2
    return Rendered((weight.unsqueeze(-1) * middle).sum(dim=-2), *mean_depth(weight, depth))


# --- the renderer -----------------------------------------------------------------------------------------------------


def render(
    field: Field,
    origin: Tensor,
    direction: Tensor,
    config: RenderConfig,
    box: float = 1.0,
    jitter: bool = False,
    density_noise: float = 0.0,
    chunk: int | None = None,
    fast: bool = True,
) -> Rendered:
    """Render rays.

    Args:
        field: features and raw densities at world points.
        origin, direction: (N, R, 3) rays; directions are unit vectors.
        config: sampling.
        box: side of the cube the field is defined in, world units; used if ``config.limits`` is "box".
        jitter: random positions within the strata (training) or their middles (deterministic).
        density_noise: standard deviation of noise added to raw densities.
        chunk: render this many rays of each picture at a time. With gradients, chunks are computed again in the
            backward pass, so that only one of them is held in memory. If None, all rays are rendered at once with
            gradients, and as many as have ``SAMPLES_AT_A_TIME`` coarse samples without.
        fast: merge sorted samples, or sort and gather all features.

    Returns:
        :class:`Rendered`.
    """

    def part(origin: Tensor, direction: Tensor) -> Rendered:
        with full_precision(origin.device):  # sums over a ray need it
            return _render(field, origin, direction, config, box, jitter, density_noise, fast)

    if chunk is None and fast and not torch.is_grad_enabled():
        chunk = max(1, SAMPLES_AT_A_TIME // (config.coarse * origin.shape[0]))
    if chunk is None or chunk >= origin.shape[1]:
        return part(origin, direction)
    pieces = []
    for o, d in zip(origin.split(chunk, dim=1), direction.split(chunk, dim=1)):
        pieces.append(checkpoint(part, o, d, use_reentrant=False) if torch.is_grad_enabled() else part(o, d))
    return Rendered(*(torch.cat(parts, dim=1) for parts in zip(*pieces)))


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No mixed precision within, on devices that have it; the meta device, where networks are planned, has not."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def _render(
    field: Field,
    origin: Tensor,
    direction: Tensor,
    config: RenderConfig,
    box: float,
    jitter: bool,
    density_noise: float,
    fast: bool,
) -> Rendered:
    rays = origin.shape[1]

    def query(depth: Tensor) -> tuple[Tensor, Tensor]:
        points = origin.unsqueeze(2) + depth.unsqueeze(-1) * direction.unsqueeze(2)
        feature, density = field(points.flatten(1, 2))
        if density_noise > 0:
            density = density + density_noise * torch.randn_like(density)
        return feature.unflatten(1, (rays, -1)), density.unflatten(1, (rays, -1))

    near, far, hit = ray_limits(origin, direction, config, box)
    shift = config.density_shift
    depth = stratified_depths(near, far, config.coarse, jitter)
    if config.fine == 0:
        feature, density = query(depth)
        out = composite_sorted(feature, density, depth, shift)
    elif config.coarse_pass == "guide":
        with torch.no_grad():
            _, density = query(depth)
            fine = importance_depths(depth, march(density, depth, shift), config.fine, jitter)
        feature, density = query(fine)
        out = composite_sorted(feature, density, fine, shift)
    else:
        feature, density = query(depth)
        with torch.no_grad():
            fine = importance_depths(depth, march(density, depth, shift), config.fine, jitter)
        fine_feature, fine_density = query(fine)
        unite = composite_merged if fast else composite_by_sorting
        out = unite((feature, fine_feature), (density, fine_density), (depth, fine), shift)
    if hit is not None:
        out = Rendered(out.feature * hit.unsqueeze(-1), torch.where(hit, out.depth, far), out.opacity * hit)
    if config.white_background:
        out = out._replace(feature=out.feature + (1 - out.opacity).unsqueeze(-1))
    return out


Pair = Sequence[Tensor]  # of the coarse and of the fine samples


def composite_by_sorting(feature: Pair, density: Pair, depth: Pair, shift: float) -> Rendered:
    """The plain way: concatenate, sort by depth, gather everything, march."""
    order = torch.cat(list(depth), dim=-1).argsort(dim=-1, stable=True)
    features = torch.cat(list(feature), dim=-2)
    return composite_sorted(
        features.gather(-2, order.unsqueeze(-1).expand_as(features)),
        torch.cat(list(density), dim=-1).gather(-1, order),
        torch.cat(list(depth), dim=-1).gather(-1, order),
        shift,
    )


def composite_merged(feature: Pair, density: Pair, depth: Pair, shift: float) -> Rendered:
    """The fast way: merge scalars by rank, march, and take each set's weights back to where its features are."""
    rank = torch.cat(merge_ranks(depth[0], depth[1]), dim=-1)
    place = torch.arange(rank.shape[-1], device=rank.device).expand_as(rank)
    order = torch.zeros_like(rank).scatter_(-1, rank, place)  # zeros: depths that are no numbers have equal ranks
    depths = torch.cat(list(depth), dim=-1).gather(-1, order)
    weight = march(torch.cat(list(density), dim=-1).gather(-1, order), depths, shift)
    shares = weights_of_samples(weight).gather(-1, rank).split([d.shape[-1] for d in depth], dim=-1)
    total = sum((share.unsqueeze(-2) @ f).squeeze(-2) for share, f in zip(shares, feature))
    assert isinstance(total, Tensor)
    return Rendered(total, *mean_depth(weight, depths))
