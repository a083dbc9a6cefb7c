"""Radiance manifolds: where rays cross the levels of a scalar field, and the picture made of the crossings.

A manifold is the surface ``s(x) = level`` (GRAM, Section 3.1). Along a ray the field is known at S samples and taken
as linear between them. A ray crosses a level where the field falls through it for the first time; as a rule with one
owner for each sample, segment i (from sample i to i+1) crosses the level when ``s_i > level >= s_{i+1}``.

Two ways of finding the crossings give equal results: one level after the other (the reference), and all levels at
once by a binary search in the running minimum of the field (the fast path).

Traps of the public code avoided here:
* where the field falls by less than 0.05 in a segment, it answers with the segment's far end, off the level, and
  still calls that a crossing. Here the answer lies on the level; only the slope is kept from exploding.
* its expected depth divides by the sum of weights, which is zero on empty rays.
* its background is the last manifold in the list; here it is a constant colour behind everything.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SLOPE_FLOOR = 1e-3  # unpublished: our choice; levels are 0.65 apart, so an error of 1e-3 across a flat segment is nil


class Crossings(NamedTuple):
    """First crossings of L levels by R rays.

    Attributes:
        segment: (N, R, L) int64, the sample before the crossing; any sample where there is none.
        fraction: (N, R, L) in [0, 1], how far to the next sample; differentiable in the field.
        valid: (N, R, L) bool.
    """

    segment: Tensor
    fraction: Tensor
    valid: Tensor

    def interpolate(self, values: Tensor) -> Tensor:
        """(N, R, S, C) values at the samples to (N, R, L, C) at the crossings; meaningless where not valid."""
        n, rays, samples, channels = values.shape
        row = torch.arange(n * rays, device=values.device).view(n, rays, 1) * samples
        index = (row + self.segment).flatten()
        flat = values.reshape(-1, channels)  # whole rows at a time: far faster than a gather of single numbers
        before, after = flat.index_select(0, index), flat.index_select(0, index + 1)
        return torch.lerp(before, after, self.fraction.reshape(-1, 1)).view(*self.segment.shape, channels)


def level_values(start: float, end: float, count: int, device: torch.device | None = None) -> Tensor:
    """(count,) levels from the outermost to the innermost, evenly spaced."""
    return torch.linspace(start, end, count, device=device)


def _first_falls(field: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """First segment that falls through one level, by looking at every segment: (..., S) to two (...)."""
    falls = (field[..., :-1] > level) & (field[..., 1:] <= level)
    # argmax of booleans is the first True (0 if there is none).
    return falls.to(torch.uint8).argmax(dim=-1), falls.any(dim=-1)


def _fraction(before: Tensor, after: Tensor, levels: Tensor, valid: Tensor) -> Tensor:
    """How far into a segment the level lies. The field falls over a valid segment: the divisor is positive."""
    return torch.where(valid, (before - levels) / (before - after).clamp_min(SLOPE_FLOOR), 0.0)


def crossings_reference(field: Tensor, levels: Tensor) -> Crossings:
    """Crossings found level by level: the plain definition that :func:`crossings` must equal."""
    found = []
    for level in levels:
        segment, valid = _first_falls(field.detach(), level)
        before = field.gather(-1, segment.unsqueeze(-1)).squeeze(-1)
        after = field.gather(-1, segment.unsqueeze(-1) + 1).squeeze(-1)
        found.append((segment, _fraction(before, after, level, valid), valid))
    return Crossings(*(torch.stack(parts, dim=-1) for parts in zip(*found)))


def _running_maximum(values: Tensor) -> Tensor:
    """Running maximum along the last axis in log2(S) whole-tensor steps; several times faster than ``cummax``."""
    highest, reach = values.clone(), 1
    while reach < values.shape[-1]:
        highest[..., reach:] = torch.maximum(highest[..., reach:], highest[..., :-reach])
        reach *= 2
    return highest


def crossings(field: Tensor, levels: Tensor) -> Crossings:
    """All first crossings at once.

    For a ray that starts above a level, the first sample at or below the level is the first at which the *running
    minimum* is; that is sorted, so one binary search a level finds it: O(S + L log S) for a ray in place of O(S L).
    Rays that start at or below some level (inside the outermost manifold) are rare and go through the definition.

    Args:
        field: (N, R, S) values along the rays, from near to far.
        levels: (L,) values to find.

    Returns:
        the crossings, see :class:`Crossings`; gradients flow from ``fraction`` to ``field``.

    Raises:
        ValueError: if rays have fewer than two samples.
    """
    n, rays, samples = field.shape
    if samples < 2:
        raise ValueError(f"a ray needs at least two samples to cross a level, not {samples}")
    known, levels = field.detach(), levels.detach()
    sinking = _running_maximum(known.neg())  # minus the running minimum: sorted
    wanted = levels.neg().expand(n, rays, -1).contiguous()
    segment = torch.searchsorted(sinking, wanted).sub_(1).clamp_(0, samples - 2)
    inside = known[..., 0] <= levels.max()
    if inside.any():
        segment[inside] = _first_falls(known[inside].unsqueeze(-2), levels[:, None])[0]
    before, after = field.gather(-1, segment), field.gather(-1, segment + 1)
    valid = (before.detach() > levels) & (after.detach() <= levels)
    return Crossings(segment, _fraction(before, after, levels, valid), valid)


class Composite(NamedTuple):
    """A picture made of crossings.

    Attributes:
        colour: (N, R, C).
        depth: (N, R) expected depth, ``far`` where the ray is empty.
        weights: (N, R, L) in the order given; each in [0, 1], their sum at most 1.
    """

    colour: Tensor
    depth: Tensor
    weights: Tensor


def _finish(colour: Tensor, depth: Tensor, weights: Tensor, background: float, far: float) -> Composite:
    missing = 1 - weights.sum(-1)
    return Composite(
        (weights.unsqueeze(-1) * colour).sum(-2) + background * missing.unsqueeze(-1),
        (weights * depth).sum(-1) + far * missing,  # an empty ray sees the far end; nothing is divided
        weights,
    )


def composite_reference(
    colour: Tensor, alpha: Tensor, depth: Tensor, background: float = 1.0, far: float = 0.0
) -> Composite:
    """AniPortraitGAN Eq. 8 read literally, with no sorting: each crossing is dimmed by every one nearer than it."""
    nearer = depth.unsqueeze(-2) < depth.unsqueeze(-1)  # [..., i, k]: k stands before i
    tie = torch.ones_like(nearer[0, 0]).tril(-1) & (depth.unsqueeze(-2) == depth.unsqueeze(-1))
    light = torch.where(nearer | tie, 1 - alpha.unsqueeze(-2), torch.ones_like(alpha).unsqueeze(-2)).prod(dim=-1)
    return _finish(colour, depth, alpha * light, background, far)


def composite(colour: Tensor, alpha: Tensor, depth: Tensor, background: float = 1.0, far: float = 0.0) -> Composite:
    """Alpha compositing in depth order (AniPortraitGAN Eq. 8).

    Args:
        colour: (N, R, L, C).
        alpha: (N, R, L) in [0, 1]; 0 where there is no crossing.
        depth: (N, R, L) along the ray.
        background: value of every channel behind all crossings.
        far: depth of an empty ray.

    Returns:
        picture, depth and weights; see :class:`Composite`.
    """
    order = depth.detach().argsort(dim=-1, stable=True)
    clear = 1 - alpha.gather(-1, order)
    light = torch.cat([torch.ones_like(clear[..., :1]), clear[..., :-1]], dim=-1).cumprod(dim=-1)
    weights = torch.zeros_like(alpha).scatter(-1, order, light) * alpha
    return _finish(colour, depth, weights, background, far)
