"""The optional photometric term: shading that the fitted surface should explain.

    E_p = w / S sum_pixels rho(|I - B(n) L|^2 / s^2)

Over the skin of the face, one colour under smooth light: the picture is nine spherical harmonics B of the normal n by
coefficients L, which for a given surface are the least squares solution. So no albedo model is needed, and shading
pulls on what landmarks cannot see: the shape between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from models.camera import intrinsics, pack_label
from models.parametric.person import Person
from models.render import raster
from models.render.texture import vertex_normals
from ops.fit import energy
from ops.fit.energy import Prior, State, Terms
from ops.fit.solver import FaceProblem, Solution, weighted_rms
from ops.fit.target import Target

REACH = 0.05  # world units (19 mm) around FaceMesh's points that count as face; unpublished: our choice
COLOUR_NOISE = 0.05  # of the colours' range; beyond, a pixel is hair, glasses or shadow; unpublished: our choice
RIDGE = 1e-3  # of the light's least squares
STRIDE = (0.2, 0.05, 0.01, 0.01)  # of identity, expression, turn (radians), shift (world units); our choice
RATE = 0.1  # of Adam, in strides; unpublished: our choice


@lru_cache(maxsize=1)
def face_triangles(model: Person) -> Tensor:
    """(F, 3) triangles of the skin around FaceMesh's points."""
    points = model.facemesh.on(model.mean[None], model.triangles)[0]
    near = torch.cdist(model.mean, points).amin(1) < REACH
    skin = near & (model.parts == 0)
    return model.triangles[skin[model.triangles].all(-1)]


def harmonics(normals: Tensor) -> Tensor:
    """(..., 3) unit normals to (..., 9) spherical harmonics to the second order, up to constant factors."""
    x, y, z = normals.unbind(-1)
    one = torch.ones_like(x)
    return torch.stack([one, x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], dim=-1)


def light(basis: Tensor, colours: Tensor, weights: Tensor) -> Tensor:
    """(N, 9, 3) coefficients that explain (N, Q, 3) colours best by (N, Q, 9) harmonics, pixels weighted by (N, Q)."""
    weighted = basis * weights.unsqueeze(-1)
    matrix = weighted.transpose(1, 2) @ basis
    ridge = RIDGE * weights.sum(1).clamp_min(1)[:, None, None] * torch.eye(9, dtype=basis.dtype, device=basis.device)
    return torch.linalg.solve(matrix + ridge, weighted.transpose(1, 2) @ colours)


def label_of(state: State, focal: float) -> Tensor:
    """(N, 25) camera labels in the head frame, differentiable."""
    inverse = state.rotation.transpose(1, 2)
    place = -inverse @ state.translation.unsqueeze(-1)
    bottom = state.rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(inverse), 1, 4)
    pose = torch.cat([torch.cat([inverse, place], dim=2), bottom], dim=1)
    return pack_label(pose, intrinsics(focal).to(pose))


@dataclass(frozen=True)
class Shading:
    """The term for N pictures (N, S, S, 3) in [0, 1]."""

    model: Person
    pictures: Tensor
    focal: float
    weight: float

    def cost(self, state: State) -> Tensor:
        """(N,) energies, differentiable in the state; visibility and light are those of the state."""
        size = self.pictures.shape[1]
        triangles = face_triangles(self.model)
        vertices = self.model.vertices(state.identity.float(), state.expression.float())
        screen = raster.to_screen(vertices, label_of(state, self.focal).float(), size, size)
        seen = raster.rasterise(screen, triangles, size, size)
        normals = raster.interpolate(vertex_normals(vertices, triangles), triangles, seen).flatten(1, 2)
        basis = harmonics(torch.nn.functional.normalize(normals, dim=-1))
        colours = self.pictures.flatten(1, 2).to(basis)
        mask = seen.mask.flatten(1).to(basis)
        with torch.no_grad():
            coefficients = light(basis, colours, mask)
            for _ in range(2):  # again without what the first guess cannot explain
                trust = (1 + self._square(basis, colours, coefficients)) ** -2
                coefficients = light(basis, colours, mask * trust)
        square = self._square(basis, colours, coefficients)
        return self.weight * (mask * square / (1 + square)).sum(1) / mask.sum(1).clamp_min(1)

    @staticmethod
    def _square(basis: Tensor, colours: Tensor, coefficients: Tensor) -> Tensor:
        return ((basis @ coefficients - colours) ** 2).mean(-1) / COLOUR_NOISE**2


def refine(
    goal: Target,
    solution: Solution,
    observed: Tensor,
    pictures: Tensor,
    focal: float,
    terms: Terms,
    weight: float,
    steps: int,
    prior: Prior,
) -> Solution:
    """Go on from a fit to landmarks with the photometric term, by Adam.

    Args:
        goal: what is fitted.
        solution: of the landmarks; faces that did not converge stay as they are.
        observed: (N, 468, 2) landmarks, units of the picture's side.
        pictures: (N, S, S, 3) in [0, 1], the squares that the landmarks lie in.
        focal, terms: as in :func:`ops.fit.solver.fit`.
        weight: of the term, against the others.
        steps: of Adam; a face keeps the step with the least energy.
        prior: what is expected of the codes.
    """
    problem = FaceProblem(goal.face, torch.nan_to_num(observed), solution.weights, focal, terms, prior)
    shading = Shading(goal.model, pictures, focal, weight)
    sizes = (solution.state.identity.shape[1], solution.state.expression.shape[1], 3, 3)
    stride = torch.cat([pictures.new_full((n,), s, dtype=torch.float64) for n, s in zip(sizes, STRIDE)])
    step = torch.zeros(len(observed), sum(sizes), dtype=torch.float64, device=observed.device, requires_grad=True)
    adam = torch.optim.Adam([step], lr=RATE)
    best = solution.state
    least = torch.full((len(observed),), torch.inf, dtype=torch.float64, device=observed.device)
    for _ in range(steps + 1):
        state = solution.state.moved(step * stride).bounded()
        cost = problem.cost(state) + shading.cost(state).double()
        with torch.no_grad():
            better = solution.converged & (cost < least)
            detached = State(*(value.detach() for value in vars(state).values()))
            best, least = detached.where(better, best), torch.where(better, cost, least)
        adam.zero_grad()
        torch.where(torch.isfinite(cost), cost, torch.zeros_like(cost)).sum().backward()
        assert step.grad is not None
        step.grad = torch.nan_to_num(step.grad)
        adam.step()
    residual = weighted_rms(energy.project(goal.face, best, focal)[0] - observed, solution.weights)
    return replace(solution, state=best, residual=residual)
