"""What the fits fit: the face model, and its surface where FaceMesh sees its 468 points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from models import camera as geometry
from models.parametric.base import UNITS_PER_METRE
from models.parametric.person import Person, load_person
from ops.curate.camera import EYE_CORNERS
from ops.fit import energy
from ops.fit.calibrate import offsets
from ops.fit.energy import State
from ops.fit.linear import LinearFace, linear_face


@dataclass(frozen=True)
class Target:
    """A face model with its landmarks.

    Attributes:
        model: identity and expression to vertices.
        face: its points where FaceMesh sees them, linear in the codes, float64.
        weights: (468,) 1, or 0 for landmarks without a place on the mesh.
    """

    model: Person
    face: LinearFace
    weights: Tensor


@lru_cache(maxsize=1)
def target() -> Target:
    """The default model and FaceMesh's points on it, the detector's habit taken in; loaded once a process."""
    model = load_person()
    points = model.facemesh
    face = linear_face(model, model.triangles[points.triangle], points.barycentric, torch.from_numpy(offsets().copy()))
    return Target(model, face, points.valid.double())


def interocular(face: LinearFace, state: State, focal: float) -> Tensor:
    """(N,) distance of the outer eye corners as it would be seen from straight ahead, units of the picture's side."""
    _, seen = energy.project(face, state, focal)
    right, left = EYE_CORNERS
    corners = face.points(state.identity, state.expression)
    return focal * (corners[:, right] - corners[:, left]).norm(dim=-1) / seen[:, [right, left], 2].mean(-1)


def pose_of(state: State) -> np.ndarray:
    """(N, 6): the turn away from looking straight into the camera (axis-angle, radians, camera's axes), and the place
    of the head in the camera's frame (world units)."""
    from scipy.spatial.transform import Rotation

    front = state.rotation.new_tensor(energy.FRONT)
    turn = Rotation.from_matrix((state.rotation @ front.T).cpu().numpy()).as_rotvec()
    return np.concatenate([turn, state.translation.cpu().numpy()], axis=1)


def camera_of(state: State, focal: float) -> np.ndarray:
    """(N, 25) labels in the head frame, at the distance that was found: the fitted vertices project with them."""
    pose = torch.eye(4, dtype=state.rotation.dtype).repeat(len(state.rotation), 1, 1)
    inverse = state.rotation.cpu().transpose(1, 2)
    pose[:, :3, :3] = inverse
    pose[:, :3, 3] = -(inverse @ state.translation.cpu().unsqueeze(-1)).squeeze(-1)
    return geometry.pack_label(pose, geometry.intrinsics(focal).double()).numpy()


def motion_of(camera: np.ndarray, distance: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """Head-to-camera rotation (N, 3, 3) and translation (N, 3) of labels (N, 25); ``distance`` replaces their own."""
    pose, _ = geometry.unpack_label(torch.as_tensor(camera, dtype=torch.float64))
    rotation = pose[:, :3, :3].transpose(1, 2)
    place = pose[:, :3, 3]
    if distance is not None:
        place = place / place.norm(dim=-1, keepdim=True) * torch.as_tensor(distance, dtype=torch.float64)[:, None]
    return rotation, -(rotation @ place.unsqueeze(-1)).squeeze(-1)


def millimetres(units: Tensor) -> Tensor:
    """World units to millimetres."""
    return units / UNITS_PER_METRE * 1000
