"""What a fit minimises: landmarks that should project to where they were seen, and codes that should be plausible.

    E = 1/c sum_i w_i rho(|project(R x_i + t) - u_i|^2 / s^2) + |(identity - m_i) / s_i|^2
        + |(expression - m_e) / s_e|^2 + bounds

x is linear in the codes (:mod:`ops.fit.linear`), w falls to zero where the surface turns away from the camera, rho is
Geman and McClure's 1 - 1 / (1 + r^2 / k^2), and c says how many neighbouring landmarks err as one. m and s are what is
expected of the codes: the crowd's mean and spread, or what was read off the landmarks and how well that is known. All
terms come as Gauss-Newton normal equations with exact first derivatives; the codes' ranges are walls, soft but steep.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ops.fit.linear import LinearFace

FRONT = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))  # head to camera, seen from straight ahead


@dataclass(frozen=True)
class State:
    """N faces: codes, and the rigid motion from the head frame to the camera's (OpenCV axes).

    Attributes:
        identity: (N, I). expression: (N, E). rotation: (N, 3, 3). translation: (N, 3), world units.
    """

    identity: Tensor
    expression: Tensor
    rotation: Tensor
    translation: Tensor

    def moved(self, step: Tensor) -> State:
        """The state after a step (N, I + E + 6); rotations turn by an axis-angle in the camera's frame."""
        sizes = [self.identity.shape[1], self.expression.shape[1], 3, 3]
        identity, expression, turn, shift = step.split(sizes, dim=1)
        return State(
            self.identity + identity,
            self.expression + expression,
            torch.linalg.matrix_exp(skew(turn)) @ self.rotation,
            self.translation + shift,
        )

    def where(self, mask: Tensor, other: State) -> State:
        """This state where ``mask`` (N,) or (1,) holds, the other elsewhere."""
        return State(
            torch.where(mask[:, None], self.identity, other.identity),
            torch.where(mask[:, None], self.expression, other.expression),
            torch.where(mask[:, None, None], self.rotation, other.rotation),
            torch.where(mask[:, None], self.translation, other.translation),
        )

    def bounded(self) -> State:
        """With the expression within [0, 1]."""
        return replace(self, expression=self.expression.clamp(0, 1))


@dataclass(frozen=True)
class Terms:
    """Weights of the energy's terms.

    Attributes:
        noise: standard deviation of a landmark, in units of the picture's side.
        correlated: how many neighbouring landmarks err as one.
        outlier: distance in ``noise`` at which a landmark's pull is down to a quarter.
        expression: standard deviation of an expression unit.
        wall: stiffness of the expression's bounds, against the prior's of 1 / expression^2.
    """

    noise: float
    correlated: float
    outlier: float
    expression: float
    wall: float


@dataclass(frozen=True)
class Prior:
    """What is expected of N faces' codes.

    Attributes:
        identity, identity_spread: (N, I) and (I,) mean and standard deviation.
        expression, expression_spread: (N, E) and (E,).
    """

    identity: Tensor
    identity_spread: Tensor
    expression: Tensor
    expression_spread: Tensor

    def part(self, rows: slice) -> Prior:
        """Of some of the faces."""
        return replace(self, identity=self.identity[rows], expression=self.expression[rows])


def crowd(state: State, terms: Terms) -> Prior:
    """What is expected of anybody: the mean person, without expression."""
    spread = torch.full_like(state.expression[0], terms.expression)
    ones = torch.ones_like(state.identity[0])
    return Prior(torch.zeros_like(state.identity), ones, torch.zeros_like(state.expression), spread)


@dataclass(frozen=True)
class Normal:
    """Gauss-Newton normal equations of N faces: (N, K, K) matrices and (N, K) gradients, K = I + E + 6."""

    matrix: Tensor
    gradient: Tensor


