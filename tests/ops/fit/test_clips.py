"""Clips made of a real photo: motion, cuts, people who come and go, and files that are no clips."""

import cv2
import numpy as np
import pytest

from ops.fit import clips
from ops.fit.clips import TrackClipsParams, track
from ops.fit.footage import Frame, shots
from ops.store import tables
from ops.store.clips import encode_clip
from ops.store.tar import ShardWriter

PARAMS = TrackClipsParams(min_frames=4)


def moved(image, shift, side=256):
    """The photo's face, some pixels to the right."""
    face = image[10:266, 96 - shift : 352 - shift]
    return cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)


def black(side=256):
    return np.zeros((side, side, 3), np.uint8)


def follow(frames, weights, params=PARAMS):
    return track(encode_clip(frames, 25.0), "c" * 16, params, weights)


def test_a_moving_face_is_followed_by_one_person_who_moves(astronaut, weights):
    shifts = list(range(0, 48, 6))
    rows = follow([moved(astronaut, shift) for shift in shifts], weights)
    assert [row["reason"] for row in rows] == [None] * 8
    assert len({tuple(row["identity"]) for row in rows}) == 1
    assert {row["shot"] for row in rows} == {0}
    assert max(row["residual"] for row in rows) < 2.5
    assert [row["time"] for row in rows] == pytest.approx([i / 25 for i in range(8)])
    side = np.hypot(*(np.array(rows[0]["quad"]).reshape(4, 2)[3] - np.array(rows[0]["quad"]).reshape(4, 2)[0]))
    x, depth = (np.array([row["pose"][axis] for row in rows]) for axis in (3, 5))
    pixels = 3.47 * x / depth * side  # the head's place in the picture
    np.testing.assert_allclose(np.diff(pixels), 6, atol=1.5)


def test_frames_without_a_face_are_flagged_and_bridged(astronaut, weights):
    frames = (
        [moved(astronaut, 0)] * 5 + [cv2.GaussianBlur(moved(astronaut, 0), (0, 0), 40)] * 2 + [moved(astronaut, 0)] * 5
    )
    rows = follow(frames, weights, PARAMS.model_copy(update={"cut": 0.9}))
    assert [row["reason"] for row in rows] == [None] * 5 + ["no_face"] * 2 + [None] * 5
    assert rows[5]["identity"] is None
    assert {row["shot"] for row in rows if row["kept"]} == {0}


def test_after_a_cut_another_person_may_come(astronaut, weights):
    other = astronaut[:, ::-1]
    rows = follow([moved(astronaut, 0)] * 5 + [255 - black()] + [moved(other, -64)] * 5, weights)
    assert [row["shot"] for row in rows] == [0] * 5 + [None] + [1] * 5
    assert rows[0]["identity"] != rows[-1]["identity"]


def test_two_people_are_flagged_or_one_of_them_is_followed(astronaut, weights):
    pair = np.concatenate([moved(astronaut, 0), moved(astronaut[:, ::-1], -64)], axis=1)
    rows = follow([pair] * 5, weights)
    assert {row["reason"] for row in rows} == {"several_faces"}
    assert {row["faces"] for row in rows} == {2}
    largest = PARAMS.detect.model_copy(update={"several": "largest"})
    rows = follow([pair] * 5, weights, PARAMS.model_copy(update={"detect": largest}))
    assert all(row["kept"] for row in rows)
    assert {row["shot"] for row in rows} == {0}


@pytest.mark.parametrize(
    ("frames", "reasons"),
    [(1, ["short_shot"]), (3, ["short_shot"] * 3)],
)
def test_few_frames_are_fitted_but_not_kept(astronaut, weights, frames, reasons):
    rows = follow([moved(astronaut, 0)] * frames, weights)
    assert [row["reason"] for row in rows] == reasons
    assert all(np.isfinite(row["residual"]) for row in rows)


def test_darkness_and_the_back_of_a_head_have_no_face(weights):
    rows = follow([black()] * 3, weights)
    assert [row["reason"] for row in rows] == ["no_face"] * 3


@pytest.mark.parametrize("data", [b"", b"no film", b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 300])
def test_a_broken_file_keeps_one_row_and_the_reason(data, weights):
    (row,) = track(data, "c" * 16, PARAMS, weights)
    assert (row["kept"], row["reason"]) == (False, "not_a_clip")


def test_a_film_that_breaks_off_keeps_the_frames_before(astronaut, weights):
    data = encode_clip([moved(astronaut, 0)] * 8, 25.0)
    rows = track(data[: len(data) * 2 // 3], "c" * 16, PARAMS, weights)
    assert rows[0]["reason"] in (None, "not_a_clip", "short_shot")
    assert all(row["kept"] == (row["reason"] is None) for row in rows)


def test_shots_split_at_gaps_and_jumps(astronaut):
    grid = np.stack(np.meshgrid(np.linspace(0, 99, 26), np.linspace(0, 99, 18)), -1).reshape(468, 2)
    here = np.concatenate([grid, np.zeros((468, 1))], 1)

    def frame(number, shift=0.0, scale=1.0):
        return Frame(number, 1, here * scale + [shift, 0, 0])

    numbers = lambda runs: [[f.number for f in run] for run in runs]  # noqa: E731
    assert numbers(shots([frame(0), frame(1), Frame(2), frame(3)], 2)) == [[0, 1, 3]]
    assert numbers(shots([frame(0), frame(9), frame(10)], 2)) == [[0], [9, 10]]
    assert numbers(shots([frame(0), frame(1, 500), frame(2, 510)], 2)) == [[0], [1, 2]]
    assert numbers(shots([frame(0), frame(1, 0, 2.5)], 2)) == [[0], [1]]
    assert shots([Frame(0), Frame(1)], 2) == []


def test_the_stage_writes_a_row_a_frame_and_nothing_for_pictures(astronaut, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "raw"
    raw.mkdir()
    film = encode_clip([moved(astronaut, 0)] * 5, 25.0)
    with ShardWriter(raw, 8) as writer:
        writer.add("a" * 16, {"mp4": film, "json": b"{}"})
        writer.add("b" * 16, {"jpg": b"never opened", "json": b"{}"})
        writer.add("d" * 16, {"mp4": b"broken", "json": b"{}"})
    (tmp_path / "params.yaml").write_text("track_clips: {min_frames: 2}\n")
    out = tmp_path / "clips.parquet"
    assert clips.main([str(raw), str(weights), str(out), "--preview", "sheet.png", "--metrics", "m.json"]) == 0
    rows = tables.read(out).to_pylist()
    assert [row["id"] for row in rows] == [f"{'a' * 16}-{n:06d}" for n in range(5)] + ["d" * 16]
    assert [row["kept"] for row in rows] == [True] * 5 + [False]
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_a_source_without_clips_has_an_empty_table(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ShardWriter(tmp_path, 8) as writer:
        writer.add("b" * 16, {"jpg": b"", "json": b"{}"})
    (tmp_path / "params.yaml").write_text("track_clips: {}\n")
    assert clips.main([str(tmp_path), str(weights), "clips.parquet", "--preview", "sheet.png"]) == 0
    assert len(tables.read(tmp_path / "clips.parquet")) == 0
