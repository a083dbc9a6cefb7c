"""Whole people: in the picture from head to foot, dressed, without holes, and true to their truth."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from models.camera import check_label, intrinsics, look_at, pack_label, project, unpack_label
from ops.store.parsing import CLASSES
from ops.studio import avatar as avatars
from ops.studio import figure
from ops.studio.avatar import head_transforms, make_avatar
from ops.studio.crawl import Studio, StudioParams, plan, render_pictures, shared_model
from ops.studio.people import draw_person
from ops.studio.render import photograph, to_pixels
from ops.studio.standing import draw_figure

PARAMS = StudioParams(people=2, views=1, seed=3, full_body=3, full_body_size=256)


@pytest.fixture(scope="module")
def pictures():
    first = len(plan(PARAMS)) - PARAMS.full_body
    return list(render_pictures(PARAMS, range(first, first + PARAMS.full_body)))


@pytest.fixture(scope="module")
def model():
    return shared_model(True)


def test_full_bodies_come_last_and_change_nothing_before_them():
    kinds = [item.kind for item in plan(PARAMS)]
    without = PARAMS.model_copy(update={"full_body": 0})
    assert kinds[-3:] == ["full_body"] * 3
    assert plan(PARAMS)[:-3] == plan(without)
    assert next(render_pictures(PARAMS, [0])).data == next(render_pictures(without, [0])).data


def test_the_whole_model_begins_with_the_upper_one(model):
    upper = shared_model()
    count = len(upper.template)
    assert (model.upper_vertices, model.upper_triangles) == (count, len(upper.triangles))
    assert len(model.template) > count
    assert torch.equal(model.triangles[: model.upper_triangles], upper.triangles)
    code = torch.from_numpy(draw_person(0, 5, model).code)[None]
    torch.testing.assert_close(model.rest(code)[0][:, :count], upper.rest(code)[0], atol=1e-5, rtol=0)
    edges = torch.cat([model.triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    body = model.parts[edges[:, 0]] == 0
    twins = torch.unique(edges[body].sort(1).values, dim=0, return_counts=True)[1]
    assert (twins == 2).float().mean() > 0.98  # closed but for the rims of the eyes and of the mouth


def test_people_stand_whole_in_the_picture(pictures):
    for picture in pictures:
        truth = picture.truth
        assert truth["kind"] == "full_body"
        rows = np.flatnonzero((truth["mask"] > 128).any(1))
        assert 0.7 * 256 < np.ptp(rows) < 0.97 * 256
        assert rows[0] > 0
        assert rows[-1] < 255
        label = torch.from_numpy(truth["camera"])
        check_label(label)
        joints, _ = project(label[None], torch.from_numpy(truth["joints"])[None])
        assert ((joints > 0.05) & (joints < 0.6)).all()
        uv, _ = project(label[None], torch.from_numpy(truth["landmarks68"])[None])
        np.testing.assert_allclose(uv[0].numpy() * 256, truth["landmarks68_2d"], atol=1e-2)
        shown = {name: (truth["parsing"] == CLASSES.index(name)).sum() for name in ("cloth", "skin")}
        assert shown["cloth"] > 0.5 * (truth["mask"] > 128).sum()
        assert shown["skin"] > 30


def test_a_figure_and_a_portrait_are_the_same_person(pictures):
    portrait = next(render_pictures(PARAMS, [0])).truth
    for name in ("code", "identity_code", "shape_code"):
        np.testing.assert_allclose(pictures[0].truth[name], portrait[name], atol=1e-3)


def test_the_torso_stands_upright(pictures):
    """The head turns, and the camera with it: seen from the torso the camera hardly rolls."""
    for picture in pictures:
        truth = picture.truth
        studio = Studio(PARAMS)
        joints = studio.avatar(truth["identity"], whole=True).joints
        to_head = head_transforms(joints, truth["pose"])[0, 0].double()
        pose = torch.linalg.inv(to_head) @ unpack_label(torch.from_numpy(truth["camera"]).double())[0]
        assert abs(float(pose[1, 0])) < np.sin(np.deg2rad(3 * PARAMS.roll_spread))  # right has no height


@pytest.mark.parametrize(("kind", "bottom"), [("trousers", -4.3), ("skirt", -3.5), ("shorts", -3.0)])
def test_clothes_cover_and_nothing_shows_through(model, monkeypatch, kind, bottom):
    person = replace(draw_person(3, 0, model), style="bald", beard=0.0, glasses="")
    outfit = replace(figure.draw_outfit(person, 3), kind=kind, bottom=bottom, sleeve=0.97)
    monkeypatch.setattr(avatars.figure, "draw_outfit", lambda *_: outfit)
    avatar = make_avatar(model, person, 3)
    view = draw_figure(PARAMS, model, avatar, 0)
    view = replace(view, pose=np.zeros((6, 3), np.float32))  # arms held out: no gap is closed by a hand
    mean = model.rest(model.mean_identity[None])[0][0].numpy()
    levels = [(np.abs(mean[:, 1] - height) < 0.03) & (np.abs(mean[:, 0]) < 0.8) for height in (-1.0, bottom + 0.15)]
    for azimuth in np.deg2rad([-180, -160, -90, -45, -20, 0, 20, 90, 135, 160]):
        eye = torch.tensor([9 * np.sin(azimuth), -1.0, 9 * np.cos(azimuth)])
        pose = look_at(eye, torch.tensor([0.0, -2.1, 0.0], dtype=eye.dtype))
        camera = pack_label(pose[None].float(), intrinsics(1.6))[0].numpy()
        shot = photograph(model, avatar, replace(view, camera=camera))
        if abs(np.cos(azimuth)) > 0.9:  # from the sides, an arm before the body encloses some background
            count, _ = cv2.connectedComponents((shot.mask < 255).astype(np.uint8), connectivity=8)
            assert count == 2, azimuth
        # Between chest and hem there is no skin but that of the hands.
        chest, hem = (to_pixels(camera, shot.vertices[level], 256)[:, 1] for level in (levels[0], levels[1]))
        top = int(chest.max())
        skin = np.argwhere(shot.parsing[top : int(hem.min())] == CLASSES.index("skin")) + np.array([top, 0])
        hands = shot.vertices[model.upper_vertices :]
        hands = hands[np.abs(hands[:, 0]) > 1.0]
        places = to_pixels(camera, hands, 256)[:, ::-1]
        far = np.linalg.norm(skin[:, None] - places[None], axis=-1).min(1) if len(skin) else np.zeros(1)
        assert far.max() < 8, azimuth


def test_figures_are_the_same_bytes_whoever_asks(pictures):
    last = len(plan(PARAMS)) - 1
    assert next(render_pictures(PARAMS, [last])).data == pictures[-1].data
