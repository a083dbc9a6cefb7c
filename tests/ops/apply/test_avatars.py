"""From photos and clips to avatars and videos: what is refused, what is left out and why, what is the same again."""

import json
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ops.apply import source
from ops.apply.cameras import orbit
from ops.apply.driver import read_driver
from ops.apply.saved_avatars import load_avatar, save_avatar
from ops.apply.source import Frame, one_person, read_source
from ops.cli import main
from ops.runtime.errors import LineamentError
from ops.store.clips import decode_clip, encode_clip
from ops.store.pictures import decode, encode_png
from tests.ops.apply import tinyavatars


@pytest.fixture(scope="module")
def project(tmp_path_factory, astronaut, weights):
    """A folder with tiny networks, a photo, a clip with a gap, and the avatar of both."""
    root = tmp_path_factory.mktemp("avatars")
    tinyavatars.write_project(root)
    given = root / "given"
    given.mkdir()
    (given / "me.png").write_bytes(encode_png(astronaut))
    (given / "talk.mp4").write_bytes(clip(astronaut))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["invert", "given", "--out", "avatar", "--frames", "3", "--weights", str(weights)]) == 0
    return root


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project)
    return project


def moved(image, shift):
    return cv2.resize(image[10:266, 96 - shift : 352 - shift], (256, 256), interpolation=cv2.INTER_AREA)


def clip(image, frames=10, blind=2):
    """The photo's face sliding to the right, out of focus for some frames."""
    pictures = [moved(image, 4 * n) for n in range(frames)]
    for n in range(4, 4 + blind):
        pictures[n] = cv2.GaussianBlur(pictures[n], (0, 0), 12)
    return encode_clip(pictures, 25.0)


def write(path, image):
    path.write_bytes(encode_png(image))
    return path


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_folder_of_photos_and_clips_is_one_list_of_frames(here):
    frames = json.loads((here / "avatar/avatar.json").read_text())["frames"]
    by_name = {frame["frame"]: frame for frame in frames}
    assert len(frames) == 11
    assert by_name["me.png"]["used"]
    used = [frame["frame"] for frame in frames if frame["used"]]
    assert len(used) == 4, "the photo and three frames of the clip"
    reasons = [by_name[f"talk.mp4#{n}"]["reason"] for n in range(10)]
    assert reasons[0] is None
    assert reasons[4] == reasons[5] == "no_face"
    assert reasons.count("not_needed") == 5
    assert all(frame["residual"] < 4 for frame in frames if frame["used"])


def test_a_fit_puts_the_face_where_it_is(astronaut, weights, tmp_path):
    """The crop's own landmarks, found again in the crop, are those of the fitted face, seen by the fitted camera."""
    from models.camera import project as projected
    from ops.curate.detect import DetectParams, find_faces
    from ops.curate.landmarks import find_landmarks
    from ops.fit.target import target

    (frame,) = read_source(write(tmp_path / "a.png", astronaut), 256, weights)
    face = find_faces(frame.picture, weights, DetectParams.model_validate({}))[0]
    seen = find_landmarks(frame.picture, face.box, face.points, weights, 1)[0][:, :2] / 256
    goal = target()
    codes = [torch.from_numpy(code)[None].double() for code in (frame.identity, frame.expression)]
    points, _ = projected(torch.from_numpy(frame.camera)[None].double(), goal.face.points(*codes))
    known = goal.weights.bool().numpy()
    assert np.linalg.norm(points[0].numpy() - seen, axis=1)[known].mean() < 0.012


