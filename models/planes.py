"""Feature planes behind one query: tri-plane, tri-grid, single sphere and dual sphere.

A generator emits a stack of feature planes; :class:`PlaneField` answers "what are the features at these world points".
The kinds differ only in how a point becomes plane coordinates, and in the weights with which planes are summed.

* ``triplane`` (EG3D): three axis-aligned planes.
* ``trigrid`` (PanoHead): each plane is a stack of ``depth`` slices, read trilinearly.
* ``single_sphere``: three planes over the spherical coordinates (theta, phi), (theta, r), (phi, r) of sphere A.
* ``dual_sphere`` (SphereHead, section 3.1 and appendix A): spheres A and B with perpendicular poles and opposite seams,
  fused by weights that vanish at each sphere's own seam and poles.

Frame: +z front, +y up, +x the subject's left. World points are scaled by ``2 / box`` before anything else.

Every kind has a plain form, written as the paper has it (``fast=False``), and a fast one with the same values and
gradients. Angles have no gradient on the polar axis and at the origin, where they are undefined; both forms hold the
direction still there (``SAFE``), so that gradients stay finite when cameras are trained.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import Config
from models.gather import cell_and_fraction, gather, texel_table

Kind = Literal["triplane", "trigrid", "single_sphere", "dual_sphere"]
Sphere = Literal["fused", "a", "b"]

EPSILON = 1e-8  # equation 7
SAFE = 1e-10  # squared length (in the box's units) below which a direction is not differentiated

# Axis pairs (grid x, grid y). EG3D's third plane reads (z, x), a mirror of its second: kept for its checkpoints.
_AXES = {"eg3d": ((0, 1), (0, 2), (2, 0)), "orthogonal": ((0, 1), (0, 2), (1, 2))}
# The axis that a plane leaves out, read by the slices of a tri-grid.
_DEPTH_AXIS = {"eg3d": (2, 1, 1), "orthogonal": (2, 1, 0)}
_SPHERE_AXES = ((0, 1), (0, 2), (1, 2))  # among (theta, phi, r)


class PlaneConfig(Config):
    """A plane representation."""

    kind: Kind = "dual_sphere"
    plane_axes: Literal["eg3d", "orthogonal"] = "orthogonal"  # of triplane and trigrid; PanoHead corrected EG3D's
    channels: int = 32  # EG3D
    depth: int = 1  # slices of a tri-grid; PanoHead: 3
    box: float = 1.0  # EG3D's box_warp for FFHQ: the side of the cube the planes span, in world units

    @property
    def planes(self) -> int:
        """How many (channels, H, W) planes the generator must emit."""
        return {"triplane": 3, "trigrid": 3 * self.depth, "single_sphere": 3, "dual_sphere": 6}[self.kind]


# --- geometry of the spheres ------------------------------------------------------------------------------------------


def to_sphere_a(p: Tensor) -> Tensor:
    """Equation 4: points (..., 3) in the frame of sphere A: poles at the ears, phi = 0 in front, seam at the back."""
    x, y, z = p.unbind(-1)
    return torch.stack([z, y, -x], dim=-1)


def to_sphere_b(p: Tensor) -> Tensor:
    """Equation 5: points (..., 3) in the frame of sphere B: poles above and below, phi = 0 behind, seam in front."""
    x, y, z = p.unbind(-1)
    return torch.stack([-z, -x, y], dim=-1)


def spherical(p: Tensor) -> Tensor:
    """Equation 3: (..., 3) points of the [-1, 1] cube to (theta, phi, r), each scaled to [-1, 1].

    theta in [0, pi] is measured from z, phi in (-pi, pi] about it; r reaches 1 at the cube's corner, sqrt(3).
    """
    x, y, z = p.unbind(-1)
    planar = x.square() + y.square()
    on_axis = planar < SAFE
    x, y = torch.where(on_axis, 1.0, x), torch.where(on_axis, 0.0, y)
    rho = planar.clamp_min(SAFE).sqrt()
    at_origin = on_axis & (z.square() < SAFE)
    r = (planar + z.square()).clamp_min(SAFE).sqrt()
    theta = torch.atan2(torch.where(on_axis, 0.0, rho), torch.where(at_origin, 1.0, z))
    phi = torch.atan2(y, x)
    return torch.stack([theta * (2 / math.pi) - 1, phi / math.pi, r * (2 / math.sqrt(3)) - 1], dim=-1)


def sphere_weight(angles: Tensor) -> Tensor:
    """Equation 6: the weight (...) of a sphere from its own (theta, phi, ...): one in the middle, zero at the edges."""
    return 0.25 * (1 + torch.cos(math.pi * angles[..., 0])) * (1 + torch.cos(math.pi * angles[..., 1]))


def sphere_weights(p: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 6 in closed form: (w_A, w_B), each (...), of (..., 3) points.

    With s^2 = y^2 + z^2 and t^2 = x^2 + z^2, w_A = s (s + z) / 2r^2 and w_B = t (t - z) / 2r^2. Their sum lies in
    [7/16, 1]. Weights depend on the direction only and are undefined at the origin.
    """
    p = p * p.square().sum(-1, keepdim=True).clamp_min(SAFE).rsqrt()
    x, y, z = p.unbind(-1)
    s = (y.square() + z.square()).clamp_min(SAFE).sqrt()
    t = (x.square() + z.square()).clamp_min(SAFE).sqrt()
    return 0.5 * s * (s + z), 0.5 * t * (t - z)


