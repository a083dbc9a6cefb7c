"""The body fit: shape and six joints from a few points, the direction of the shoulders, and the person's outline.

The head stays where the camera label has it, in the middle of the world; the body is posed about it. The energy is a
sum of squares: key points that should project to where they were seen, the line between the shoulders that should
point as BlazePose's 3-D points do, a surface that should not stick out of the outline (one-sided, for clothes and hair
make the outline wider than the body), and shape and joints that should be plausible.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.func import jvp, vmap

from models import camera as geometry
from models.parametric.anny import chain_transforms, skin
from models.parametric.base import JOINTS
from models.parametric.person import SHAPE, Person, load_person
from ops.fit.solver import levenberg_marquardt

POINTS = ("left_shoulder", "right_shoulder", "left_elbow", "right_elbow")
ARMS_DOWN = 0.62  # radians from the model's rest pose, as people of the studio hold them; unpublished: our choice
# Standard deviations of the joints' turns, radians about x, y, z; unpublished: our choice.
_SPREAD = {"neck": (0.10, 0.15, 0.08), "head": (0.12, 0.20, 0.10), "collar": (0.05, 0.06, 0.08)}
_SPREAD["shoulder"] = (0.20, 0.20, 0.20)
# Where BlazePose sees the left shoulder, from its joint: on top of it and inwards, measured on the studio's people.
_SHOULDER = (-0.045, 0.10, 0.0)
_OUTLINE_POINTS = 240
_ARM = 0.53  # of the way from the shoulder to the wrist lies the elbow: measured on anny's skeleton
_HEAD = 1 + JOINTS.index("head")


@dataclass(frozen=True)
class Terms:
    """Standard deviations of what is measured.

    Attributes:
        shoulder, elbow: of a key point, crop sides.
        direction: of the shoulders' 3-D direction, a unit vector's components.
        outline: of the outline, crop sides.
        outlier: in standard deviations: measurements farther off pull no harder.
    """

    shoulder: float
    elbow: float
    direction: float
    outline: float
    outlier: float


@dataclass(frozen=True)
class Seen:
    """What is measured of N people, in crop coordinates.

    Attributes:
        camera: (N, 25) labels of the crops, head frame.
        points: (N, 4, 2) POINTS; visibility: (N, 4) in [0, 1].
        direction: (N, 3) unit vector from the right to the left shoulder, camera's axes.
        outside: (N, S, S) distance of each cell of ``window`` to the person, crop sides; 0 within and where unknown.
        window: (3,) left, top and side of the square that ``outside`` covers, crop sides.
    """

    camera: Tensor
    points: Tensor
    visibility: Tensor
    direction: Tensor
    outside: Tensor
    window: Tensor


@dataclass(frozen=True)
class Code:
    """(N, 28) shapes and poses, as the solver moves them."""

    values: Tensor

    def moved(self, step: Tensor) -> Code:
        return Code(self.values + step)

    def where(self, mask: Tensor, other: Code) -> Code:
        return Code(torch.where(mask[:, None], self.values, other.values))

    @property
    def shape(self) -> Tensor:
        """(N, 10)."""
        return self.values[:, :SHAPE]

    @property
    def pose(self) -> Tensor:
        """(N, 6, 3) axis-angle of the joints."""
        return self.values[:, SHAPE:].unflatten(1, (len(JOINTS), 3))


@dataclass(frozen=True)
class Solution:
    """N fitted bodies.

    Attributes:
        code: shapes and poses.
        residual: (N,) root mean square distance of the shoulders, by their visibility, crop sides.
        converged: (N,) whether the energy stopped falling, and is finite.
    """

    code: Code
    residual: Tensor
    converged: Tensor


@dataclass(frozen=True)
class Skeleton:
    """The few parts of a Person that the energy looks at, float64: POINTS first, then points of the surface.

    Attributes:
        mean: (4 + P, 3); basis: (10, 4 + P, 3); weights: (4 + P, 7).
        joint_mean: (6, 3); joint_basis: (10, 6, 3).
    """

    mean: Tensor
    basis: Tensor
    weights: Tensor
    joint_mean: Tensor
    joint_basis: Tensor


@lru_cache(maxsize=1)
def skeleton() -> tuple[Person, Skeleton]:
    """The default person and what of it is fitted, loaded once a process."""
    model = load_person()
    below = (model.head_share < 0.9) & (model.mean[:, 1] > -1.1)  # neck, shoulders and chest
    order = torch.randperm(int(below.sum()), generator=torch.Generator().manual_seed(0))[:_OUTLINE_POINTS]
    surface = below.nonzero().squeeze(1)[order.sort().values]
    shoulders, elbows = [], []
    for side in ("left", "right"):
        joint = JOINTS.index(f"shoulder_{side}")
        inwards = torch.tensor(_SHOULDER) * torch.tensor([1.0 if side == "left" else -1.0, 1, 1])
        collar = torch.nn.functional.one_hot(torch.tensor(1 + JOINTS.index(f"collar_{side}")), 7)
        shoulders.append((model.joint_mean[joint] + inwards, model.joint_shape[:, joint], collar))
        arm = model.skinning_weights[:, 1 + joint] > 0.95
        away = (model.mean - model.joint_mean[joint]).norm(dim=-1)
        ring = arm & ((away / away[arm].max() - _ARM).abs() < 0.04)
        elbows.append(tuple(v[..., ring, :].mean(-2) for v in (model.mean, model.shape_basis, model.skinning_weights)))
    mean, basis, weights = (torch.stack(parts, dim=-2).double() for parts in zip(*shoulders, *elbows, strict=True))
    return model, Skeleton(
        torch.cat([mean, model.mean[surface].double()]),
        torch.cat([basis, model.shape_basis[:, surface].double()], dim=1),
        torch.cat([weights, model.skinning_weights[surface].double()]),
        model.joint_mean.double(),
        model.joint_shape.double(),
    )


def usual_pose() -> Tensor:
    """(6, 3) float64: upright, the arms down."""
    pose = torch.zeros(len(JOINTS), 3, dtype=torch.float64)
    pose[JOINTS.index("shoulder_left"), 2] = -ARMS_DOWN
    pose[JOINTS.index("shoulder_right"), 2] = ARMS_DOWN
    return pose


def spread() -> Tensor:
    """(28,) standard deviations of shape and joints."""
    joints = torch.tensor([_SPREAD[name.split("_")[0]] for name in JOINTS], dtype=torch.float64)
    return torch.cat([torch.ones(SHAPE, dtype=torch.float64), joints.flatten()])


def about_the_head(transforms: Tensor) -> Tensor:
    """(N, 7, 4, 4) rest-to-posed transforms seen from the head, which then stays where it is."""
    return torch.linalg.inv(transforms[:, _HEAD : _HEAD + 1]) @ transforms


def posed_parts(body: Skeleton, code: Code) -> tuple[Tensor, Tensor]:
    """(N, 6, 3) joints and (N, 4 + P, 3) POINTS and surface points, posed, head frame."""
    joints = body.joint_mean + torch.einsum("nk,kjx->njx", code.shape, body.joint_basis)
    rest = body.mean + torch.einsum("nk,kpx->npx", code.shape, body.basis)
    transforms = about_the_head(chain_transforms(joints, code.pose))
    moved = (transforms[:, 1:, :3, :3] @ joints.unsqueeze(-1)).squeeze(-1) + transforms[:, 1:, :3, 3]
    return moved, skin(rest, body.weights, transforms)


def residuals(body: Skeleton, code: Code, seen: Seen, terms: Terms) -> Tensor:
    """(N, R) residuals whose squares the fit adds up."""
    joints, parts = posed_parts(body, code)
    shoulders = joints[:, [JOINTS.index("shoulder_left"), JOINTS.index("shoulder_right")]]
    pose, k = geometry.unpack_label(seen.camera)

    def local(points: Tensor) -> Tensor:
        return (points - pose[:, None, :3, 3]) @ pose[:, :3, :3]

    def flat(points: Tensor) -> Tensor:
        at = local(points)
        return (at / at[..., 2:].clamp_min(0.1)) @ k[:, :2].mT

    sigma = flat(parts).new_tensor([terms.shoulder, terms.shoulder, terms.elbow, terms.elbow])
    off = flat(parts[:, :4]) - seen.points
    points = _bounded(off / sigma[:, None], terms.outlier) * seen.visibility.sqrt().unsqueeze(-1)
    line = local(shoulders)
    line = line[:, 0] - line[:, 1]
    sure = seen.visibility[:, :2].amin(1, keepdim=True).sqrt()
    direction = _bounded((line / line.norm(dim=-1, keepdim=True) - seen.direction) / terms.direction, terms.outlier)
    out = _read(seen.outside, (flat(parts[:, 4:]) - seen.window[:2]) / seen.window[2]) / terms.outline
    outline = _bounded(out, terms.outlier) / out.shape[1] ** 0.5  # neighbouring points err as one: all count as one
    usual = torch.cat([torch.zeros(SHAPE, dtype=torch.float64), usual_pose().flatten()]).to(code.values)
    prior = (code.values - usual) / spread().to(code.values)
    return torch.cat([points.flatten(1), direction * sure, outline, prior], dim=1)


def _bounded(residual: Tensor, limit: float) -> Tensor:
    """Residuals that grow no larger than ``limit``, so that an outlier's pull fades."""
    return residual / (1 + (residual / limit) ** 2).sqrt()


