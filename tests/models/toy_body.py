"""A synthetic body for the portrait tests: a ball for a head, a tube for a neck, a box for shoulders.

Its seven parts are rigid but for a smooth blend along the neck. It stands in the head frame of the generator.
"""

import math

import torch

from models.portrait_pose import Body

HEAD = 1
PIVOTS = torch.tensor([[0.0, -0.15, -0.08], [0.0, -0.09, -0.06], [0.06, -0.15, -0.08], [-0.06, -0.15, -0.08]])


def rotation(angles: torch.Tensor) -> torch.Tensor:
    """(..., 3) rotation vectors, radians, to (..., 3, 3)."""
    generator = angles.new_zeros(*angles.shape[:-1], 3, 3)
    x, y, z = angles.unbind(-1)
    generator[..., 0, 1], generator[..., 0, 2], generator[..., 1, 2] = -z, y, -x
    return torch.linalg.matrix_exp(generator - generator.transpose(-1, -2))


def joint_transforms(angles: torch.Tensor) -> torch.Tensor:
    """(N, 4, 3) rotations of trunk, head, left and right shoulder about their pivots to (N, 4, 4, 4)."""
    turn = rotation(angles)
    transforms = torch.eye(4).repeat(*angles.shape[:2], 1, 1)
    transforms[..., :3, :3] = turn
    transforms[..., :3, 3] = PIVOTS - (turn @ PIVOTS.unsqueeze(-1)).squeeze(-1)
    return transforms


def neutral(count: int = 600, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(V, 3) neutral vertices and (V, 4) skinning weights."""
    g = torch.Generator().manual_seed(seed)
    n = count // 3
    ball = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1) * 0.09
    ball[:, 2] -= 0.02
    turn = torch.rand(n, generator=g) * 2 * math.pi
    height = -0.16 + 0.09 * torch.rand(n, generator=g)
    neck = torch.stack([0.04 * turn.cos(), height, 0.04 * turn.sin() - 0.05], dim=-1)
    shoulders = (torch.rand(count - 2 * n, 3, generator=g) - 0.5) * torch.tensor([0.4, 0.1, 0.12])
    shoulders += torch.tensor([0.0, -0.2, -0.08])
    weights = torch.zeros(count, 4)
    weights[:n, 1] = 1
    up = ((height + 0.15) / 0.06).clamp(0, 1)
    weights[n : 2 * n, 1], weights[n : 2 * n, 0] = up, 1 - up
    side = shoulders[:, 0]
    weights[2 * n :, 2] = (side > 0.06).float()
    weights[2 * n :, 3] = (side < -0.06).float()
    weights[2 * n :, 0] = 1 - weights[2 * n :, 2:].sum(-1)
    return torch.cat([ball, neck, shoulders]), weights


def body(angles: torch.Tensor, count: int = 600) -> Body:
    """A posed body for each of (N, 4, 3) rotations."""
    vertices, weights = neutral(count)
    transforms = joint_transforms(angles)
    blended = torch.einsum("vj,njab->nvab", weights, transforms)
    posed = (blended[..., :3, :3] @ vertices[:, :, None]).squeeze(-1) + blended[..., :3, 3]
    return Body(posed, weights, transforms, HEAD)


def random_angles(n: int, scale: float = 0.3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 4, 3, generator=torch.Generator().manual_seed(seed)) * scale