def skew(vector: Tensor) -> Tensor:
    """(..., 3) vectors to (..., 3, 3) matrices of the cross product."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def project(face: LinearFace, state: State, focal: float) -> tuple[Tensor, Tensor]:
    """(N, P, 2) picture points (units of its side) and the (N, P, 3) points in the camera's frame."""
    points = face.points(state.identity, state.expression)
    seen = points @ state.rotation.transpose(1, 2) + state.translation[:, None]
    return focal * seen[..., :2] / seen[..., 2:].clamp_min(1e-3) + 0.5, seen


def visibility(face: LinearFace, state: State, seen: Tensor) -> Tensor:
    """(N, P) weights in [0, 1]: 1 where the surface faces the camera, 0 from 15 degrees beyond edge-on."""
    normals = face.normals @ state.rotation.transpose(1, 2)
    towards = -(normals * torch.nn.functional.normalize(seen, dim=-1)).sum(-1)
    return ((towards + 0.26) / 0.52).clamp(0, 1)


def landmark_cost(face: LinearFace, state: State, observed: Tensor, weights: Tensor, focal: float, t: Terms) -> Tensor:
    """(N,) data term. observed (N, P, 2); weights (N, P): 0 leaves a landmark out."""
    uv, _ = project(face, state, focal)
    square = ((uv - observed) ** 2).sum(-1) / t.noise**2
    return (weights * square / (1 + square / t.outlier**2)).sum(-1) / t.correlated


def landmark_normal(
    face: LinearFace, state: State, observed: Tensor, weights: Tensor, focal: float, t: Terms
) -> Normal:
    """Normal equations of :func:`landmark_cost`, with iteratively reweighted least squares for rho."""
    uv, seen = project(face, state, focal)
    count, points = uv.shape[:2]
    difference = (uv - observed) / t.noise
    robust = (1 + (difference**2).sum(-1) / t.outlier**2) ** -2
    root = (weights * robust / t.correlated).sqrt()
    x, y, depth = seen.unbind(-1)
    scale = focal / depth.clamp_min(1e-3) / t.noise
    zero = torch.zeros_like(scale)
    # (N, P, 2, 3): how picture points move with camera-frame points
    drop = torch.stack([scale, zero, -scale * x / depth, zero, scale, -scale * y / depth], dim=-1).unflatten(-1, (2, 3))
    drop = drop * root[..., None, None]
    basis = torch.cat([face.identity, face.expression]).permute(1, 2, 0)  # (P, 3, I + E)
    codes = (drop @ state.rotation[:, None]).transpose(0, 1).reshape(points, count * 2, 3) @ basis
    turned = seen - state.translation[:, None]
    jacobian = torch.cat(
        [codes.reshape(points, count, 2, -1).transpose(0, 1), -drop @ skew(turned), drop], dim=-1
    ).flatten(1, 2)
    residual = (difference * root[..., None]).flatten(1)
    transposed = jacobian.transpose(1, 2)
    return Normal(transposed @ jacobian, (transposed @ residual.unsqueeze(-1)).squeeze(-1))


def identity_prior(state: State, prior: Prior) -> tuple[Tensor, Tensor, Tensor]:
    """Cost (N,), gradient (N, I) and second derivative (N, I) of the identity's prior."""
    stiff = prior.identity_spread**-2
    off = state.identity - prior.identity
    return (stiff * off**2).sum(-1), stiff * off, stiff.expand_as(off)


def expression_prior(state: State, prior: Prior, t: Terms) -> tuple[Tensor, Tensor, Tensor]:
    """Cost (N,), gradient (N, E) and second derivative (N, E) of the expression's prior and its walls."""
    e, stiff = state.expression, prior.expression_spread**-2
    off, beyond = e - prior.expression, e - e.clamp(0, 1)
    cost = (stiff * (off**2 + t.wall * beyond**2)).sum(-1)
    return cost, stiff * (off + t.wall * beyond), stiff * (1 + t.wall * (beyond != 0))
