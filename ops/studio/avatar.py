"""A person ready to be photographed: shape at rest, paint, garment, strands, and the light each point receives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse
import torch

from models.parametric.anny import PARTS, Anny, chain_transforms, skin
from models.parametric.person import Person as PersonModel
from models.parametric.person import load_person
from models.render import raster
from ops.studio import canvas, clothes, figure, hair, lighting, paint, props
from ops.studio.people import Person

# Arms hang: anny's rest pose holds them out. Radians about +z for the left shoulder, mirrored for the right.
ARMS_DOWN = 0.62
LIGHT_PLACES = 3  # along a strand, where its light is sampled
_BODY_MAP = 192  # pixels of the front and back maps that strands rest on
_BODY_EXTENT, _BODY_MIDDLE = 3.0, -0.75  # world units across, height of the middle


@dataclass
class Avatar:
    """Arrays of one person; V model vertices, U painted copies, P of props, C garment vertices, S strands.

    Attributes:
        rest: (V, 3) unposed; joints: (6, 3).
        identity_code, shape_code: (80,) and (10,) of models.parametric.person that come nearest to ``rest``.
        transfer: (V, 9) light transfer of the body; open_sky: (V,) how much of the sky a vertex sees.
        normals: (V, 3) at rest.
        strands: None for the bald and beardless; strand_transfer: (S * LIGHT_PLACES, 9).
        sheet: texture (HEIGHT, WIDTH, 3); labels: parsing classes (HEIGHT, WIDTH).
        eyes: the sheet's eye patches without highlights; every view sets its own.
        triangles: (F, 3) int32 over painted copies, then props, garment and ribbon vertices; covered skin is left out.
        body_triangles, prop_triangles, garment_triangles: how many of them there are, in this order; hair follows.
    """

    person: Person
    rest: np.ndarray
    joints: np.ndarray
    identity_code: np.ndarray
    shape_code: np.ndarray
    normals: np.ndarray
    transfer: np.ndarray
    open_sky: np.ndarray
    garment: clothes.Garment
    garment_uv: np.ndarray
    strands: hair.Strands | None
    strand_transfer: np.ndarray
    sheet: np.ndarray
    eyes: np.ndarray
    labels: np.ndarray
    props: props.Props
    triangles: np.ndarray
    body_triangles: int
    prop_triangles: int
    garment_triangles: int


@lru_cache(maxsize=1)
def shared_person() -> PersonModel:
    """The model in whose codes identities are told, loaded once a process."""
    return load_person()


@lru_cache(maxsize=2)
def normal_operator(model: Anny) -> Any:
    """Sparse (V, F) sum of the triangles about each vertex."""
    triangles = model.triangles.numpy()
    rows = triangles.reshape(-1)
    columns = np.repeat(np.arange(len(triangles)), 3)
    ones = np.ones(len(rows), np.float32)
    return scipy.sparse.csr_matrix((ones, (rows, columns)), shape=(len(model.template), len(triangles)))


def vertex_normals(model: Anny, vertices: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, area-weighted."""
    triangles = model.triangles.numpy()
    a, b, c = vertices[triangles[:, 0]], vertices[triangles[:, 1]], vertices[triangles[:, 2]]
    normals = normal_operator(model) @ np.cross(b - a, c - a)
    return (normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)).astype(np.float32)


def default_pose() -> np.ndarray:
    """(6, 3) axis-angle with the arms down."""
    pose = np.zeros((6, 3), np.float32)
    pose[4, 2], pose[5, 2] = -ARMS_DOWN, ARMS_DOWN
    return pose


def head_transforms(joints: np.ndarray, pose: np.ndarray) -> torch.Tensor:
    """(1, 7, 4, 4) rest-to-posed transforms seen from the head, which stays where it is."""
    transforms = chain_transforms(torch.from_numpy(joints)[None], torch.from_numpy(pose)[None])
    return torch.linalg.inv(transforms[:, 2:3]) @ transforms


