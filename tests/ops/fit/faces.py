"""A little linear face for tests of the solvers: points on the front of a ball that move along random bases."""

import torch

from ops.fit.energy import FRONT, Prior, State, Terms, project, skew
from ops.fit.linear import LinearFace

FOCAL = 3.5
TERMS = Terms(noise=0.005, correlated=1.0, outlier=1e6, expression=0.5, wall=20.0)


def little_face(points=60, identity=4, expression=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    normals = torch.nn.functional.normalize(torch.randn(points, 3, generator=rng, dtype=torch.float64), dim=-1)
    normals[:, 2] = normals[:, 2].abs()

    def basis(count, size):
        return size * torch.randn(count, points, 3, generator=rng, dtype=torch.float64)

    return LinearFace(0.3 * normals, basis(identity, 0.01), basis(expression, 0.03), normals)


def turned(axis_angle):
    """(N, 3, 3) head-to-camera rotations, a turn away from looking into the camera."""
    return torch.linalg.matrix_exp(skew(torch.as_tensor(axis_angle, dtype=torch.float64))) @ torch.tensor(
        FRONT, dtype=torch.float64
    )


def some_states(face, count=3, seed=1):
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    return State(
        draw(count, len(face.identity)),
        torch.rand(count, len(face.expression), generator=rng, dtype=torch.float64) * 0.6 + 0.1,
        turned(0.25 * draw(count, 3)),
        torch.tensor([0.0, 0.0, 2.7], dtype=torch.float64) + 0.05 * draw(count, 3),
    )


def seen_by(face, state):
    return project(face, state, FOCAL)[0]


def some_prior(count, identity=4, expression=3, seed=3):
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=rng, dtype=torch.float64)

    return Prior(
        draw(count, identity) - 0.5, 0.5 + draw(identity), 0.5 * draw(count, expression), 0.1 + draw(expression)
    )
