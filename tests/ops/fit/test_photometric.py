"""Shading against a surface and a light that are known."""

import torch

from models.render import raster
from models.render.texture import vertex_normals
from ops.curate.camera import CROP_FOCAL
from ops.fit import energy
from ops.fit.energy import FRONT, State, Terms, crowd
from ops.fit.photometric import Shading, face_triangles, harmonics, label_of, light, refine
from ops.fit.solver import fit
from ops.fit.target import target

SIDE = 64
LIGHT = torch.tensor([0.5, 0.12, 0.15, 0.2, 0.02, 0.0, 0.03, 0.0, 0.03])[:, None] * torch.tensor([1.0, 0.75, 0.6])
# Landmarks that are hardly trusted: shading has to do the work.
TERMS = Terms(noise=0.02, correlated=30.0, outlier=1e3, expression=0.2, wall=20.0)


def person(identity):
    return State(
        identity.double()[None],
        torch.zeros(1, 52, dtype=torch.float64),
        torch.tensor(FRONT, dtype=torch.float64)[None],
        torch.tensor([[0.0, 0.0, 2.7]], dtype=torch.float64),
    )


def picture(state):
    """(1, S, S, 3): the face's skin under the light, grey elsewhere."""
    model = target().model
    triangles = face_triangles(model)
    vertices = model.vertices(state.identity.float(), state.expression.float())
    seen = raster.rasterise(
        raster.to_screen(vertices, label_of(state, CROP_FOCAL).float(), SIDE, SIDE), triangles, SIDE, SIDE
    )
    normals = raster.interpolate(vertex_normals(vertices, triangles), triangles, seen)
    colours = harmonics(torch.nn.functional.normalize(normals, dim=-1)) @ LIGHT
    return torch.where(seen.mask[..., None], colours, torch.full_like(colours, 0.5))


def test_the_light_is_found():
    normals = torch.nn.functional.normalize(torch.randn(1, 500, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = light(harmonics(normals), harmonics(normals) @ LIGHT, torch.ones(1, 500))
    torch.testing.assert_close(found[0], LIGHT, atol=4e-3, rtol=0)


def test_shading_costs_nothing_where_the_surface_is_right_and_more_where_it_is_not():
    truth = person(0.8 * torch.randn(80, generator=torch.Generator().manual_seed(1)))
    shading = Shading(target().model, picture(truth), CROP_FOCAL, 1.0)
    right, wrong = float(shading.cost(truth)), float(shading.cost(person(torch.zeros(80))))
    assert right < 0.002
    assert wrong > 5 * right


def test_the_gradient_points_where_finite_differences_do():
    """Pixels that enter or leave the outline have no derivative, so it is the direction that counts."""
    truth = person(0.8 * torch.randn(80, generator=torch.Generator().manual_seed(1)))
    shading = Shading(target().model, picture(truth), CROP_FOCAL, 1e3)
    at = torch.zeros(80, dtype=torch.float64, requires_grad=True)
    state = person(torch.zeros(80))
    (slope,) = torch.autograd.grad(shading.cost(State(at[None], *list(vars(state).values())[1:])).sum(), at)
    differences = []
    for code in range(6):
        step = torch.zeros(80).index_fill(0, torch.tensor([code]), 0.1)
        differences.append(float(shading.cost(person(step)) - shading.cost(person(-step))) / 0.2)
    assert torch.cosine_similarity(slope[:6], torch.tensor(differences).double(), dim=0) > 0.9


def test_shading_brings_the_surface_nearer_to_the_truth():
    goal = target()
    truth = person(0.8 * torch.randn(80, generator=torch.Generator().manual_seed(1)))
    rng = torch.Generator().manual_seed(2)
    seen = energy.project(goal.face, truth, CROP_FOCAL)[0]
    seen = seen + 0.01 * torch.randn(seen.shape, generator=rng, dtype=torch.float64)
    start = fit(goal.face, seen, truth.rotation, truth.translation, CROP_FOCAL, TERMS)
    image = picture(truth)
    found = refine(goal, start, seen, image, CROP_FOCAL, TERMS, weight=300.0, steps=25, prior=crowd(start.state, TERMS))
    shading = Shading(goal.model, image, CROP_FOCAL, 1.0)
    assert float(shading.cost(found.state)) < 0.5 * float(shading.cost(start.state))
    triangles = face_triangles(goal.model)
    skin = triangles.unique()

    def tilt(state):
        """Mean angle between its normals and the true ones, degrees."""
        normals = [
            vertex_normals(goal.model.vertices(s.identity.float(), s.expression.float()), triangles)[0, skin]
            for s in (state, truth)
        ]
        return torch.rad2deg(torch.acos((normals[0] * normals[1]).sum(-1).clamp(-1, 1))).mean()

    assert tilt(found.state) < 0.75 * tilt(start.state)


def test_a_black_picture_and_a_failed_fit_change_nothing_for_the_worse():
    goal = target()
    truth = person(torch.zeros(80))
    seen = energy.project(goal.face, truth, CROP_FOCAL)[0].repeat(2, 1, 1)
    seen[1] = torch.nan
    start = fit(goal.face, seen, truth.rotation.repeat(2, 1, 1), truth.translation.repeat(2, 1), CROP_FOCAL, TERMS)
    found = refine(
        goal,
        start,
        seen,
        torch.zeros(2, SIDE, SIDE, 3),
        CROP_FOCAL,
        TERMS,
        weight=10.0,
        steps=3,
        prior=crowd(start.state, TERMS),
    )
    assert found.converged.tolist() == [True, False]
    assert float(found.residual[0]) < 0.003
    assert torch.isfinite(found.state.identity).all()
