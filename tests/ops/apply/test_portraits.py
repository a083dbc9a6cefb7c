"""Characters do what they are asked, strips vary one thing, clips drive; wrong priors and clips are named."""

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ops.apply import reenact_portrait as reenact
from ops.apply import talking
from ops.apply.portraits import Portraits, head_turn
from ops.apply.strips import PROPERTIES, draw_strips, vary
from ops.cli import main
from ops.runtime.errors import LineamentError
from ops.store.clips import decode_clip, encode_clip
from ops.store.pictures import decode, encode_jpeg
from ops.store.tar import ShardWriter
from tests.ops.train import test_portrait_stage as stage

LINK = ("data/checkpoints/portrait/full", "data/priors")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One trained tiny generator for all tests here."""
    return stage.trained_project(tmp_path_factory.mktemp("portraits"), "full")


@pytest.fixture
def portraits(place, monkeypatch):
    monkeypatch.chdir(place)
    return Portraits(place / LINK[0], place / LINK[1])


def test_a_seed_is_the_same_character_alone_and_among_others(portraits):
    together, labels = portraits.characters([3, 7])
    alone, label = portraits.characters([7])
    for one, other in zip(vars(together).values(), vars(alone).values()):
        assert torch.equal(one[1:], other)
    np.testing.assert_array_equal(portraits.render(together, labels)[1:], portraits.render(alone, label))


def test_each_strip_varies_its_property_and_no_other(portraits):
    own, label = portraits.characters([0])
    others, _ = portraits.characters([1, 2])
    for name in PROPERTIES:
        latents, labels = vary(portraits, own, others, label, name)
        for part, values in vars(latents).items():
            assert torch.equal(values[1], values[0]) == (part != name), (name, part)
            assert torch.equal(values[:1], getattr(own, part))
        assert torch.equal(labels[1], labels[0]) == (name != "camera")
    rows = draw_strips(portraits, 0, 3)
    assert [row.shape for row in rows] == [(3, 16, 16, 3)] * len(PROPERTIES)
    assert all((row[0] == rows[0][0]).all() for row in rows)


def test_codes_beyond_the_priors_are_told_and_clamped_on_request(portraits):
    latents, _ = portraits.characters([0])
    assert portraits.out_of_range(portraits.neutral(latents))[1] == []
    wild = replace(latents, identity=latents.identity + 40, pose=latents.pose + 3)
    same, words = portraits.out_of_range(wild)
    assert same is wild
    assert [word.split()[3] for word in words] == ["identity", "pose"]
    tame, _ = portraits.out_of_range(wild, clamp=True)
    assert portraits.out_of_range(tame)[1] == []


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_head_that_turns_before_the_camera_turns_the_joints_alike(axis):
    """Neck and head one after the other make the tracked turn, about axes of the world."""
    turn = np.zeros(3)
    turn[axis] = 0.5
    joints = head_turn(np.concatenate([turn, [0, 0, 2.7]])[None])[0]
    made = Rotation.from_rotvec(joints[0]) * Rotation.from_rotvec(joints[1])
    world = np.diag([1.0, -1.0, -1.0])  # camera's axes in the world, for a camera in front
    expected = world @ Rotation.from_rotvec(turn).as_matrix() @ world.T
    np.testing.assert_allclose(made.as_matrix(), expected, atol=1e-9)
    assert not joints[2:].any()


def rows(frames, shot=0, kept=True):
    return [
        {"frame": n, "shot": shot, "kept": kept, "reason": None if kept else "no_face", "expression": [0.1] * 52,
         "pose": [0.0, 0.1 * n, 0.0, 0.0, 0.0, 2.7]}
        for n in frames
    ]  # fmt: skip


def test_a_clip_drives_a_character(portraits, place, monkeypatch, capsys):
    clip = place / "drive.mp4"
    clip.write_bytes(encode_clip([np.full((32, 32, 3), 20 * n, np.uint8) for n in range(5)], 10.0))
    monkeypatch.setattr(reenact, "track", lambda *_: rows([0, 1, 3]) + rows([4], shot=1))
    assert main(["reenact-portrait", str(clip), LINK[0], "out.mp4", "--seed", "2"]) == 0
    frames = list(decode_clip((place / "out.mp4").read_bytes()))
    assert len(frames) == 4, "the frame between two that were tracked holds the first"
    assert frames[0].shape == (256, 512, 3)
    assert np.abs(frames[2][:, 256:].astype(int) - frames[1][:, 256:]).mean() < 2
    text = capsys.readouterr().out
    assert "has 2 shots; the longest, of 3 frames" in text
    assert "1 frames within the shot could not be tracked and hold the one before" in text
    assert "4 of 5 frames, without sound: the clip has no sound" in text


def test_a_clip_of_another_parametric_model_is_refused(portraits):
    with pytest.raises(LineamentError, match="speaks 52 expression units, where the clip was tracked with 64"):
        reenact.asked(portraits, 0, [{**row, "expression": [0.0] * 64} for row in rows([0, 1])])


def test_the_datas_clips_are_acted(portraits, place):
    frames = {f"f{n:04d}.jpg": encode_jpeg(np.full((16, 16, 3), 30 * n, np.uint8)) for n in range(3)}
    label = {"clip": "c", "shot": 1, "fps": 5.0, "frames": [4, 5, 6], "expression": [[9.0] * 52] * 3}
    label["pose"] = [row["pose"] for row in rows([0, 1, 2])]
    clips = place / "data/shards/clips"
    with ShardWriter(clips, per_shard=8) as writer:
        writer.add("c-0000", {**frames, "json": json.dumps(label).encode()})
    (clips / "dataset.json").write_text('{"samples": 1}')
    (place / "params.yaml").write_text("reenact_portrait: {}\n")
    words = [str(clips), LINK[1], "data/checkpoints", "acted", "--metrics", "m.json", "--preview", "p.png"]
    assert talking.main(words) == 0
    assert len(list(decode_clip(Path("acted/c-1.mp4").read_bytes()))) == 3
    told = json.loads(Path("acted/videos.json").read_text())["videos"]["c-1"]
    assert "expression values lie beyond the priors' range" in told["out_of_range"][0]
    assert json.loads(Path("m.json").read_text()) == {"videos": 1, "frames": 3, "variant": "full", "pixels": 16}
    (clips / "dataset.json").write_text('{"samples": 0}')
    assert talking.main([*words[:3], "none", "--metrics", "m.json", "--preview", "p.png"]) == 0
    assert json.loads(Path("m.json").read_text())["videos"] == 0


def test_a_clip_without_a_person_is_an_error_with_the_reasons(portraits, place, monkeypatch, capsys):
    clip = place / "empty.mp4"
    clip.write_bytes(encode_clip([np.zeros((32, 32, 3), np.uint8)] * 3, 10.0))
    monkeypatch.setattr(reenact, "track", lambda *_: rows([0, 1, 2], kept=False))
    assert main(["reenact-portrait", str(clip), LINK[0], "no.mp4"]) == 1
    assert re.search(r"no frame can drive a face \(\d+ of \d+: no face was found", capsys.readouterr().err)
    assert main(["reenact-portrait", "nowhere.mp4", LINK[0], "no.mp4"]) == 1
    assert not (place / "no.mp4").exists()


def test_strips_by_the_command_line(portraits, place):
    assert main(["strips", LINK[0], "strips.png", "--columns", "3", "--face"]) == 0
    assert decode((place / "strips.png").read_bytes()).shape[0] >= 5 * 16


def test_other_priors_and_other_systems_are_refused(place, tmp_path):
    stage.write_priors(tmp_path / "priors")
    record = tmp_path / "priors/priors.safetensors"
    other = stage.prior(41)
    people = {name: value for name, value in stage.toy_people().named_buffers() if name != "mean_identity"}
    record.unlink()
    other.save(tmp_path / "priors", people, expression_names=[f"unit{n}" for n in range(52)])
    with pytest.raises(LineamentError, match="trained with other priors"):
        Portraits(place / LINK[0], tmp_path / "priors")
    from tests.ops.apply.tinyheads import write_heads

    with pytest.raises(LineamentError, match="where one of 'portrait' is wanted"):
        Portraits(write_heads(tmp_path / "heads"), place / LINK[1])


def test_the_driving_frame_stands_beside_the_picture():
    frame, picture = np.zeros((20, 40, 3), np.uint8), np.full((64, 64, 3), 9, np.uint8)
    both = reenact.beside(frame, picture)
    assert both.shape == (64, 128 + 64, 3)
    assert (both[:, 128:] == 9).all()
    assert cv2.countNonZero(both[:, :128, 0]) == 0
