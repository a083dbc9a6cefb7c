"""What people are made of: draws, paint, hair, garments, light."""

import numpy as np
import pytest
import torch

from models.parametric.anny import Anny, load_anny
from ops.studio import canvas, clothes, hair, lighting, paint
from ops.studio.avatar import make_avatar, vertex_normals
from ops.studio.people import STYLES, draw_person


@pytest.fixture(scope="module")
def model() -> Anny:
    return load_anny()


def test_people_depend_on_seed_and_number_alone(model):
    a, b = draw_person(0, 5, model), draw_person(0, 5, model)
    assert a.style == b.style
    np.testing.assert_array_equal(a.code, b.code)
    assert not np.array_equal(a.code, draw_person(0, 6, model).code)
    assert not np.array_equal(a.code, draw_person(1, 5, model).code)


def test_every_style_is_worn_and_colours_are_possible(model):
    crowd = [draw_person(0, number, model) for number in range(400)]
    assert {p.style for p in crowd} == set(STYLES) == set(hair.STYLES)
    for person in crowd:
        for colour in (person.skin, person.lips, person.hair, person.cloth, person.iris):
            assert (colour > 0).all()
            assert (colour < 1).all()


def test_unwrapping_is_one_to_one_in_front(model):
    """A texel's position unwraps to that texel."""
    c = canvas.unwrap(model)
    rows, columns = np.mgrid[150:500:7, 250:780:7]
    back = canvas.sphere_uv(c.position[rows, columns])
    off = np.abs(back - np.stack([columns + 0.5, rows + 0.5], axis=-1)).max(-1)
    assert np.median(off) < 1.0
    assert (c.triangles < len(c.vertex)).all()
    np.testing.assert_array_equal(c.vertex[c.triangles], model.triangles.numpy())


def test_garments_end_exactly_at_the_neckline(model):
    mean = model.rest(model.mean_identity[None])[0][0].numpy()
    for name in ("crew", "v_neck", "turtleneck"):
        garment = clothes.cut_garment(model, name)
        height = clothes.height_over_neckline(mean, name)
        at = garment.lerp(height)
        assert at.max() < 1e-5
        between = garment.first != garment.second
        assert between.sum() > 20
        assert np.abs(at[between]).max() < 1e-5  # cut vertices lie on the line
        assert garment.triangles.max() == len(garment.first) - 1


def test_garments_hide_the_skin_below_them(model):
    rest = model.rest(model.mean_identity[None])[0][0].numpy()
    garment = clothes.cut_garment(model, "crew")
    outside = garment.lerp(rest) + garment.lerp(vertex_normals(model, rest)) * garment.lift[:, None]
    assert ((outside - garment.lerp(rest)) ** 2).sum(1).min() > 0.005**2


@pytest.mark.parametrize("style", [s for s in STYLES if s != "bald"])
def test_strands_stay_outside_the_head(model, style):
    from dataclasses import replace

    person = replace(draw_person(0, 1, model), style=style, beard=0.0)
    avatar = make_avatar(model, person, 0)
    assert avatar.strands is not None
    c = canvas.unwrap(model)
    assert np.isfinite(avatar.strands.points).all()
    surface = np.linalg.norm(np.einsum("hwk,hwkc->hwc", c.weight, avatar.rest[c.corner]), axis=-1)
    points = avatar.strands.points[:, 1:].reshape(-1, 3)
    points = points[points[:, 1] > 0.0]
    uv = canvas.sphere_uv(points).astype(int)
    inside = np.linalg.norm(points, axis=1) < surface[uv[:, 1], np.clip(uv[:, 0], 0, canvas.WIDTH - 1)] - 0.03
    assert inside.mean() < 0.02


def test_hair_covers_the_scalp_and_spares_the_face(model):
    c = canvas.unwrap(model)
    person = draw_person(0, 1, model)
    share = hair.scalp_share(c, person, 0) if person.style not in ("bald",) else None
    assert share is not None
    front = canvas.sphere_uv(c.landmarks[[27, 30, 36, 45, 48, 54, 8]]).astype(int)
    assert (share[front[:, 1], front[:, 0]] < 0.05).all()
    assert share[60, canvas.WIDTH // 2] > 0.5


def test_harmonics_are_orthonormal_and_turn_exactly():
    lattice = lighting.sphere_directions(4000)
    gram = lighting.harmonics(lattice).T @ lighting.harmonics(lattice) * (4 * np.pi / 4000)
    np.testing.assert_allclose(gram, np.eye(9), atol=5e-3)
    light = np.random.default_rng(0).normal(size=(9, 3))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    turned = lighting.rotate_coefficients(light, turn)
    np.testing.assert_allclose(
        lighting.harmonics(lattice @ turn.T) @ turned, lighting.harmonics(lattice) @ light, atol=1e-4
    )


def test_open_surfaces_receive_the_closed_form_and_a_roof_takes_the_sky():
    normals = lighting.sphere_directions(50).astype(np.float32)
    nothing = np.array([[9, 9, 9], [9, 9.1, 9], [9.1, 9, 9]], np.float32)
    face = np.array([[0, 1, 2]])
    got = lighting.transfer(normals * 0.1, normals, nothing, face, directions=400)
    np.testing.assert_allclose(got, lighting.open_transfer(normals), atol=0.03)
    roof = np.array([[-1.6, 0.3, -1.6], [1.6, 0.3, -1.6], [1.6, 0.3, 1.6], [-1.6, 0.3, 1.6]], np.float32)
    up = np.array([[0.0, 1.0, 0.0]], np.float32)
    under = lighting.transfer(np.zeros((1, 3), np.float32), up, roof, np.array([[0, 1, 2], [0, 2, 3]]))
    assert under[0, 0] < 0.1 * lighting.open_transfer(up)[0, 0]


def test_texture_shows_lips_brows_and_irises(model):
    from dataclasses import replace

    c = canvas.unwrap(model)
    person = replace(draw_person(0, 3, model), beard=0.0, stubble=0.0, style="bald")
    sheet = paint.texture(c, person, 0, np.zeros((canvas.HEAD_HEIGHT, canvas.WIDTH), np.float32))
    assert sheet.shape == (canvas.HEIGHT, canvas.WIDTH, 3)
    assert np.isfinite(sheet).all()
    spots = np.stack([c.landmarks[[2, 30]].mean(0), c.landmarks[57], c.landmarks[24]])
    cheek, lip, brow = (sheet[y, x] for x, y in canvas.sphere_uv(spots).astype(int))
    assert lip[0] / lip[1] > 1.15 * cheek[0] / cheek[1]
    assert brow.sum() < 0.8 * cheek.sum()
    x, y, side = canvas.EYE_PATCH
    eye = sheet[y : y + side, x : x + side].sum(-1)
    assert eye[side // 2, side // 2] < 0.1
    assert eye[side // 2, side // 2] < eye[side // 2, side // 2 + 40] < 0.5 * eye[side // 2, side // 2 + 90]


def test_posed_avatar_keeps_the_head_where_it_is(model):
    from ops.studio.avatar import default_pose, pose_vertices

    person = draw_person(0, 2, model)
    rest, joints = (t[0].numpy() for t in model.rest(torch.from_numpy(person.code)[None]))
    pose = default_pose()
    pose[0] += [0.1, 0.3, 0.05]
    posed = pose_vertices(model, rest, joints, pose)
    head = model.skinning_weights[:, 2].numpy() > 0.999
    np.testing.assert_allclose(posed[head], rest[head], atol=1e-5)
    assert np.abs(posed - rest).max() > 0.1
