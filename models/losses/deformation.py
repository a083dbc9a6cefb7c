"""Losses that teach the portrait generator to deform (AniPortraitGAN, Section 3.5). All are means over the batch.

The paper prints no weights for them; they belong to the objective, not here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.portrait_pose import nearest_vertex


def landmark_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """3-D landmarks of the face estimated from a picture against those asked for (paper Eq. 9).

    Args:
        found: (N, K, 3) landmarks of the model fitted to the generated picture.
        wanted: (N, K, 3) landmarks of the model with the input codes, same frame and units.

    Returns:
        mean squared distance.
    """
    return (found - wanted).square().sum(-1).mean()


def imitation_target(
    points: Tensor, neutral: Tensor, offsets: Tensor, reach: float | None = None
) -> tuple[Tensor, Tensor]:
    """How the parametric face would take the expression away at given points (paper Eq. 10).

    Args:
        points: (N, P, 3) in the neutral pose, expression in place.
        neutral: (N, V, 3) vertices of the face with the wanted identity and no expression.
        offsets: (N, V, 3) what the expression adds to them, ``B_exp z_exp``.
        reach: world units over which trust in the face fades with the distance to it (a Gaussian's deviation);
            None trusts it everywhere, as the paper's formula does. Unpublished: our addition, since at the shoulder
            the nearest vertex is the chin, which opens with the mouth.

    Returns:
        (N, P, 3) displacements, minus the offset of the nearest vertex of the *expressive* face, in whose space the
        points are; and (N, P) weights in [0, 1].
    """
    expressive = neutral + offsets
    index = nearest_vertex(points.detach(), expressive).unsqueeze(-1).expand(-1, -1, 3)
    target = -offsets.gather(1, index)
    if reach is None:
        return target, torch.ones_like(target[..., 0])
    square = (points.detach() - expressive.gather(1, index)).square().sum(-1)
    return target, torch.exp(-0.5 * square / reach**2)


def imitation_loss(displacement: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean squared distance of (N, P, 3) displacements D^e(x) - x from those of the parametric face (paper Eq. 10)."""
    return (weight * (displacement - target).square().sum(-1)).mean()


def pose_smoothness(processed: Tensor, pooled: Tensor) -> Tensor:
    """|D^p(T) - AvgPool(T)| of (N, 12, D, H, W) transforms, mean over all entries (paper Eq. 11)."""
    return (processed - pooled).abs().mean()


def expression_smoothness(
    displace: Callable[[Tensor], Tensor], points: Tensor, deviation: float, generator: torch.Generator | None = None
) -> Tensor:
    """How differently neighbouring points move (paper Eq. 12).

    The paper's formula compares where the points *arrive*. Read to the letter it would punish the identity map, which
    keeps neighbours apart by their distance, and reward collapse; so displacements are compared here.

    Args:
        displace: (N, P, 3) points to (N, P, 3) displacements.
        points: (N, P, 3).
        deviation: of the normally distributed step to the neighbour, world units.
        generator: of the steps.

    Returns:
        mean squared difference of the displacements.
    """
    step = torch.randn(points.shape, generator=generator, device=points.device, dtype=points.dtype) * deviation
    return (displace(points) - displace(points + step)).square().sum(-1).mean()


def minimal_deformation(displacement: Tensor) -> Tensor:
    """Mean squared length of (N, P, 3) displacements (paper Eq. 13).

    Squared, for the plain length has no gradient at zero, which is where D^e starts.
    """
    return displacement.square().sum(-1).mean()


def occupancy_loss(
    alpha: Tensor, points: Tensor, vertices: Tensor, normals: Tensor, shell: tuple[float, float] = (0.005, 0.05)
) -> Tensor:
    """Opacity inside a body and none far from it: a start for the shape, as AvatarGen's guide by SMPL's distance field.

    Args:
        alpha: (N, P) opacities at
        points: (N, P, 3) of the neutral pose.
        vertices, normals: (N, V, 3) of the neutral body; normals of length one, outwards.
        shell: distances inside and outside the surface between which nothing is asked. Unpublished: our choice; hair
            and clothes lie there.

    Returns:
        mean binary cross entropy over the points of which something is asked.
    """
    with torch.no_grad():
        index = nearest_vertex(points, vertices).unsqueeze(-1).expand(-1, -1, 3)
        offset = points - vertices.gather(1, index)
        inside = (offset * normals.gather(1, index)).sum(-1) < -shell[0]
        outside = ~inside & (offset.square().sum(-1) > shell[1] ** 2)
    likely = torch.where(inside, alpha, 1 - alpha).clamp_min(1e-6)
    return -(likely.log() * (inside | outside)).sum() / (inside | outside).sum().clamp_min(1)
