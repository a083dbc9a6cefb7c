"""A small parametric model of people: a ball with a face, a neck, shoulders; linear in its codes like the real one."""

import torch

from models.parametric.person import EXPRESSION, IDENTITY, SHAPE, Person


def toy_people(count: int = 300, seed: int = 0) -> Person:
    """Head about the origin, shoulders below; expressions move the front of the head."""
    g = torch.Generator().manual_seed(seed)
    head = count // 2
    ball = torch.nn.functional.normalize(torch.randn(head, 3, generator=g), dim=-1) * 0.33
    body = (torch.rand(count - head, 3, generator=g) - 0.5) * torch.tensor([1.3, 0.5, 0.4])
    mean = torch.cat([ball, body + torch.tensor([0.0, -0.75, -0.15])])
    front = (mean[:, 2] > 0.15).float() * (torch.arange(count) < head)
    weights = torch.zeros(count, 7)
    weights[:head, 2] = 1
    side = mean[head:, 0]
    weights[head:, 5], weights[head:, 6] = (side > 0.3).float(), (side < -0.3).float()
    weights[head:, 0] = 1 - weights[head:].sum(-1)

    def basis(size: int, scale: float) -> torch.Tensor:
        return torch.randn(size, count, 3, generator=g) * scale

    direction, slope = torch.randn(2, EXPRESSION, 1, 3, generator=g)
    smooth = 0.03 * direction * (1 + 3 * (slope * mean).sum(-1, keepdim=True))
    joints = torch.tensor(
        [
            [0, -0.45, -0.1],
            [0, -0.2, -0.05],
            [0.1, -0.6, -0.1],
            [-0.1, -0.6, -0.1],
            [0.45, -0.6, -0.15],
            [-0.45, -0.6, -0.15],
        ]
    )
    tensors = {
        "triangles": torch.randint(count, (400, 3), generator=g),
        "mean": mean,
        "identity_basis": basis(IDENTITY, 0.002),
        "expression_basis": smooth * front[:, None],
        "shape_basis": basis(SHAPE, 0.002),
        "joint_mean": joints,
        "joint_identity": torch.zeros(IDENTITY, 6, 3),
        "joint_shape": torch.zeros(SHAPE, 6, 3),
        "skinning_weights": weights,
        "head_share": (torch.arange(count) < head).float(),
        "parts": torch.zeros(count),
        "mirror": torch.arange(count),
        "landmarks68": front.nonzero().squeeze(1).repeat(10)[:68],
        "uv": torch.rand(count, 2, generator=g),
        "uv_triangles": torch.randint(count, (400, 3), generator=g),
        "explained": torch.ones(2),
    }
    return Person(tensors, tuple(f"unit{n}" for n in range(EXPRESSION)))
