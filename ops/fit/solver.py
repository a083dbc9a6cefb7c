"""Levenberg and Marquardt's method for many problems at once, and the face fit as one of them.

Every problem of a batch has its own damping; a step that does not lower a problem's energy is taken back for that
problem alone, so the others are not held up, and each result is what the problem would have got by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ops.fit import energy
from ops.fit.energy import Prior, State, Terms
from ops.fit.linear import LinearFace


class Movable(Protocol):
    """B problems' unknowns, as the solver moves them."""

    def moved(self, step: Tensor) -> Any:
        """After a step (B, K)."""

    def where(self, mask: Tensor, other: Any) -> Any:
        """These where ``mask`` (B,) holds, the others elsewhere."""


M = TypeVar("M", bound=Movable)
S = TypeVar("S")


@dataclass(frozen=True)
class Solution:
    """The state of N faces at the minimum.

    Attributes:
        state: with the expression within [0, 1].
        residual: (N,) root mean square distance of the landmarks, weighted by their visibility, units of the side.
        converged: (N,) whether the energy stopped falling, and is finite.
        steps: (N,) iterations until then.
        weights: (N, P) of the landmarks at the end.
    """

    state: State
    residual: Tensor
    converged: Tensor
    steps: Tensor
    weights: Tensor


def levenberg_marquardt(
    start: M,
    cost: Callable[[M], Tensor],
    linearise: Callable[[M], S],
    step: Callable[[S, Tensor], Tensor],
    max_steps: int,
    tolerance: float = 1e-4,
) -> tuple[M, Tensor, Tensor]:
    """Minimise B energies.

    Args:
        start: first guess.
        cost: a state to its (B,) energies; not finite counts as a bad step.
        linearise: what ``step`` needs at a state.
        step: that and the (B,) damping, a factor of the diagonal, to the step for ``moved``.
        max_steps: at most.
        tolerance: an accepted step that lowers the energy by a smaller share is the last.

    Returns:
        the state, (B,) converged, (B,) steps taken.
    """
    state, now = start, cost(start)
    damping = torch.full_like(now, 1e-3)
    done, steps = ~torch.isfinite(now), torch.zeros_like(now, dtype=torch.long)
    failed = done.clone()
    for _ in range(max_steps):
        if bool(done.all()):
            break
        trial = state.moved(step(linearise(state), damping))
        then = cost(trial)
        better = (then <= now) & ~done
        settled = better & (now - then <= tolerance * now + 1e-9)
        steps = steps + (~done).long()
        state, now = trial.where(better, state), torch.where(better, then, now)
        damping = torch.where(better, damping / 8, damping * 8).clamp(1e-9, 1e9)
        done = done | settled | (damping >= 1e9)
    return state, done & ~failed, steps


def fit(
    face: LinearFace,
    observed: Tensor,
    rotation: Tensor,
    translation: Tensor,
    focal: float,
    terms: Terms,
    *,
    weights: Tensor | None = None,
    prior: Prior | None = None,
    rounds: int = 2,
    max_steps: int = 20,
) -> Solution:
    """Identity, expression and pose of N independent faces.

    Which landmarks are visible is decided from the pose that a round begins with; only the last round doubts them.

    Args:
        face: P points, linear in their codes.
        observed: (N, P, 2) landmarks in units of the picture's side, [0, 1] inside it.
        rotation, translation: (N, 3, 3) and (N, 3), head to camera: the first guess.
        focal: in units of the picture's side.
        terms: weights of the energy.
        weights: (N, P), further weights of the landmarks.
        prior: what is expected of the codes, and the first guess of them; none: what is expected of anybody.
        rounds: how often visibility is decided anew.
        max_steps: of a round.

    A face whose landmarks are not finite comes back at its start, not converged.
    """
    usable = torch.isfinite(observed).all(-1).all(-1) & torch.isfinite(translation).all(-1)
    observed = torch.where(usable[:, None, None], observed, torch.full_like(observed, 0.5))
    eye = rotation.new_tensor(energy.FRONT)
    state = State(
        rotation.new_zeros(len(rotation), len(face.identity)),
        rotation.new_zeros(len(rotation), len(face.expression)),
        torch.where(usable[:, None, None], rotation, eye),
        torch.where(usable[:, None], translation, translation.new_tensor([0.0, 0.0, 2.7])),
    )
    if prior is None:
        prior = energy.crowd(state, terms)
    state = replace(state, identity=prior.identity.to(observed), expression=prior.expression.to(observed))
    given = torch.ones_like(observed[..., 0]) if weights is None else weights
    taken = torch.zeros(len(rotation), dtype=torch.long, device=rotation.device)
    converged = usable
    for number in range(rounds):
        shown = given * energy.visibility(face, state, energy.project(face, state, focal)[1])
        problem = FaceProblem(face, observed, shown, focal, forgiving(terms, rounds - 1 - number), prior)
        state, converged, steps = levenberg_marquardt(state, problem.cost, problem.linearise, problem.step, max_steps)
        taken = taken + steps
    state = state.bounded()
    residual = weighted_rms(energy.project(face, state, focal)[0] - observed, shown)
    return Solution(state, residual, converged & usable & torch.isfinite(residual), taken, shown)


def forgiving(terms: Terms, rounds_left: int) -> Terms:
    """Terms that hardly doubt a landmark before the last round: closed lids and an open jaw look wrong at first."""
    return replace(terms, outlier=terms.outlier * 5) if rounds_left else terms


@dataclass(frozen=True)
class FaceProblem:
    """N independent faces as levenberg_marquardt wants them."""

    face: LinearFace
    observed: Tensor
    weights: Tensor
    focal: float
    terms: Terms
    prior: Prior

    def cost(self, state: State) -> Tensor:
        """(N,) energies."""
        data = energy.landmark_cost(self.face, state, self.observed, self.weights, self.focal, self.terms)
        known = energy.identity_prior(state, self.prior)[0] + energy.expression_prior(state, self.prior, self.terms)[0]
        return data + known

    def linearise(self, state: State) -> energy.Normal:
        """Normal equations with the priors on the diagonal."""
        found = energy.landmark_normal(self.face, state, self.observed, self.weights, self.focal, self.terms)
        _, gradient_i, stiff_i = energy.identity_prior(state, self.prior)
        _, gradient_e, stiff_e = energy.expression_prior(state, self.prior, self.terms)
        rest = state.translation.new_zeros(len(state.translation), 6)
        gradient = found.gradient + torch.cat([gradient_i, gradient_e, rest], dim=1)
        return replace(
            found,
            matrix=found.matrix + torch.diag_embed(torch.cat([stiff_i, stiff_e, rest], dim=1)),
            gradient=gradient,
        )

    @staticmethod
    def step(system: energy.Normal, damping: Tensor) -> Tensor:
        """(N, K) steps; a matrix that is not positive definite gives none."""
        diagonal = system.matrix.diagonal(dim1=1, dim2=2)
        damped = system.matrix + torch.diag_embed(diagonal * damping[:, None] + 1e-9)
        factor, info = torch.linalg.cholesky_ex(damped)
        found = torch.cholesky_solve(-system.gradient.unsqueeze(-1), factor).squeeze(-1)
        return torch.where((info == 0)[:, None], found, torch.zeros_like(found))


def weighted_rms(difference: Tensor, weights: Tensor) -> Tensor:
    """(N,) root mean square length of (N, P, 2) differences, weighted by (N, P)."""
    square = (difference**2).sum(-1)
    return ((weights * square).sum(-1) / weights.sum(-1).clamp_min(1e-9)).sqrt()
