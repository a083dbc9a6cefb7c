"""Principal components of anny's people: the tensors of :class:`models.parametric.person.Person`.

anny's vertices are linear in the coefficients of its shape basis, so the components of a crowd follow exactly from
the covariance of a few hundred coefficients, and thousands of people cost no more than one hundred.
"""

from __future__ import annotations

import json
import os
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.parametric import anny
from models.parametric.base import JOINTS
from models.parametric.person import IDENTITY, SHAPE
from models.parametric.population import draw_codes

CROWD = 2048  # people; unpublished: our choice
_FORMAT = 1  # of the basis file; raise it when its contents change
_GOOD = 0.0027  # world units, a millimetre: a FaceMesh point farther from the mean head's skin has no good place on it


def load(folder: Path | None = None) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The basis from its cache file, built first if there is none."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = (folder or anny.cache_folder()) / f"person-{anny.FORMAT}-{_FORMAT}.safetensors"
    if not path.exists():
        model = anny.load_anny(folder)
        tensors = build(model)
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        os.close(descriptor)
        save_file(tensors, name, metadata={"expression_names": ",".join(model.expression_names)})
        os.replace(name, path)
    with safe_open(path, framework="pt") as file:
        names = file.metadata()["expression_names"].split(",")
        return {key: file.get_tensor(key) for key in file.keys()}, tuple(names)  # noqa: SIM118 (safe_open is no dict)


def build(model: anny.Anny, crowd: int = CROWD, seed: int = 0) -> dict[str, Tensor]:
    """Take a crowd apart.

    Args:
        model: anny's cut.
        crowd: people drawn.
        seed: of the crowd.

    Returns:
        the buffers of :class:`models.parametric.person.Person`; ``explained`` (2,) holds the shares of the variance
        of head and body that the kept components carry.
    """
    codes = torch.from_numpy(draw_codes(model, crowd, seed))
    coefficients = torch.cat([model.coefficients(part) for part in codes.split(256)]).double()
    average = coefficients.mean(0)
    spread = coefficients - average

    shapes, joints = model.get_buffer("shape_basis"), model.get_buffer("joint_basis")
    centre = model.head_centre(shapes, joints)  # linear, so the head frame's motion is a part of the basis
    shapes, joints = (shapes - centre).double(), (joints - centre).double()
    template, joint_template = model.template[None], model.get_buffer("joint_template")[None]
    centre = model.head_centre(template, joint_template)[0]

    share = head_share(model.skinning_weights)
    parts, scores, explained = [], [], []
    for weight, count in ((share, IDENTITY), (1 - share, SHAPE)):
        mixing, score, kept = components(spread, (shapes * weight.double()[:, None]).flatten(1), count)
        basis = torch.einsum("kb,bvx->kvx", mixing, shapes) * weight.double()[:, None]
        sign = torch.where(basis[..., 1:].sum((1, 2)) < 0, -1.0, 1.0).double()  # else left to the eigensolver's whim
        parts.append(basis * sign[:, None, None])
        scores.append(score * sign)
        explained.append(kept)
    moved = torch.einsum("nb,bjx->njx", spread, joints).flatten(1)
    joint_basis = torch.linalg.lstsq(torch.cat(scores, 1), moved).solution.unflatten(1, (len(JOINTS), 3))

    face_triangle, barycentric, valid = facemesh_on(model)
    tensors = {
        "mean": template[0] - centre + torch.einsum("b,bvx->vx", average, shapes),
        "identity_basis": parts[0],
        "shape_basis": parts[1],
        "joint_mean": joint_template[0] - centre + torch.einsum("b,bjx->jx", average, joints),
        "joint_identity": joint_basis[:IDENTITY],
        "joint_shape": joint_basis[IDENTITY:],
        "expression_basis": model.get_buffer("expression_basis"),
        "skinning_weights": model.skinning_weights,
        "head_share": share,
        "explained": torch.stack(explained),
        "uv": model.uv,
        "facemesh_barycentric": barycentric,
    }
    whole = {
        "triangles": model.triangles,
        "uv_triangles": model.uv_triangles,
        "parts": model.parts,
        "mirror": model.mirror,
        "landmarks68": model.landmarks68,
        "facemesh_triangle": face_triangle,
    }
    result = {name: value.float().contiguous() for name, value in tensors.items()}
    return {**result, **{name: value.int() for name, value in whole.items()}, "facemesh_valid": valid}


