"""Fitting a shot of a clip: one identity for all frames, expression and motion that change smoothly.

To the energy of single faces comes, between each two frames next to one another,

    |e_t - e_t-1|^2 / s_e^2 + |log(R_t R_t-1^T)|^2 / s_r^2 + |x_t - x_t-1|^2 / s_x^2

all divided by the time between them, as for a random walk. The whole is minimised at once. Its normal equations are an
arrow: the identity meets every frame, a frame meets only its neighbours, so elimination frame by frame solves them
exactly in time proportional to the length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ops.fit import energy
from ops.fit.energy import Normal, Prior, State, Terms
from ops.fit.linear import LinearFace
from ops.fit.solver import FaceProblem, Solution, forgiving, levenberg_marquardt, weighted_rms

CHUNK = 64  # frames linearised at once: bounds memory


@dataclass(frozen=True)
class Smoothness:
    """Standard deviations of the change in one frame.

    Attributes:
        expression: units. rotation: radians. translation: world units.
        alike: correlation of the errors of two frames' landmarks: T frames tell no more of the identity than
            T / (1 + (T - 1) alike) independent pictures would.
    """

    expression: float
    rotation: float
    translation: float
    alike: float

    def stiffness(self, units: int, like: Tensor) -> Tensor:
        """(units + 6,) inverse variances."""
        parts = [(self.expression, units), (self.rotation, 3), (self.translation, 3)]
        return torch.cat([like.new_full((size,), sigma**-2) for sigma, size in parts])


def log_rotation(rotation: Tensor) -> Tensor:
    """(N, 3, 3) rotations by less than pi to (N, 3) axis-angles."""
    axis = torch.stack(
        [
            rotation[:, 2, 1] - rotation[:, 1, 2],
            rotation[:, 0, 2] - rotation[:, 2, 0],
            rotation[:, 1, 0] - rotation[:, 0, 1],
        ],
        dim=-1,
    )
    sine = axis.norm(dim=-1) / 2
    angle = torch.atan2(sine, (rotation.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2)
    return axis * torch.where(sine > 1e-9, angle / (2 * sine).clamp_min(1e-18), torch.full_like(sine, 0.5))[:, None]


def solve_chain(diagonal: Tensor, below: Tensor, right: Tensor) -> Tensor:
    """Solve a symmetric positive definite block-tridiagonal system.

    Args:
        diagonal: (T, n, n) blocks on the diagonal.
        below: (T - 1, n, n) blocks under it: row t + 1, column t.
        right: (T, n, m) right-hand sides.

    Returns:
        (T, n, m) solutions.

    Raises:
        torch.linalg.LinAlgError: the matrix is not positive definite.
    """
    factors: list[Tensor] = []
    carried: list[Tensor] = []
    forward: list[Tensor] = []
    for t in range(len(diagonal)):
        block, value = diagonal[t], right[t]
        if t:
            block = block - carried[-1].T @ carried[-1]
            value = value - carried[-1].T @ forward[-1]
        factor = torch.linalg.cholesky(block)
        factors.append(factor)
        forward.append(torch.linalg.solve_triangular(factor, value, upper=False))
        if t + 1 < len(diagonal):
            carried.append(torch.linalg.solve_triangular(factor, below[t].T, upper=False))
    found = [torch.empty(0)] * len(diagonal)
    for t in reversed(range(len(diagonal))):
        value = forward[t] if t + 1 == len(diagonal) else forward[t] - carried[t] @ found[t + 1]
        found[t] = torch.linalg.solve_triangular(factors[t].T, value, upper=True)
    return torch.stack(found)


@dataclass(frozen=True)
class Arrow:
    """The normal equations of a shot: identity with itself, with each frame, frames with their neighbours."""

    identity: Tensor  # (I, I)
    cross: Tensor  # (T, n, I)
    frames: Tensor  # (T, n, n)
    below: Tensor  # (T - 1, n, n)
    gradient_identity: Tensor  # (I,)
    gradient_frames: Tensor  # (T, n)


@dataclass(frozen=True)
class ShotProblem:
    """One shot as levenberg_marquardt wants it: a batch of one problem, whose state has a row a frame.

    Attributes:
        faces: the frames as independent faces.
        stiffness: (n,) of the change in one frame.
        gaps: (T - 1,) frames from each to the next.
        belief: weight of the identity's prior; more than 1 where the frames repeat one another's errors.
    """

    faces: FaceProblem
    stiffness: Tensor
    gaps: Tensor
    belief: float

    def change(self, state: State) -> Tensor:
        """(T - 1, n) from each frame to the next."""
        turn = log_rotation(state.rotation[1:] @ state.rotation[:-1].transpose(1, 2))
        return torch.cat([state.expression.diff(dim=0), turn, state.translation.diff(dim=0)], dim=1)

    def cost(self, state: State) -> Tensor:
        """(1,) energy."""
        one = self.faces
        total = energy.landmark_cost(one.face, state, one.observed, one.weights, one.focal, one.terms).sum()
        total = (
            total
            + self.belief * energy.identity_prior(state, one.prior)[0][0]
            + energy.expression_prior(state, one.prior, one.terms)[0].sum()
        )
        return (total + (self.change(state) ** 2 * self.stiffness / self.gaps[:, None]).sum())[None]

    def linearise(self, state: State) -> Arrow:
        """Normal equations, with the axis-angle between frames taken as linear in both frames' turns."""
        size = state.identity.shape[1]
        n = len(self.stiffness)
        pieces = [self._frames(state, slice(i, i + CHUNK), size) for i in range(0, len(state.identity), CHUNK)]
        identity = torch.stack([p.identity for p in pieces]).sum(0)
        gradient_identity = torch.stack([p.gradient_identity for p in pieces]).sum(0)
        cross, frames, gradient = (
            torch.cat([getattr(p, name) for p in pieces]) for name in ("cross", "frames", "gradient_frames")
        )
        _, slope, stiff = energy.identity_prior(state, self.faces.prior)
        pull = self.stiffness / self.gaps[:, None]  # (T - 1, n)
        force = pull * self.change(state)
        frames, gradient = frames.clone(), gradient.clone()
        frames[1:] += torch.diag_embed(pull)
        frames[:-1] += torch.diag_embed(pull)
        gradient[1:] += force
        gradient[:-1] -= force
        below = -torch.diag_embed(pull) if len(pull) else frames.new_zeros(0, n, n)
        return Arrow(
            identity + self.belief * torch.diag(stiff[0]),
            cross,
            frames,
            below,
            gradient_identity + self.belief * slope[0],
            gradient,
        )

    def _frames(self, state: State, part: slice, size: int) -> Arrow:
        """The frames' own terms of a part of the shot."""
        one = self.faces
        some = State(state.identity[part], state.expression[part], state.rotation[part], state.translation[part])
        found: Normal = energy.landmark_normal(
            one.face, some, one.observed[part], one.weights[part], one.focal, one.terms
        )
        _, slope, stiff = energy.expression_prior(some, one.prior.part(part), one.terms)
        rest = slope.new_zeros(len(slope), 6)
        return Arrow(
            found.matrix[:, :size, :size].sum(0),
            found.matrix[:, size:, :size],
            found.matrix[:, size:, size:] + torch.diag_embed(torch.cat([stiff, rest], dim=1)),
            slope.new_zeros(0),
            found.gradient[:, :size].sum(0),
            found.gradient[:, size:] + torch.cat([slope, rest], dim=1),
        )

    @staticmethod
    def step(system: Arrow, damping: Tensor) -> Tensor:
        """(T, I + n) step; none where the damped matrix is not positive definite."""
        factor = 1 + damping[0]

        def damp(matrix: Tensor) -> Tensor:
            return matrix + torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1) * (factor - 1) + 1e-9)

        count, size = len(system.frames), len(system.identity)
        try:
            right = torch.cat([system.cross, -system.gradient_frames.unsqueeze(-1)], dim=-1)
            solved = solve_chain(damp(system.frames), system.below, right)
            through, own = solved[..., :size], solved[..., size:]
            across = system.cross.transpose(1, 2)
            schur = damp(system.identity) - (across @ through).sum(0)
            moved = torch.linalg.solve(schur, -system.gradient_identity.unsqueeze(-1) - (across @ own).sum(0))
        except torch.linalg.LinAlgError:
            return system.gradient_frames.new_zeros(count, size + system.frames.shape[-1])
        frames = (own - through @ moved).squeeze(-1)
        return torch.cat([moved.T.expand(count, -1), frames], dim=1)