def pose_vertices(model: Anny, vertices: np.ndarray, joints: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """(V, 3) vertices in the pose, head frame."""
    return skin(torch.from_numpy(vertices)[None], model.skinning_weights, head_transforms(joints, pose))[0].numpy()


def make_avatar(model: Anny, person: Person, seed: int) -> Avatar:
    """Everything about a person that does not change from view to view. About half a second.

    Of a model of the whole body, a person dressed from head to foot.
    """
    whole = model.upper_vertices < len(model.template)
    c = canvas.unwrap(model)
    rest_t, joints_t = model.rest(torch.from_numpy(person.code)[None])
    rest, joints = rest_t[0].numpy(), joints_t[0].numpy()
    identity_code, shape_code = shared_person().encode(rest_t[:, : model.upper_vertices])
    if whole:
        rest = figure.stance(model, rest, person, seed)
    posed = pose_vertices(model, rest, joints, default_pose())
    normals = vertex_normals(model, posed)
    outfit = figure.draw_outfit(person, seed) if whole else None
    worn_clothes = clothes.dress(model, person.garment) if outfit is None else figure.dress(model, person, outfit)
    garment = worn_clothes.garment
    garment_points = garment.lerp(posed) + garment.lerp(normals) * garment.lift[:, None]

    body = _collision_body(c, posed, model.triangles.numpy())
    scalp = hair.scalp_share(c, person, seed)
    strands = hair.grow(c, person, seed, scalp, posed, body)
    scene, triangles = [posed, garment_points], [model.triangles.numpy(), garment.triangles + len(posed)]
    if whole:  # loose clothes would put the skin in the dark that their light is taken from
        scene[1], triangles[1] = garment_points[:0], garment.triangles[:0]
    if strands is not None:
        ribbon, ribbon_triangles = _thin_ribbons(strands)
        scene.append(ribbon)
        triangles.append(ribbon_triangles + sum(map(len, scene[:2])))
    shadow_scene = np.concatenate(scene).astype(np.float32)
    shadow_triangles = np.concatenate(triangles)
    probes, probe_normals = [posed], [normals]
    if strands is not None:
        at = np.linspace(1, strands.points.shape[1] - 1, LIGHT_PLACES).round().astype(int)
        places = strands.points[:, at].reshape(-1, 3)
        probes.append(places)
        probe_normals.append(_strand_normals(strands, at))
    transfer = lighting.transfer(
        np.concatenate(probes),
        np.concatenate(probe_normals),
        shadow_scene,
        shadow_triangles,
        room=figure.ROOM if whole else lighting.PORTRAIT,
    )
    body_transfer = transfer[: len(posed)]
    open_sky = np.clip(body_transfer[:, 0] / lighting.open_transfer(normals)[:, 0], 0, 1)
    _light_mouth(model, posed, body_transfer)
    worn = props.make_props(model, person, posed, body)

    sheet = paint.texture(c, person, seed, scalp)
    if outfit is not None:
        sheet = figure.paint(sheet, person, outfit, seed)
    x, y, side = canvas.EYE_PATCH
    n_body, n_props, n_garment = len(c.vertex), len(worn.points), len(garment.first)
    shown = c.triangles[~worn_clothes.hidden[c.vertex][c.triangles].all(1)]
    faces = [shown, worn.triangles + n_body, garment.triangles + n_body + n_props]
    if strands is not None:
        faces.append(ribbon_quads(*strands.points.shape[:2]) + n_body + n_props + n_garment)
    return Avatar(
        person=person,
        rest=rest,
        joints=joints,
        identity_code=identity_code[0].numpy(),
        shape_code=shape_code[0].numpy(),
        normals=normals,
        transfer=body_transfer,
        open_sky=open_sky,
        garment=garment,
        garment_uv=worn_clothes.uv,
        strands=strands,
        strand_transfer=transfer[len(posed) :],
        sheet=sheet,
        eyes=sheet[y : y + side, x : x + 2 * side].copy(),
        labels=canvas.label_sheet(c, scalp),
        props=worn,
        triangles=np.concatenate(faces).astype(np.int32),
        body_triangles=len(shown),
        prop_triangles=len(worn.triangles),
        garment_triangles=len(garment.triangles),
    )


def _light_mouth(model: Anny, posed: np.ndarray, transfer: np.ndarray) -> None:
    """Give the inside of the mouth, which is closed at rest, the light that falls in when it opens."""
    inside = np.isin(model.parts.numpy(), [PARTS.index("mouth"), PARTS.index("tongue")])
    lips = posed[model.landmarks68.numpy()[62], 2]
    reach = 0.55 * np.exp(np.clip(posed[inside, 2] - lips, None, 0) / 0.06)
    transfer[inside] = reach[:, None] * lighting.open_transfer(np.array([[0.0, 0.0, 1.0]]))


def ribbon_quads(strands: int, points: int) -> np.ndarray:
    """(S * (K - 1) * 2, 3) triangles over vertices numbered (strand, point, side), K points a strand."""
    start = (np.arange(strands)[:, None] * points + np.arange(points - 1)[None]).reshape(-1) * 2
    quad = np.stack([start, start + 1, start + 2, start + 1, start + 3, start + 2], axis=1)
    return quad.reshape(-1, 3)


def _thin_ribbons(strands: hair.Strands, every: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A coarse copy of the hair for casting shadows: fewer, wider strands of half the points, facing outwards."""
    keep = np.unique(np.linspace(0, strands.points.shape[1] - 1, strands.points.shape[1] // 2 + 1).round().astype(int))
    points = strands.points[::every, keep]
    half = strands.half_width[::every, keep] * (every * 0.8)
    tangent = np.gradient(points, axis=1)
    side = np.cross(tangent, points * np.array([1, 0.4, 1], np.float32))
    side /= np.linalg.norm(side, axis=-1, keepdims=True) + 1e-9
    both = np.stack([points - side * half[..., None], points + side * half[..., None]], axis=2)
    return both.reshape(-1, 3).astype(np.float32), ribbon_quads(*points.shape[:2])


def _strand_normals(strands: hair.Strands, at: np.ndarray) -> np.ndarray:
    """Outward normals of strand points: away from the axis of head and neck, square to the strand."""
    points = strands.points[:, at]
    tangent = np.gradient(strands.points, axis=1)[:, at]
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True) + 1e-9
    outward = points * np.where(points[..., 1:2] > 0, 1.0, [1.0, 0.0, 1.0])
    outward = outward - 0.6 * (outward * tangent).sum(-1, keepdims=True) * tangent
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True) + 1e-9
    return outward.reshape(-1, 3).astype(np.float32)


def _collision_body(c: canvas.Canvas, posed: np.ndarray, triangles: np.ndarray) -> hair.Body:
    faces = torch.from_numpy(triangles)
    maps = []
    for sign in (1.0, -1.0):
        screen = np.empty_like(posed)
        screen[:, 0] = (posed[:, 0] / _BODY_EXTENT + 0.5) * _BODY_MAP
        screen[:, 1] = (0.5 - (posed[:, 1] - _BODY_MIDDLE) / _BODY_EXTENT) * _BODY_MAP
        screen[:, 2] = -sign * posed[:, 2]
        depth = raster.depth_map(torch.from_numpy(screen)[None], faces, _BODY_MAP, _BODY_MAP)[0].numpy()
        maps.append(np.where(np.isfinite(depth), -sign * depth, np.nan))
    return hair.Body(c, posed, maps[0], maps[1], _BODY_EXTENT, _BODY_MIDDLE)
