"""Teeth, lashes and glasses: where they belong, and seen when they should be."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from models.camera import intrinsics, pack_label, pose_on_sphere
from models.parametric.anny import Anny, load_anny
from ops.store.parsing import CLASSES
from ops.studio.avatar import Avatar, make_avatar
from ops.studio.params import StudioParams
from ops.studio.people import draw_person
from ops.studio.props import FRAMES, jaw_motion
from ops.studio.render import Shot, photograph
from ops.studio.scene import View, draw_view, unit_weights

PARAMS = StudioParams(people=1, views=1, size=192)


@pytest.fixture(scope="module")
def model() -> Anny:
    return load_anny()


@pytest.fixture(scope="module")
def avatars(model) -> dict[str, Avatar]:
    """One bald person with nothing, clear glasses, sunglasses."""
    bare = replace(draw_person(0, 3, model), style="bald", beard=0.0, glasses="", dark_lenses=False)
    kinds = {
        "bare": bare,
        "clear": replace(bare, glasses="square"),
        "dark": replace(bare, glasses="square", dark_lenses=True),
    }
    return {name: make_avatar(model, person, 0) for name, person in kinds.items()}


def seen(model: Anny, avatar: Avatar, azimuth: float = 0.0, focal: float = 4.0, **units: float) -> Shot:
    view = draw_view(PARAMS, model, 0, 0)
    pose = pose_on_sphere(torch.tensor(np.deg2rad(azimuth)), torch.tensor(0.0))[None].float()
    expression = unit_weights(model.expression_names, units)
    view: View = replace(
        view, camera=pack_label(pose, intrinsics(focal))[0].numpy(), expression=expression, pose=0 * view.pose
    )
    return photograph(model, avatar, view)


def share(shot: Shot, name: str) -> float:
    return float((shot.parsing == CLASSES.index(name)).mean())


@pytest.mark.parametrize(
    "units", [{}, {"mouthPress": 0.8}, {"mouthRollLower": 0.8, "mouthRollUpper": 0.8}, {"mouthPucker": 0.8}]
)
def test_closed_lips_hide_the_teeth(model, avatars, units):
    for azimuth in (0, 50, -50):
        assert share(seen(model, avatars["bare"], azimuth, **units), "mouth") < 4e-4


def test_an_open_mouth_shows_two_bright_rows_before_the_dark(model, avatars):
    shot = seen(model, avatars["bare"], jawOpen=0.4, mouthLowerDown=0.4, mouthUpperUp=0.4)
    mouth = shot.parsing == CLASSES.index("mouth")
    assert mouth.mean() > 0.005
    grey = cv2.cvtColor(shot.picture, cv2.COLOR_RGB2GRAY).astype(float)
    rows, columns = np.nonzero(mouth)
    middle = np.abs(columns - np.median(columns)) < 3
    profile = np.array([grey[y, columns[middle]].mean() for y in np.unique(rows[middle])])
    darkest = np.argmin(profile[2:-2]) + 2
    assert profile[:darkest].max() > 1.5 * profile[darkest]
    assert profile[darkest:].max() > 1.5 * profile[darkest]


def test_the_jaw_turns_as_one(model, avatars):
    avatar = avatars["bare"]
    offsets = model.expression_offsets(torch.from_numpy(unit_weights(model.expression_names, {"jawOpen": 0.7}))[None])
    motion = jaw_motion(model, avatar.rest, offsets[0].numpy())
    np.testing.assert_allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-5)
    assert np.linalg.det(motion[:3, :3]) == pytest.approx(1, abs=1e-5)
    jaw = avatar.props.jaw
    points, _ = avatar.props.posed(model, avatar.rest + offsets[0].numpy(), motion)
    moved = points[jaw] - avatar.props.points[jaw]
    assert moved[:, 1].max() < -0.02  # down
    np.testing.assert_array_equal(jaw_motion(model, avatar.rest, 0 * offsets[0].numpy()).round(5), np.eye(4))


@pytest.mark.parametrize("shape", sorted(FRAMES))
def test_glasses_sit_before_the_eyes_and_on_the_ears(model, avatars, shape):
    person = replace(avatars["bare"].person, glasses=shape)
    avatar = make_avatar(model, person, 0)
    added = avatar.props.points[len(avatars["bare"].props.points) :]
    eye = avatar.rest[model.parts_of("eye_left").numpy()]
    near = added[(np.abs(added[:, 0] - eye[:, 0].mean()) < 0.04) & (added[:, 2] > 0.2)]
    assert near[:, 2].min() > eye[:, 2].max()
    assert near[:, 1].max() > eye[:, 1].mean() > near[:, 1].min()
    ears = avatar.rest[model.get_buffer("uv_ears").numpy() > 0.5]
    assert added[:, 2].min() < ears[:, 2].max()


def test_frames_are_glasses_and_clear_lenses_show_the_eyes(model, avatars):
    bare, clear, dark = (seen(model, avatars[name]) for name in ("bare", "clear", "dark"))
    assert share(bare, "glasses") == 0 < share(clear, "glasses") < share(dark, "glasses")
    assert share(clear, "left_eye") > 0.7 * share(bare, "left_eye") > 0
    assert share(dark, "left_eye") == share(dark, "right_eye") == 0


def test_lashes_follow_the_lids(model, avatars):
    props = avatars["bare"].props
    count = len(props.along)
    tips = np.nonzero(props.reach > 0.013)[0]
    assert len(tips) >= 16
    eyes = np.eye(4, dtype=np.float32)
    shut = model.expression_offsets(torch.from_numpy(unit_weights(model.expression_names, {"eyeBlink": 1.0}))[None])
    opened, _ = props.posed(model, avatars["bare"].rest, eyes)
    closed, _ = props.posed(model, avatars["bare"].rest + shut[0].numpy(), eyes)
    assert count < len(props.points)
    assert (closed[tips, 1] - opened[tips, 1]).mean() < -0.02