def fit_shot(
    face: LinearFace,
    observed: Tensor,
    start: State,
    gaps: Tensor,
    focal: float,
    terms: Terms,
    smooth: Smoothness,
    *,
    weights: Tensor,
    prior: Prior | None = None,
    rounds: int = 2,
    max_steps: int = 20,
) -> Solution:
    """One identity and T frames' expressions and poses.

    Args:
        face: P points, linear in their codes.
        observed: (T, P, 2) finite landmarks, units of the square's side.
        start: T rows; the mean of their identities is the first guess.
        gaps: (T - 1,) frames from each to the next.
        focal: of the square, in its sides.
        terms, smooth: weights of the energy.
        weights: (T, P) of the landmarks.
        prior: what is expected of the frames; of the identity, the mean of what is.
        rounds, max_steps: as in :func:`ops.fit.solver.fit`.

    Returns:
        the solution, one row a frame; ``identity`` is the same in all, ``converged`` is the shot's.
    """
    state = replace(start, identity=start.identity.mean(0, keepdim=True).expand_as(start.identity).clone())
    if prior is None:
        prior = energy.crowd(state, terms)
    prior = replace(prior, identity=prior.identity.mean(0, keepdim=True).expand_as(prior.identity))
    stiffness = smooth.stiffness(state.expression.shape[1], state.translation)
    belief = 1 + (len(observed) - 1) * smooth.alike
    steps = torch.zeros(1, dtype=torch.long)
    converged = torch.ones(1, dtype=torch.bool)
    shown = weights
    for number in range(rounds):
        shown = weights * energy.visibility(face, state, energy.project(face, state, focal)[1])
        problem = ShotProblem(
            FaceProblem(face, observed, shown, focal, forgiving(terms, rounds - 1 - number), prior),
            stiffness,
            gaps.to(observed),
            belief,
        )
        state, converged, taken = levenberg_marquardt(state, problem.cost, problem.linearise, problem.step, max_steps)
        steps = steps + taken
    state = state.bounded()
    residual = weighted_rms(energy.project(face, state, focal)[0] - observed, shown)
    count = len(observed)
    finite = torch.isfinite(residual)
    return Solution(state, residual, converged.expand(count) & finite, steps.expand(count), shown)