def head_share(skinning_weights: Tensor) -> Tensor:
    """(V,) how much each vertex goes with the head's code: all that head and neck move, fading towards the torso."""
    moved = skinning_weights[:, [1 + JOINTS.index("neck"), 1 + JOINTS.index("head")]].sum(1).clamp(0, 1)
    return moved * moved * (3 - 2 * moved)


def components(spread: Tensor, shapes: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of offsets ``spread @ shapes`` without ever forming them.

    Args:
        spread: (N, B) centred coefficients of N people.
        shapes: (B, D) offset that each coefficient brings.
        count: components kept.

    Returns:
        mixing (count, B): ``mixing @ shapes`` is the basis, each row as long as its standard deviation; the people's
        scores (N, count), of unit variance; and the share of the variance that is kept.
    """
    # The offsets' Gram matrix seen through a root of the coefficients' covariance has the same eigenvalues.
    values, vectors = torch.linalg.eigh(spread.T @ spread / len(spread))
    root = (vectors * values.clamp_min(0).sqrt()).T  # root.T @ root is the covariance
    gram = shapes @ shapes.T
    variances, directions = torch.linalg.eigh(root @ gram @ root.T)
    variances, directions = variances.flip(0), directions.flip(1)
    mixing = directions[:, :count].T @ root
    scores = spread @ gram @ mixing.T / variances[:count]
    return mixing, scores, variances[:count].sum() / variances.sum()


def facemesh_on(model: anny.Anny) -> tuple[Tensor, Tensor, Tensor]:
    """Where FaceMesh's points lie on the skin: triangle (468,), barycentrics (468, 3), whether it is good (468,)."""
    text = resources.files("models.parametric").joinpath("facemesh_canonical.json").read_text(encoding="utf-8")
    points = torch.from_numpy(np.array(json.loads(text), np.float32))
    vertices = model.rest(model.mean_identity[None])[0][0]
    skin = ((model.parts == anny.PARTS.index("skin")) & (model.get_buffer("uv_mouth") < 0.5))[model.triangles].all(1)
    outside = skin.nonzero().squeeze(1)
    corners = vertices[model.triangles[outside]]
    near = torch.cdist(points, corners.mean(1)).topk(48, largest=False).indices  # the closest is among these
    barycentric = closest_on_triangles(points[:, None], corners[near])
    distance = ((barycentric[..., None] * corners[near]).sum(2) - points[:, None]).norm(dim=-1)
    best = distance.argmin(1, keepdim=True)
    weights = barycentric.gather(1, best[..., None].expand(-1, -1, 3)).squeeze(1)
    return outside[near.gather(1, best).squeeze(1)], weights, distance.gather(1, best).squeeze(1) < _GOOD


def closest_on_triangles(points: Tensor, corners: Tensor) -> Tensor:
    """Barycentrics (..., 3) of the point on each triangle (..., 3, 3) that is nearest to a point (..., 3).

    It is the foot of the perpendicular where that lies inside, and the nearest point of the three edges elsewhere.
    """
    a, b, c = corners.unbind(-2)
    candidates = [_edge(points, a, b, (0, 1)), _edge(points, b, c, (1, 2)), _edge(points, c, a, (2, 0))]
    normal = torch.linalg.cross(b - a, c - a)
    area = normal.square().sum(-1).clamp_min(1e-20)

    def part(first: Tensor, second: Tensor) -> Tensor:
        return (torch.linalg.cross(second - first, points - first) * normal).sum(-1) / area

    inner = torch.stack([part(b, c), part(c, a), part(a, b)], dim=-1)
    weights = torch.stack(candidates, dim=-2)
    distance = ((weights[..., None] * corners[..., None, :, :]).sum(-2) - points[..., None, :]).norm(dim=-1)
    best = distance.argmin(-1)[..., None, None].expand(*distance.shape[:-1], 1, 3)
    return torch.where((inner >= 0).all(-1, keepdim=True), inner, weights.gather(-2, best).squeeze(-2))


def _edge(points: Tensor, a: Tensor, b: Tensor, places: tuple[int, int]) -> Tensor:
    along = (((points - a) * (b - a)).sum(-1) / (b - a).square().sum(-1).clamp_min(1e-20)).clamp(0, 1)
    weights = along.new_zeros(*along.shape, 3)
    weights[..., places[0]], weights[..., places[1]] = 1 - along, along
    return weights
