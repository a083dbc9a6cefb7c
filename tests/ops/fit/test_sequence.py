"""Fitting a shot: the arrow's elimination against a dense solve, and what smoothness buys."""

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ops.fit.energy import State
from ops.fit.sequence import ShotProblem, Smoothness, fit_shot, log_rotation, solve_chain
from ops.fit.solver import FaceProblem, fit
from tests.ops.fit.faces import FOCAL, TERMS, little_face, seen_by, some_prior, some_states, turned

SMOOTH = Smoothness(expression=0.05, rotation=0.02, translation=0.01, alike=0.0)
N = 3 + 6  # expressions and motion of the little face


def film(face, frames=30):
    """One person who nods and talks: (T,) states."""
    time = torch.linspace(0, 1, frames, dtype=torch.float64)
    wave = torch.stack([(2 * torch.pi * k * time).sin() for k in (0.5, 1, 1.5)], dim=1)
    identity = some_states(face, 1).identity.expand(frames, -1)
    move = torch.tensor([0.0, 0.0, 2.7], dtype=torch.float64) + 0.03 * wave
    return State(identity, 0.4 + 0.3 * wave, turned(0.3 * wave), move)


def shot_problem(frames=5, gaps=None):
    face = little_face()
    state = some_states(face, frames)
    state = replace(state, identity=state.identity[:1].expand(frames, -1).clone())
    observed = seen_by(face, film(face, frames))
    gaps = torch.ones(frames - 1, dtype=torch.float64) if gaps is None else gaps
    prior = some_prior(frames)
    prior = replace(prior, identity=prior.identity[:1].expand(frames, -1))
    faces = FaceProblem(face, observed, torch.ones(frames, 60, dtype=torch.float64), FOCAL, TERMS, prior)
    return ShotProblem(faces, SMOOTH.stiffness(3, observed), gaps, 2.0), state


def test_a_chain_is_solved_as_the_dense_system():
    rng = torch.Generator().manual_seed(0)
    root = torch.randn(24, 24, generator=rng, dtype=torch.float64)
    dense = root @ root.T + 24 * torch.eye(24)
    band = (torch.arange(24)[:, None] // 4 - torch.arange(24) // 4).abs() <= 1
    dense = dense * band
    diagonal = torch.stack([dense[i : i + 4, i : i + 4] for i in range(0, 24, 4)])
    below = torch.stack([dense[i + 4 : i + 8, i : i + 4] for i in range(0, 20, 4)])
    right = torch.randn(6, 4, 2, generator=rng, dtype=torch.float64)
    found = solve_chain(diagonal, below, right)
    torch.testing.assert_close(found.reshape(24, 2), torch.linalg.solve(dense, right.reshape(24, 2)))


def test_the_arrow_is_solved_as_the_dense_system():
    problem, state = shot_problem()
    arrow = problem.linearise(state)
    dense = torch.zeros(4 + 5 * N, 4 + 5 * N, dtype=torch.float64)
    dense[:4, :4] = arrow.identity
    for t in range(5):
        here = slice(4 + t * N, 4 + (t + 1) * N)
        dense[here, here] = arrow.frames[t]
        dense[here, :4], dense[:4, here] = arrow.cross[t], arrow.cross[t].T
        if t < 4:
            after = slice(4 + (t + 1) * N, 4 + (t + 2) * N)
            dense[after, here], dense[here, after] = arrow.below[t], arrow.below[t].T
    dense += torch.diag(dense.diagonal() * 0.1)
    expected = torch.linalg.solve(dense, -torch.cat([arrow.gradient_identity, arrow.gradient_frames.flatten()]))
    step = problem.step(arrow, torch.tensor([0.1], dtype=torch.float64))
    torch.testing.assert_close(step[:, 4:].flatten(), expected[4:], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(step[2, :4], expected[:4], rtol=1e-5, atol=1e-7)


def test_the_gradient_of_a_still_shot_is_that_of_its_energy():
    """Where frames hardly differ, the axis-angle between them is linear in both."""
    problem, state = shot_problem(gaps=torch.tensor([1.0, 2.0, 1.0, 5.0], dtype=torch.float64))
    state = replace(state, rotation=state.rotation[:1].expand(5, 3, 3).clone())
    step = torch.zeros(5, 4 + N, dtype=torch.float64, requires_grad=True)
    shared = torch.cat([step[:1, :4].expand(5, 4), step[:, 4:]], dim=1)
    (expected,) = torch.autograd.grad(problem.cost(state.moved(shared)).sum(), step)
    arrow = problem.linearise(state)
    torch.testing.assert_close(2 * arrow.gradient_identity, expected[0, :4], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(2 * arrow.gradient_frames, expected[:, 4:], rtol=1e-6, atol=1e-7)


def test_axis_angles_against_scipy():
    given = np.random.default_rng(0).normal(size=(50, 3))
    given[0] = 0
    found = log_rotation(torch.from_numpy(Rotation.from_rotvec(given).as_matrix()))
    np.testing.assert_allclose(found, Rotation.from_rotvec(given).as_rotvec(), atol=1e-7)


def test_a_shot_has_one_identity_and_less_noise_than_its_frames():
    face = little_face()
    truth = film(face)
    observed = seen_by(face, truth)
    rng = torch.Generator().manual_seed(4)
    noisy = observed + 0.02 * torch.randn(observed.shape, generator=rng, dtype=torch.float64)
    ahead = turned(torch.zeros(30, 3)), torch.tensor([[0.0, 0.0, 2.7]], dtype=torch.float64).repeat(30, 1)
    weights = torch.ones(30, 60, dtype=torch.float64)
    noise = replace(TERMS, noise=0.02)
    single = fit(face, noisy, *ahead, FOCAL, noise, weights=weights)
    gaps = torch.ones(29, dtype=torch.float64)
    shot = fit_shot(face, noisy, single.state, gaps, FOCAL, noise, SMOOTH, weights=weights)
    assert shot.converged.all()
    assert (shot.state.identity == shot.state.identity[:1]).all()
    for name, share in (("identity", 0.8), ("expression", 0.8), ("rotation", 0.8)):
        wrong, right = ((getattr(s.state, name) - getattr(truth, name)).square().mean().sqrt() for s in (single, shot))
        assert right < share * wrong, name
    change = lambda s: s.state.expression.diff(dim=0).square().mean()  # noqa: E731
    assert change(shot) < 0.7 * change(single)


def test_a_shot_of_one_frame_is_a_picture():
    face = little_face()
    observed = seen_by(face, some_states(face, 1))
    weights = torch.ones(1, 60, dtype=torch.float64)
    ahead = turned(torch.zeros(1, 3)), torch.tensor([[0.0, 0.0, 2.7]], dtype=torch.float64)
    picture = fit(face, observed, *ahead, FOCAL, TERMS, weights=weights)
    shot = fit_shot(face, observed, picture.state, torch.empty(0), FOCAL, TERMS, SMOOTH, weights=weights)
    torch.testing.assert_close(shot.state.expression, picture.state.expression, atol=5e-3, rtol=0)
    torch.testing.assert_close(shot.residual, picture.residual, atol=1e-4, rtol=0)
