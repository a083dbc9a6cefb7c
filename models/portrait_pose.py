"""Pose deformation: inverse linear blend skinning, and the network D^p that processes it (paper, Section 3.3.1).

A point of the posed body goes back to the neutral pose by the inverse of the blended joint transforms of its nearest
vertex (paper Eq. 4). That map jumps where the nearest vertex jumps, between cheek and shoulder say, and tears long
hair. So the transforms of all samples of a picture are gathered in a volume over (depth, row, column), and two
learned averaging filters smooth it (paper Eq. 5, Figure 10).

Two ways of finding the transforms: the nearest vertex of every sample (the reference), and a volume baked once per
pose and read by trilinear interpolation (the fast path). They agree wherever all vertices near a sample move alike;
in the seams between, the volume stays between the transforms around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Config

ENTRIES = 12  # of a 3x4 affine transform


class PoseConfig(Config):
    """How points of the posed body find the neutral pose."""

    processing: bool = True  # False: the plain nearest-vertex strategy, the paper's ablation
    lookup: Literal["nearest", "volume"] = "nearest"  # "volume": the baked fast path
    kernel: tuple[int, int, int] = (5, 9, 9)  # paper, Section 4: 9 x 9 x 5, the 5 along the depth
    volume_resolution: int = 48  # unpublished: our choice; finer than what D^p averages over
    volume_half_side: float = 0.34  # unpublished: our choice; holds all samples of both cameras


@dataclass(frozen=True)
class Body:
    """What the generator needs to know of N posed bodies, whatever parametric model made them. No gradients.

    Attributes:
        vertices: (N, V, 3) posed vertices in the head frame (see models/portrait_fields.py); only those near the
            portrait need be given.
        weights: (V, J) skinning weights, rows sum to 1.
        transforms: (N, J, 4, 4) rigid transforms that carry each joint's part from the neutral to the given pose.
        head: index of the joint that moves the head.
    """

    vertices: Tensor
    weights: Tensor
    transforms: Tensor
    head: int

    def __post_init__(self) -> None:
        n, v = self.vertices.shape[:2]
        j = self.weights.shape[-1]
        if self.weights.shape != (v, j) or self.transforms.shape != (n, j, 4, 4):
            raise ValueError(
                f"{v} vertices of {n} bodies need weights ({v}, J) and transforms ({n}, J, 4, 4); "
                f"got {tuple(self.weights.shape)} and {tuple(self.transforms.shape)}"
            )
        if not 0 <= self.head < j:
            raise ValueError(f"the head joint {self.head} is none of the body's {j} joints")

    @property
    def head_transform(self) -> Tensor:
        """(N, 4, 4) motion of the head from the neutral pose."""
        return self.transforms[:, self.head]

    def inverse_transforms(self) -> Tensor:
        """(N, V, 12) inverse blended transforms of the vertices: posed to neutral, rows of 3x4 (paper Eq. 4)."""
        blended = torch.einsum("vj,njab->nvab", self.weights, self.transforms)
        return torch.linalg.inv(blended)[..., :3, :].flatten(-2)


def apply_transforms(transforms: Tensor, points: Tensor) -> Tensor:
    """(..., 12) affine transforms on (..., 3) points."""
    x_axis, y_axis, z_axis, origin = transforms.unflatten(-1, (3, 4)).unbind(-1)
    x, y, z = points.unsqueeze(-1).unbind(-2)
    return origin.addcmul(x_axis, x).addcmul(y_axis, y).addcmul(z_axis, z)


def _closeness(points: Tensor, vertices: Tensor) -> Tensor:
    """(B, P, 3) and (B, V, 3) to (B, P, V): half the squared distance, less a constant for each point.

    The point's own square does not change which vertex is nearest, so it is left out, which saves half the memory
    traffic of full distances. All is centred first: the expanded square loses digits far from the origin.
    """
    centre = vertices.mean(dim=1, keepdim=True)
    points, vertices = points - centre, vertices - centre
    # The vertices' squares ride along as a fourth coordinate: one product, with nothing to add afterwards.
    half_square = vertices.square().sum(-1, keepdim=True) / 2
    row = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    return row @ torch.cat([-vertices, half_square], dim=-1).transpose(1, 2)


@torch.no_grad()
def nearest_vertex(points: Tensor, vertices: Tensor, chunk: int = 8192) -> Tensor:
    """Index of the nearest vertex: (N, P, 3) and (N, V, 3) to (N, P), ``chunk`` points at a time."""
    return torch.cat([_closeness(part, vertices).argmin(-1) for part in points.split(chunk, dim=1)], dim=1)


class NearestTransforms(NamedTuple):
    """Inverse skinning transforms by the nearest vertex of every point: the reference.

    Attributes:
        vertices: (N, V, 3) posed.
        transforms: (N, V, 12) inverse blended transforms.
    """

    vertices: Tensor
    transforms: Tensor

    def at(self, points: Tensor) -> Tensor:
        """(N, P, 3) points to (N, P, 12) transforms."""
        index = nearest_vertex(points, self.vertices).unsqueeze(-1)
        return self.transforms.gather(1, index.expand(-1, -1, ENTRIES))


class TransformVolume(NamedTuple):
    """Inverse skinning transforms on a lattice.

    Attributes:
        values: (N, 12, R, R, R) over (z, y, x); the outermost lattice points lie on the box's faces.
        lower, upper: (3,) corners of the box, world units.
    """

    values: Tensor
    lower: Tensor
    upper: Tensor

    def at(self, points: Tensor) -> Tensor:
        """(N, P, 3) points to (N, P, 12) transforms, trilinear; beyond the box, those of its border."""
        where = 2 * (points - self.lower) / (self.upper - self.lower) - 1
        found = F.grid_sample(self.values, where[:, :, None, None], padding_mode="border", align_corners=True)
        return found[..., 0, 0].transpose(1, 2)


_BLOCK = 4  # lattice points along a block; two blocks make the side of a group
_WIDER = 6  # how many times more vertices a group keeps than each of its blocks


def _nearest_few(points: Tensor, vertices: Tensor, count: int) -> Tensor:
    """(B, P, 3) and (B, V, 3) to (B, P, count) indices, in no order; all of them if there are fewer."""
    count = min(count, vertices.shape[1])
    return _closeness(points, vertices).topk(count, largest=False, sorted=False).indices


@torch.no_grad()
def bake_transforms(
    body: Body, lower: Tensor, upper: Tensor, resolution: int = 48, candidates: int = 96
) -> TransformVolume:
    """Nearest-vertex transforms on a lattice.

    Searching every lattice point among every vertex would cost more than the samples of a picture do. So the lattice
    is cut into groups of 2x2x2 blocks of 4x4x4 points. A group keeps some vertices nearest to its centre, its blocks
    fewer of those, and the points look only among their block's. Far from the body the right one may be missing,
    which moves the seams there a little.

    Args:
        body: the posed bodies.
        lower, upper: (3,) corners of the box.
        resolution: lattice points along each side, a multiple of 8.
        candidates: vertices kept for each block; all of them make the volume exact on the lattice.

    Raises:
        ValueError: if the resolution is no multiple of 8.
    """
    if resolution % (2 * _BLOCK):
        raise ValueError(f"the resolution of a transform volume is a multiple of {2 * _BLOCK}, not {resolution}")
    n, groups = len(body.vertices), resolution // (2 * _BLOCK)
    steps = torch.linspace(0, 1, resolution, device=lower.device, dtype=lower.dtype)
    axes = [a + (b - a) * steps for a, b in zip(lower, upper)]
    z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    lattice = torch.stack([x, y, z], dim=-1).reshape(*(groups, 2, _BLOCK) * 3, 3)
    # (group, block, point, 3), each counted in the order z, y, x.
    inside = lattice.permute(0, 3, 6, 1, 4, 7, 2, 5, 8, 9).reshape(groups**3, 8, _BLOCK**3, 3)
    inverse, volumes = body.inverse_transforms(), []
    for vertices, transforms in zip(body.vertices, inverse):
        centres = inside.mean(dim=(1, 2))
        wide = _nearest_few(centres[None], vertices[None], _WIDER * candidates)[0]
        few = _nearest_few(inside.mean(dim=2), vertices[wide], candidates)
        near = wide.unsqueeze(1).expand(-1, 8, -1).gather(2, few).flatten(0, 1)
        choice = _closeness(inside.flatten(0, 1), vertices[near]).argmin(-1)
        volumes.append(transforms[near.gather(1, choice)])
    volume = torch.stack(volumes).reshape(n, *(groups,) * 3, 2, 2, 2, *(_BLOCK,) * 3, ENTRIES)
    volume = volume.permute(0, 10, 1, 4, 7, 2, 5, 8, 3, 6, 9).reshape(n, ENTRIES, *(resolution,) * 3)
    return TransformVolume(volume.contiguous(), lower, upper)


class _Average(nn.Module):
    """A depthwise 3-D filter whose kernels sum to one, at the start all equal: average pooling of stride 1.

    The kernel is the average plus a learned part without its mean, so the sum is one whatever is learned and nothing
    is divided. A filter whose kernel sums to one leaves equal transforms as they are.
    """

    def __init__(self, kernel: tuple[int, int, int]):
        super().__init__()
        self.change = nn.Parameter(torch.zeros(ENTRIES, 1, *kernel))

    def forward(self, volume: Tensor, fixed: bool = False) -> Tensor:
        size = self.change.shape[2:]
        padding = [half for k in reversed(size) for half in (k // 2, k // 2)]
        change = torch.zeros_like(self.change) if fixed else self.change
        kernel = change - change.mean(dim=(2, 3, 4), keepdim=True) + 1 / size.numel()
        return F.conv3d(F.pad(volume, padding, mode="reflect"), kernel, groups=ENTRIES)


class PoseProcessor(nn.Module):
    """The pose deformation processing network D^p (paper Eq. 5, Figure 10).

    Half resolution, a filter, twice up, a filter. The filters are depthwise, as in the public release: each entry of
    the transforms is averaged by itself. The bottom row of a rigid transform is 0 0 0 1 and stays so under
    averaging, so 12 of the paper's 16 channels are kept.
    """

    def __init__(self, config: PoseConfig):
        super().__init__()
        self.coarse = _Average(config.kernel)
        self.fine = _Average(config.kernel)

    def forward(self, volume: Tensor, fixed: bool = False) -> Tensor:
        """(N, 12, D, H, W) transforms at half resolution to (N, 12, 2D, 2H, 2W).

        Args:
            volume: transforms; cell (d, h, w) stands for the 2x2x2 samples it covers.
            fixed: use average pooling in place of the learned filters: the AvgPool of paper Eq. 11.
        """
        wide = F.interpolate(self.coarse(volume, fixed), scale_factor=2, mode="trilinear", align_corners=False)
        return self.fine(wide, fixed)


class PoseField(nn.Module):
    """From samples of the posed space to the neutral pose."""

    def __init__(self, config: PoseConfig, centre: tuple[float, float, float]):
        super().__init__()
        self.config = config
        self.centre = centre
        self.process = PoseProcessor(config) if config.processing else None

    def lookup(self, body: Body) -> NearestTransforms | TransformVolume:
        """What finds the transforms of one pose; all cameras that look at the pose can share it."""
        if self.config.lookup == "nearest":
            return NearestTransforms(body.vertices, body.inverse_transforms())
        centre, half = body.vertices.new_tensor(self.centre), self.config.volume_half_side
        return bake_transforms(body, centre - half, centre + half, self.config.volume_resolution)

    def half_volume(self, points: Tensor, lookup: NearestTransforms | TransformVolume) -> Tensor:
        """Transforms of a picture's samples at half resolution: (N, H, W, S, 3) to (N, 12, S/2, H/2, W/2).

        The transforms are looked up at the middle of each 2x2x2 block of samples. (The public code takes every
        second sample instead, and then scales up as if it had taken the middles: everything shifts by half a sample.)

        Raises:
            ValueError: if a size is odd, or too small for the filter's reflected border.
        """
        sizes = points.shape[3], points.shape[1], points.shape[2]
        if any(s % 2 or s // 2 <= k // 2 for s, k in zip(sizes, self.config.kernel)):
            raise ValueError(
                f"pose processing needs even numbers of samples, rows and columns, above {self.config.kernel}; "
                f"got {sizes}"
            )
        middles = F.avg_pool3d(points.permute(0, 4, 3, 1, 2), 2)
        found = lookup.at(middles.flatten(2).transpose(1, 2))
        return found.transpose(1, 2).unflatten(2, middles.shape[2:])

    def forward(self, points: Tensor, lookup: NearestTransforms | TransformVolume) -> Tensor:
        """(N, H, W, S, 3) samples of the posed space to the neutral pose, same shape."""
        if self.process is None:
            return apply_transforms(lookup.at(points.flatten(1, 3)), points.flatten(1, 3)).view_as(points)
        volume = self.process(self.half_volume(points, lookup))
        return apply_transforms(volume.permute(0, 3, 4, 2, 1), points)