def _read(values: Tensor, places: Tensor) -> Tensor:
    """(N, S, S) maps at (N, P, 2) places in [0, 1], bilinear, 0 outside; grid_sample has no forward derivatives."""
    side = values.shape[-1]
    at = places * side - 0.5
    corner = at.detach().floor()
    share = at - corner
    total = torch.zeros_like(at[..., 0])
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = corner[..., 0].long() + dx, corner[..., 1].long() + dy
            inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
            index = y.clamp(0, side - 1) * side + x.clamp(0, side - 1)
            weight = (share[..., 0] if dx else 1 - share[..., 0]) * (share[..., 1] if dy else 1 - share[..., 1])
            total = total + weight * values.flatten(1).gather(1, index) * inside
    return total


def solve(seen: Seen, terms: Terms, max_steps: int) -> Solution:
    """Fit N bodies at once, from the mean body upright with its arms down."""
    _, body = skeleton()
    start = torch.cat([torch.zeros(SHAPE, dtype=torch.float64), usual_pose().flatten()]).expand(len(seen.points), -1)

    def value(code: Code) -> Tensor:
        return residuals(body, code, seen, terms)

    def linearise(code: Code) -> tuple[Tensor, Tensor]:
        def along(direction: Tensor) -> Tensor:
            return jvp(lambda values: value(Code(values)), (code.values,), (direction.expand_as(code.values),))[1]

        columns = vmap(along)(torch.eye(code.values.shape[1]).to(code.values))
        return columns.permute(1, 2, 0), value(code)

    def step(system: tuple[Tensor, Tensor], damping: Tensor) -> Tensor:
        jacobian, residual = system
        normal = jacobian.mT @ jacobian
        normal = normal + torch.diag_embed(normal.diagonal(dim1=1, dim2=2) * damping[:, None])
        return -torch.linalg.solve(normal, (jacobian.mT @ residual.unsqueeze(-1))).squeeze(-1)

    code, converged, _ = levenberg_marquardt(
        Code(start), lambda code: value(code).square().sum(1), linearise, step, max_steps
    )
    found = flat_points(body, code, seen.camera)
    sure = seen.visibility[:, :2]
    square = (found - seen.points)[:, :2].square().sum(-1) * sure
    residual = (square.sum(1) / sure.sum(1).clamp_min(1e-9)).sqrt()
    return Solution(code, residual, converged & torch.isfinite(residual))


def flat_points(body: Skeleton, code: Code, camera: Tensor) -> Tensor:
    """(N, 4, 2) POINTS in crop coordinates."""
    return geometry.project(camera, posed_parts(body, code)[1][:, :4])[0]


def posed_vertices(model: Person, shape: Tensor, pose: Tensor) -> Tensor:
    """(N, V, 3) posed vertices in the head frame, the head where the camera label has it."""
    rest = model.vertices(model.mean_identity.expand(len(shape), -1), shape=shape)
    return skin(rest, model.skinning_weights, about_the_head(model.joint_transforms(shape, pose)))


def body_camera(model: Person, camera: Tensor, shape: Tensor, pose: Tensor) -> Tensor:
    """(N, 25) labels in the body's frame, in which the torso stays and the head turns, of labels in the head's."""
    matrix, k = geometry.unpack_label(camera)
    head = model.joint_transforms(shape, pose)[:, _HEAD]
    return geometry.pack_label(head @ matrix, k)