BAD = {
    "no_face": lambda image: np.full_like(image, 90),
    "several_faces": lambda image: np.concatenate([image, image], axis=1),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_photo_is_named_and_the_others_are_used(astronaut, weights, tmp_path, reason):
    write(tmp_path / "bad.png", BAD[reason](astronaut))
    with pytest.raises(LineamentError, match=r"bad.png.*(no face|several faces)"):
        read_source(tmp_path / "bad.png", 64, weights)
    write(tmp_path / "good.png", astronaut)
    bad, good = read_source(tmp_path, 64, weights)
    assert (bad.reason, good.reason) == (reason, None)
    assert bad.picture is None


def test_a_broken_file_among_good_ones_is_named(astronaut, weights, tmp_path):
    write(tmp_path / "good.png", astronaut)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("not looked at")
    frames = read_source(tmp_path, 64, weights)
    assert [(f.name, f.reason) for f in frames] == [
        ("broken.jpg", "not_a_picture"), ("broken.mp4", "not_a_clip"), ("good.png", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("degrees", "reason"), [((75, 0, 0), "turned_too_far"), ((0, 85, 0), "tilted_too_far"), ((20, 10, 0), None)]
)
def test_faces_in_profile_are_not_trusted(degrees, reason):
    """A view from the side, from above, and a usual one."""
    azimuth, elevation, _ = degrees
    camera = orbit(azimuth, elevation)[0].tolist()
    assert source.turned(camera, source.CameraParams.model_validate({})) == reason


def test_a_fit_that_did_not_converge_is_left_out(astronaut, weights, tmp_path, monkeypatch):
    original = source.fit_crops
    monkeypatch.setattr(source, "fit_crops", lambda *a: [{**row, "converged": False} for row in original(*a)])
    write(tmp_path / "one.png", astronaut)
    with pytest.raises(LineamentError, match=r"one.png: the fit of the face model did not converge"):
        read_source(tmp_path, 64, weights)


def test_frames_of_another_person_are_left_out():
    """Three of one, two of another, one that cannot be used: most win, whatever their order."""
    person, other = np.zeros(4), np.full(4, 0.5)
    names = [("a", other), ("b", person), ("c", person + 0.1), ("d", other - 0.05), ("e", person - 0.1)]
    frames = [Frame(name, who=who) for name, who in names] + [Frame("f", "no_face")]
    found = one_person(frames, 0.6)
    reasons = ["another_person", None, None, "another_person", None, "no_face"]
    assert [frame.reason for frame in found] == reasons
    assert [frame.reason for frame in one_person(frames[::-1], 0.6)] == reasons[::-1]


def test_after_a_cut_only_the_same_person_goes_on(astronaut, weights, tmp_path, monkeypatch):
    """Two shots; the recogniser holds the second for somebody else."""
    pictures = [moved(astronaut, 0)] * 9 + [np.zeros((256, 256, 3), np.uint8)] + [moved(astronaut[:, ::-1], -64)] * 8
    (tmp_path / "cut.mp4").write_bytes(encode_clip(pictures, 25.0))
    monkeypatch.setattr(source, "load_recogniser", lambda name: _Colours())
    frames = read_source(tmp_path / "cut.mp4", 64, weights)
    assert [f.reason for f in frames] == [None] * 9 + ["no_face"] + ["another_person"] * 8
    assert "cut.mp4#10" in source.explain(frames)


class _Colours:
    """Tells pictures apart by the mean of their left half."""

    def embed(self, images):
        return np.stack([np.array([i[:, : i.shape[1] // 2].mean() - i.mean(), 0], np.float32) / 2 for i in images])


# --- avatars ----------------------------------------------------------------------------------------------------------


def test_a_saved_avatar_comes_back_as_it_was(here, tmp_path):
    avatar = load_avatar(here / "avatar")
    thumbnail = decode((here / "avatar/thumbnail.png").read_bytes())
    save_avatar(tmp_path / "again", avatar, thumbnail)
    for name in ("avatar.safetensors", "avatar.json", "thumbnail.png"):
        assert (tmp_path / "again" / name).read_bytes() == (here / "avatar" / name).read_bytes(), name
    expression = torch.rand(1, 52)
    again = load_avatar(tmp_path / "again", avatar.prior)
    for one, other in zip(avatar.canonical.textures, again.canonical.textures):
        assert torch.equal(one, other)
    np.testing.assert_array_equal(*(a.picture(expression, orbit(10)) for a in (avatar, again)))


def test_the_same_source_gives_the_same_bytes(here, weights):
    words = ["invert", "given", "--out", "twice", "--frames", "3", "--weights", str(weights)]
    assert main(words) == 0
    for path in (here / "avatar").iterdir():
        assert path.read_bytes() == (here / "twice" / path.name).read_bytes(), path.name


def test_every_frame_refines_the_avatar(here, weights):
    assert main(["invert", "given/me.png", "--out", "one", "--weights", str(weights)]) == 0
    one, many = (load_avatar(here / name) for name in ("one", "avatar"))
    assert any(not torch.equal(a, b) for a, b in zip(one.canonical.textures, many.canonical.textures))


def test_an_avatar_is_what_its_inverter_renders(here, weights):
    """Posing a saved avatar is the inverter's own rendering."""
    from ops.apply.inverters import load_inverter

    avatar = load_avatar(here / "avatar")
    inverter = load_inverter(avatar.prior, here / "data/checkpoints/recurrent")
    expression, label = torch.rand(1, 52), orbit(20)
    with torch.no_grad():
        expected = inverter.render(avatar.canonical, avatar.prior.mesh.surface(avatar.identity, expression), label)
    torch.testing.assert_close(avatar.pose(expression).view(label).image, expected.image)


def test_an_avatar_of_another_prior_is_refused(here, tmp_path):
    tinyavatars.write_generator(tmp_path / "other", seed=1)
    with pytest.raises(LineamentError, match="made by another prior"):
        load_avatar(here / "avatar", tmp_path / "other")
    shutil.copytree(here / "avatar", tmp_path / "moved")
    record = json.loads((tmp_path / "moved/avatar.json").read_text())
    record["prior"]["digest"] = "0" * 64
    (tmp_path / "moved/avatar.json").write_text(json.dumps(record))
    with pytest.raises(LineamentError, match=r"another prior \(avatar, 000000000000\) than those under"):
        load_avatar(tmp_path / "moved")


def test_encoders_of_another_prior_are_refused(here, tmp_path, weights, capsys):
    tinyavatars.write_generator(tmp_path / "other", seed=1)
    assert main(["invert", "given/me.png", "--prior", str(tmp_path / "other"), "--weights", str(weights)]) == 1
    assert "trained on another prior" in capsys.readouterr().err


def test_a_damaged_avatar_is_refused(here, tmp_path):
    shutil.copytree(here / "avatar", tmp_path / "cut")
    file = tmp_path / "cut/avatar.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(LineamentError, match="damaged"):
        load_avatar(tmp_path / "cut")


def test_without_trained_encoders_it_is_said(tmp_path, here, weights, capsys, monkeypatch):
    from ops.apply import invert_avatar

    monkeypatch.setattr(invert_avatar, "CHECKPOINTS", tmp_path)
    assert main(["invert", "given/me.png", "--weights", str(weights)]) == 1
    assert "dvc repro train_recurrent" in capsys.readouterr().err


# --- motion -----------------------------------------------------------------------------------------------------------


def test_a_clip_drives_an_avatar(here, weights, tmp_path):
    out = tmp_path / "film.mp4"
    assert main(["reenact", "avatar", "given/talk.mp4", "--out", str(out), "--weights", str(weights)]) == 0
    frames = list(decode_clip(out.read_bytes()))
    assert len(frames) == 10, "frames that could not be tracked hold the one before"
    assert frames[0].shape == (256, 512, 3), "the driver beside it"


def test_coefficients_drive_an_avatar_and_a_fixed_camera_stands(here, tmp_path):
    """With one expression a fixed camera sees one picture, a free one does not."""
    motion = {"expression": [[0.2] * 52] * 3, "camera": [orbit(a)[0].tolist() for a in (-30, 0, 30)]}
    (tmp_path / "motion.json").write_text(json.dumps(motion))
    shown = {}
    for camera in ("free", "fixed"):
        out = tmp_path / f"{camera}.mp4"
        assert main(["reenact", "avatar", str(tmp_path / "motion.json"), "--out", str(out), "--camera", camera]) == 0
        frames = np.stack(list(decode_clip(out.read_bytes()))).astype(float)
        assert frames.shape == (3, 256, 256, 3)
        shown[camera] = np.abs(frames[2] - frames[0]).mean()
    assert shown["fixed"] < 1 < shown["free"]


def test_the_three_forms_of_coefficients_are_one(tmp_path, weights):
    rng = np.random.default_rng(0)
    expressions, cameras = rng.random((4, 52)).tolist(), rng.random((4, 25)).tolist()
    rows = [{"expression": e, "camera": c} for e, c in zip(expressions, cameras)]
    (tmp_path / "a.json").write_text(json.dumps({"expression": expressions, "camera": cameras, "fps": 30}))
    (tmp_path / "b.json").write_text(json.dumps(rows))
    table = [{**row, "frame": n, "kept": n < 4, "clip": "x"} for n, row in enumerate([*rows, rows[0]])]
    pq.write_table(pa.Table.from_pylist(table[::-1]), tmp_path / "c.parquet")
    found = [read_driver(tmp_path / name, weights) for name in ("a.json", "b.json", "c.parquet")]
    for driver in found:
        np.testing.assert_allclose(driver.expressions, expressions, rtol=1e-6)
        np.testing.assert_allclose(driver.cameras, cameras, rtol=1e-6)
    assert [driver.rate for driver in found] == [30, 25, 25]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"expression": [[0.1] * 52, [0.1] * 51]}, "frame 1 needs 52"),
        ({"expression": [[float("nan")] * 52]}, "not finite"),
        ({"camera": [[0.0] * 25]}, "frame 0 needs 52"),
        ({"expression": [[0.1] * 52] * 2, "camera": [[0.0] * 25]}, "not a file of coefficients"),
        ([], "no frame"),
        ("words", "not a file of coefficients"),
    ],
)
def test_wrong_coefficients_are_named(tmp_path, weights, content, says):
    (tmp_path / "d.json").write_text(json.dumps(content))
    with pytest.raises(LineamentError, match=says):
        read_driver(tmp_path / "d.json", weights)


@pytest.mark.parametrize(("name", "says"), [("none.mp4", "no such file"), ("d.txt", "a driver is"), ("d.mp4", "video")])
def test_what_is_no_driver_is_refused(tmp_path, weights, name, says):
    if name != "none.mp4":
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(LineamentError, match=says):
        read_driver(tmp_path / name, weights)


def test_an_avatar_is_filmed_and_meshed(here, tmp_path):
    assert main(["video", "avatar", str(tmp_path / "t.mp4"), "--frames", "3"]) == 0
    frames = list(decode_clip((tmp_path / "t.mp4").read_bytes()))
    assert len(frames) == 3
    assert frames[0].shape == (256, 768, 3), "picture, depth, normals"
    assert main(["mesh", "avatar", str(tmp_path / "m.ply"), "--resolution", "16", "--level", "2"]) == 0
    assert (tmp_path / "m.ply").stat().st_size > 1000