def share_of_a(p: Tensor) -> Tensor:
    """Equation 7's w_A / (w_A + w_B), (...), of (..., 3) points: 1 in front, 0 behind and at the ears, 1 on top.

    Needs neither angles nor the radius. At the origin, where it is undefined, both spheres get one half.
    """
    x, y, z = p.unbind(-1)
    xx, yy, zz = x.square(), y.square(), z.square()
    at_origin = xx + yy + zz < SAFE
    s = (yy + zz).clamp_min(SAFE).sqrt()
    t = (xx + zz).clamp_min(SAFE).sqrt()
    a, b = s * (s + z), t * (t - z)
    return torch.where(at_origin, 0.5, a / torch.where(at_origin, 1.0, a + b))


# --- the plain form ---------------------------------------------------------------------------------------------------


def _sample(planes: Tensor, coordinates: Tensor, axes: tuple[tuple[int, int], ...]) -> Tensor:
    """Mean of bilinear samples: (N, 3, C, H, W) planes at (N, P, 3) plane coordinates to (N, P, C)."""
    n, k, c, h, w = planes.shape
    grid = torch.stack([coordinates[..., list(pair)] for pair in axes], dim=1)  # (N, 3, P, 2)
    out = F.grid_sample(
        planes.reshape(n * k, c, h, w), grid.flatten(0, 1).unsqueeze(1), padding_mode="zeros", align_corners=False
    )
    return out.view(n, k, c, -1).permute(0, 1, 3, 2).mean(dim=1)


def _sample_grid(planes: Tensor, p: Tensor, config: PlaneConfig) -> Tensor:
    """Mean of trilinear samples: (N, 3, D, C, H, W) stacks at (N, P, 3) points of the cube to (N, P, C)."""
    n, k, d, c, h, w = planes.shape
    order = [(*pair, depth) for pair, depth in zip(_AXES[config.plane_axes], _DEPTH_AXIS[config.plane_axes])]
    grid = torch.stack([p[..., list(axes)] for axes in order], dim=1)  # (N, 3, P, 3)
    volume = planes.transpose(2, 3).reshape(n * k, c, d, h, w)
    out = F.grid_sample(volume, grid.flatten(0, 1)[:, None, None], padding_mode="zeros", align_corners=False)
    return out.view(n, k, c, -1).permute(0, 1, 3, 2).mean(dim=1)


def _plain_query(planes: Tensor, p: Tensor, config: PlaneConfig, sphere: Sphere) -> Tensor:
    """Features (N, P, C) at points (N, P, 3) of the [-1, 1] cube, as the papers write it."""
    if config.kind == "triplane":
        return _sample(planes, p, _AXES[config.plane_axes])
    if config.kind == "trigrid":
        return _sample_grid(planes.unflatten(1, (3, config.depth)), p, config)
    in_a = spherical(to_sphere_a(p))
    if config.kind == "single_sphere":
        return _sample(planes, in_a, _SPHERE_AXES)
    if sphere == "a":
        return _sample(planes[:, :3], in_a, _SPHERE_AXES)
    in_b = torch.cat([spherical(to_sphere_b(p))[..., :2], in_a[..., 2:]], dim=-1)  # the radius is the same
    if sphere == "b":
        return _sample(planes[:, 3:], in_b, _SPHERE_AXES)
    w_a, w_b = sphere_weight(in_a).unsqueeze(-1), sphere_weight(in_b).unsqueeze(-1)
    undefined = w_a + w_b < SAFE  # at the origin only: elsewhere the sum is 7/16 or more
    feature_a = _sample(planes[:, :3], in_a, _SPHERE_AXES)
    feature_b = _sample(planes[:, 3:], in_b, _SPHERE_AXES)
    fused = (w_a * feature_a + w_b * feature_b) / (w_a + w_b + EPSILON)  # equation 7
    return torch.where(undefined, 0.5 * (feature_a + feature_b), fused)


# --- the fast form ----------------------------------------------------------------------------------------------------

_Look = tuple[int, Tensor, Tensor, "Tensor | float"]  # plane, grid x, grid y, weight


