"""Clips of people who talk: the same bytes each time, smooth, and true to their truth."""

import numpy as np
import pytest
import torch

from models.camera import check_label, project, spherical_angles, unpack_label
from ops.store.clips import decode_clip, frame_rate
from ops.studio.crawl import Studio, StudioParams, plan, render_pictures
from ops.studio.motion import clip_views

PARAMS = StudioParams(people=2, views=0, seed=3, clips=3, clip_frames=10, clip_size=128)
LONG = PARAMS.model_copy(update={"clip_frames": 150, "clip_size": 64})


@pytest.fixture(scope="module")
def clip():
    return next(render_pictures(PARAMS, [1]))


@pytest.fixture(scope="module")
def talk():
    """The views of six seconds."""
    studio = Studio(LONG)
    return studio.model.expression_names, list(clip_views(LONG, studio.model, studio.avatar(0).joints, 0, 0))


def test_a_source_may_hold_clips_alone():
    assert [(i.kind, i.identity) for i in plan(PARAMS)] == [("clip", 0), ("clip", 1), ("clip", 0)]
    with pytest.raises(ValueError, match="needs views"):
        StudioParams(views=0)


def test_clips_are_the_same_bytes_and_hold_their_frames(clip):
    again = next(render_pictures(PARAMS, [1]))
    assert again.data == clip.data
    assert clip.name.endswith(".mp4")
    assert frame_rate(clip.data) == PARAMS.clip_fps
    shots = [shot.picture for _, shot in Studio(PARAMS).film(1, 1)]
    frames = list(decode_clip(clip.data))
    assert len(frames) == len(shots) == len(clip.truth["frames"]) == PARAMS.clip_frames
    for frame, shot in zip(frames, shots, strict=True):
        assert np.abs(frame.astype(float) - shot).mean() < 8  # what the compression costs
    other = np.abs(frames[0].astype(float) - shots[-1]).mean()
    assert other > 1.3 * np.abs(frames[0].astype(float) - shots[0]).mean()


def test_a_clip_is_one_person_whose_landmarks_are_where_the_camera_sees_them(clip):
    for frame in clip.truth["frames"]:
        label = torch.from_numpy(frame["camera"])
        check_label(label)
        pose, _ = unpack_label(label.double())
        azimuth, elevation, _ = spherical_angles(pose)
        assert np.rad2deg(azimuth.item()) == pytest.approx(frame["azimuth"], abs=1e-3)
        assert np.rad2deg(elevation.item()) == pytest.approx(frame["elevation"], abs=1e-3)
        uv, _ = project(label[None], torch.from_numpy(frame["landmarks68"])[None])
        np.testing.assert_allclose(uv[0].numpy() * 128, frame["landmarks68_2d"], atol=1e-2)
        np.testing.assert_array_equal(frame["code"], clip.truth["frames"][0]["code"])


def test_motion_is_smooth_and_the_torso_stands_still(talk):
    _, views = talk
    pose = np.stack([view.pose for view in views])
    assert 0.02 < np.ptp(pose[:, 1, 1]) < 0.8  # the head turns
    assert np.abs(np.diff(pose, axis=0)).max() < 0.03  # radians a frame
    assert np.abs(np.diff(pose, 2, axis=0)).max() < 0.02
    # Seen from the torso the camera goes along one circle: its height and distance stay.
    from ops.studio.avatar import head_transforms

    joints = Studio(LONG).avatar(0).joints
    places = [
        np.linalg.inv(head_transforms(joints, view.pose)[0, 0].double().numpy()) @ view.camera[:16].reshape(4, 4)
        for view in views
    ]
    eye = np.stack([place[:3, 3] for place in places])
    assert np.ptp(eye[:, 1]) < 1e-4
    assert np.ptp(np.hypot(eye[:, 0], eye[:, 2])) < 1e-4


def test_people_talk_blink_and_look_about(talk):
    names, views = talk
    units = np.stack([view.expression for view in views])
    assert ((units >= 0) & (units <= 1)).all()
    jaw, blink = units[:, names.index("jawOpen")], units[:, names.index("eyeBlinkLeft")]
    opened = np.sum((jaw[1:] > 0.12) & (jaw[:-1] <= 0.12))
    assert 5 < opened < 40  # of six seconds
    assert blink.max() > 0.8
    assert 0.02 < (blink > 0.5).mean() < 0.3
    np.testing.assert_array_equal(blink, units[:, names.index("eyeBlinkRight")])
    assert np.ptp(units[:, names.index("eyeLookOutLeft")] - units[:, names.index("eyeLookInLeft")]) > 0.1
