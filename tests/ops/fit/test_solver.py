"""The solver against finite truths: exact derivatives, exact recovery, faces that do not disturb one another."""

from dataclasses import replace

import pytest
import torch

from ops.fit import energy
from ops.fit.linear import LinearFace, linear_face
from ops.fit.solver import FaceProblem, fit
from tests.ops.fit.faces import FOCAL, TERMS, little_face, seen_by, some_prior, some_states, turned


def start(count):
    return turned(torch.zeros(count, 3)), torch.tensor([[0.0, 0.0, 2.7]], dtype=torch.float64).repeat(count, 1)


def test_the_gradient_is_that_of_the_energy():
    face = little_face()
    state = some_states(face)
    state = replace(state, expression=state.expression * 3 - 0.5)  # some beyond both walls
    observed = seen_by(face, some_states(face, seed=5))
    weights = torch.rand(3, 60, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    problem = FaceProblem(face, observed, weights, FOCAL, replace(TERMS, outlier=3.0), some_prior(3))
    step = torch.zeros(3, 4 + 3 + 6, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(problem.cost(state.moved(step)).sum(), step)
    torch.testing.assert_close(2 * problem.linearise(state).gradient, expected, rtol=1e-6, atol=1e-8)


def test_exact_landmarks_give_the_pose_and_the_points_back():
    face = little_face(points=200)
    truth = some_states(face, 8)
    sure = replace(TERMS, noise=1e-5)
    found = fit(face, seen_by(face, truth), *start(8), FOCAL, sure)
    assert found.converged.all()
    assert found.residual.max() < 1e-4
    angle = (found.state.rotation @ truth.rotation.transpose(1, 2)).diagonal(dim1=1, dim2=2).sum(-1)
    assert torch.rad2deg(torch.acos(((angle - 1) / 2).clamp(-1, 1))).max() < 0.2
    torch.testing.assert_close(found.state.expression, truth.expression, atol=0.02, rtol=0)
    torch.testing.assert_close(found.state.identity, truth.identity, atol=0.1, rtol=0)


def test_a_face_is_fitted_as_if_alone():
    """A hopeless neighbour, and one without landmarks, change nothing."""
    face = little_face()
    observed = seen_by(face, some_states(face, 4))
    alone = fit(face, observed[:1], *start(1), FOCAL, TERMS)
    observed[1] = torch.rand(60, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    observed[2] = torch.nan
    together = fit(face, observed, *start(4), FOCAL, TERMS)
    torch.testing.assert_close(together.state.identity[:1], alone.state.identity, atol=1e-9, rtol=1e-9)
    assert together.converged.tolist()[0] is True
    assert together.converged.tolist()[2:] == [False, True]
    assert together.residual[1] > 20 * together.residual[0]


def test_few_wrong_landmarks_do_not_pull_the_face():
    face = little_face(points=120)
    truth = some_states(face, 2)
    observed = seen_by(face, truth)
    wrong = observed.clone()
    wrong[:, :12] += 0.2
    robust = replace(TERMS, outlier=4.0)
    errors = []
    for terms in (TERMS, robust):
        found = fit(face, wrong, *start(2), FOCAL, terms)
        errors.append((seen_by(face, found.state) - observed)[:, 12:].norm(dim=-1).mean())
    assert errors[1] < 0.2 * errors[0]


def test_landmarks_on_the_far_side_do_not_count():
    face = little_face(points=200)
    truth = replace(some_states(face, 1), rotation=turned([[0.0, 1.2, 0.0]]))
    observed = seen_by(face, truth)
    hidden = energy.visibility(face, truth, energy.project(face, truth, FOCAL)[1])[0] == 0
    assert 20 < hidden.sum() < 120
    guessed = observed.clone()
    guessed[:, hidden] += 0.3
    near = turned([[0.0, 1.1, 0.0]]), torch.tensor([[0.0, 0.0, 2.7]], dtype=torch.float64)
    found = fit(face, guessed, *near, FOCAL, TERMS, rounds=3)
    shown = (seen_by(face, found.state) - observed)[:, ~hidden].norm(dim=-1)
    assert shown.mean() < 0.004


def test_expressions_stay_within_their_range():
    face = little_face()
    truth = replace(some_states(face, 2), expression=torch.tensor([[1.6, 0.5, -0.7]] * 2, dtype=torch.float64))
    found = fit(face, seen_by(face, truth), *start(2), FOCAL, TERMS)
    assert found.state.expression.min() >= 0
    assert found.state.expression.max() <= 1


class ToyModel:
    """Seven vertices, two identities, one expression."""

    identity_size, expression_size = 2, 1
    triangles = torch.tensor([[0, 1, 2], [4, 5, 6]])

    def __init__(self):
        rng = torch.Generator().manual_seed(0)
        self.mean = torch.randn(7, 3, generator=rng)
        self.basis = torch.randn(3, 7, 3, generator=rng)

    def vertices(self, identity, expression):
        return self.mean + (torch.cat([identity, expression], 1) @ self.basis.flatten(1)).unflatten(1, (7, 3))


def test_the_linear_face_is_the_model_at_its_points():
    model = ToyModel()
    weights = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    face = linear_face(model, model.triangles, weights)
    codes = torch.tensor([[0.4, -1.0]]), torch.tensor([[0.7]])
    vertices = model.vertices(*codes)[0]
    expected = torch.stack([(vertices[model.triangles[i]] * weights[i, :, None]).sum(0) for i in range(2)])
    found = face.points(codes[0].double(), codes[1].double())[0]
    torch.testing.assert_close(found, expected.double(), atol=1e-5, rtol=1e-5)
    assert isinstance(face.to(torch.float32), LinearFace)


def test_correspondences_of_another_mesh_are_refused():
    with pytest.raises(ValueError, match="vertex 13, and the face model has 7 vertices"):
        linear_face(ToyModel(), torch.tensor([[0, 1, 13]]), torch.ones(1, 3) / 3)