def _angles(axis: Tensor, planar: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(theta, phi) scaled to [-1, 1] from the part along the pole, the squared part across it, and (u, v) across."""
    on_axis = planar < SAFE
    at_origin = on_axis & (axis.square() < SAFE)
    rho = torch.where(on_axis, 0.0, planar.clamp_min(SAFE).sqrt())
    theta = torch.atan2(rho, torch.where(at_origin, 1.0, axis))
    phi = torch.atan2(torch.where(on_axis, 0.0, v), torch.where(on_axis, 1.0, u))
    return theta * (2 / math.pi) - 1, phi / math.pi


def _looks_on_spheres(p: Tensor, config: PlaneConfig, sphere: Sphere) -> list[_Look]:
    """The three or six look-ups of the spherical kinds: squares, the radius and the weights are shared by all."""
    x, y, z = p.unbind(-1)
    xx, yy, zz = x.square(), y.square(), z.square()
    r = (zz + yy + xx).clamp_min(SAFE).sqrt() * (2 / math.sqrt(3)) - 1
    looks: list[_Look] = []
    dual = config.kind == "dual_sphere" and sphere == "fused"
    share = share_of_a(p) / 3 if dual else None
    if sphere != "b":
        theta, phi = _angles(-x, zz + yy, z, y)
        weight = 1 / 3 if share is None else share
        looks += [(0, theta, phi, weight), (1, theta, r, weight), (2, phi, r, weight)]
    if dual or sphere == "b":
        theta, phi = _angles(y, zz + xx, -z, -x)
        weight = 1 / 3 if share is None else 1 / 3 - share
        looks += [(3, theta, phi, weight), (4, theta, r, weight), (5, phi, r, weight)]
    return looks


def _fast_query(table: Tensor, p: Tensor, config: PlaneConfig, sphere: Sphere) -> Tensor:
    """Features (N, P, C) from a texel table (N, K, H + 2, H + 2, C) at points (N, P, 3) of the [-1, 1] cube."""
    n, kinds, stride = table.shape[:3]
    size = stride - 2
    if config.kind in ("single_sphere", "dual_sphere"):
        looks = _looks_on_spheres(p, config, sphere)
    else:
        axis = p.unbind(-1)
        looks = [(i, axis[a], axis[b], 1 / 3) for i, (a, b) in enumerate(_AXES[config.plane_axes])]
    found: dict[int, tuple[Tensor, Tensor]] = {}
    cells, across, down, weights = [], [], [], []

    def locate(coordinate: Tensor) -> tuple[Tensor, Tensor]:
        if id(coordinate) not in found:  # a coordinate serves several planes: locate it once
            found[id(coordinate)] = cell_and_fraction(coordinate, size)
        return found[id(coordinate)]

    def add(plane: Tensor | int, x: Tensor, y: Tensor, weight: Tensor | float) -> None:
        (column, right), (row, below) = locate(x), locate(y)
        cells.append(column + (row + plane * stride) * stride)
        across.append(right)
        down.append(below)
        weights.append(weight)

    for plane, x, y, weight in looks:
        if config.kind != "trigrid":
            add(plane, x, y, weight)
            continue
        low, fraction = cell_and_fraction(p[..., _DEPTH_AXIS[config.plane_axes][plane]], config.depth)
        for slice_, part in ((low - 1, 1 - fraction), (low, fraction)):
            inside = (slice_ >= 0) & (slice_ < config.depth)
            part = torch.where(inside, part * weight, 0.0)
            add(plane * config.depth + slice_.clamp(0, config.depth - 1), x, y, part)
    first = torch.arange(n, device=p.device, dtype=torch.int32).view(n, 1, 1) * (kinds * stride * stride)
    cell = torch.stack(cells, dim=-1) + first
    tensors = [weight for weight in weights if isinstance(weight, Tensor)]
    shares = torch.stack(tensors, dim=-1) if tensors else p.new_full((1, 1), 1 / 3)
    return gather(table, cell, torch.stack(across, dim=-1), torch.stack(down, dim=-1), shares)


# --- the one query ----------------------------------------------------------------------------------------------------


class PlaneField:
    """Features at world points.

    Args:
        planes: (N, config.planes * config.channels, H, H), as a generator emits them. With N = 1, one identity serves
            any number of cameras.
        config: the representation.
        fast: the fast form, or the plain one; same values and gradients.

    Raises:
        ValueError: if the number of channels is not the representation's, or the planes are not square.
    """

    def __init__(self, planes: Tensor, config: PlaneConfig, fast: bool = True):
        expected = config.planes * config.channels
        if planes.shape[1] != expected or planes.shape[2] != planes.shape[3]:
            raise ValueError(f"{config.kind} takes square planes with {expected} channels, not {tuple(planes.shape)}")
        self.config, self.fast = config, fast
        split = planes.unflatten(1, (config.planes, config.channels))
        self._store = texel_table(split) if fast else split

    def query(self, points: Tensor, sphere: Sphere = "fused") -> Tensor:
        """Features at points.

        Args:
            points: (N, P, 3) world coordinates.
            sphere: which sphere of a dual sphere answers: both, fused by equation 7, or one alone.

        Returns:
            (N, P, channels). Axis-aligned planes are zero outside the box.
        """
        if sphere != "fused" and self.config.kind != "dual_sphere":
            raise ValueError(f"{self.config.kind} has no sphere {sphere!r} to choose")
        n, count = points.shape[:2]
        batch = self._store.shape[0]
        if batch not in (1, n):
            raise ValueError(f"planes of {batch} identities cannot serve points of {n}")
        p = points.to(self._store.dtype) * (2 / self.config.box)
        answer = _fast_query if self.fast else _plain_query
        return answer(self._store, p.reshape(batch, -1, 3), self.config, sphere).view(n, count, -1)
