"""Videos to clips to frames: cuts found where they are, frames at the declared pace, bad files named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ops.crawl.video import find_cuts, read_frames
from ops.store.pictures import decode
from tests.ops.crawl.conftest import photo


def write_video(path: Path, frames: list[np.ndarray], rate: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    code = "mp4v" if path.suffix == ".mp4" else "MJPG"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()


def scene(number: int, frames: int, pan: int = 1) -> list[np.ndarray]:
    """A smooth picture that moves sideways a little each frame."""
    coarse = np.random.default_rng(number).integers(0, 255, (6, 10, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (64 + pan * frames, 48), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(wide[:, i * pan : i * pan + 64]) for i in range(frames)]


LENGTHS = (20, 7, 31)


@pytest.fixture
def film(tmp_path) -> Path:
    path = tmp_path / "films/deep/film.mp4"
    write_video(path, [frame for n, length in enumerate(LENGTHS) for frame in scene(n, length)], 10)
    return path


def test_cuts_are_found_where_they_are(film):
    assert find_cuts(film, 25.0) == [0, 20, 27, 58]


def test_fast_movement_and_a_still_are_no_cuts(tmp_path):
    write_video(tmp_path / "fast.mp4", scene(0, 40, pan=12), 10)
    assert find_cuts(tmp_path / "fast.mp4", 25.0) == [0, 40]
    write_video(tmp_path / "still.mp4", [photo(1, 32)] * 12, 10)
    assert find_cuts(tmp_path / "still.mp4", 25.0) == [0, 12]


def test_frames_come_at_the_declared_pace_from_clips_that_are_long_enough(crawl, film):
    rows = crawl(kind="video", path="films", every_seconds=0.5, max_frames=3, min_seconds=1.0, licence="mine")
    numbers = [int(name.partition("#")[2]) for name in rows]
    assert numbers == [0, 5, 10, 27, 32, 37], "the clip of 0.7 seconds is left out"
    frames = list(read_frames(film))
    fields, said = crawl.sample(rows["deep/film.mp4#000032"])
    assert np.abs(decode(fields["jpg"]).astype(int) - frames[32]).mean() < 3
    assert (said["clip"], said["frame"], said["seconds"], said["licence"]) == (2, 32, 3.2, "mine")
    assert len(said["video_sha256"]) == 64


def test_clips_are_cut_out_and_a_file_without_a_cut_stays_as_it_is(crawl, film, tmp_path):
    write_video(tmp_path / "films/single.mp4", scene(9, 15), 10)
    rows = crawl(kind="video", path="films", offer="clips")
    assert sorted(rows) == ["deep/film.mp4#0", "deep/film.mp4#2", "single.mp4#0"]
    fields, said = crawl.sample(rows["deep/film.mp4#2"])
    (clip,) = (data for name, data in fields.items() if name != "json")
    Path("clip.mp4").write_bytes(clip)
    frames = list(read_frames(film))
    again = list(read_frames(Path("clip.mp4")))
    assert len(again) == said["last"] - said["first"] == 31
    assert np.abs(again[0].astype(int) - frames[27]).mean() < 6
    fields, _ = crawl.sample(rows["single.mp4#0"])
    assert (tmp_path / "films/single.mp4").read_bytes() in fields.values()


def test_a_second_run_changes_no_shard(crawl, film):
    crawl(kind="video", path="films")
    before = crawl.shards()
    write_video(Path("films/zz.mp4"), scene(5, 12), 10)
    crawl(kind="video", path="films")
    after = crawl.shards()
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)


def test_bad_files_come_with_their_reason(crawl, film):
    Path("films/words.mp4").write_bytes(b"no video at all")
    Path("films/list.avi").write_text("#EXTM3U\nfile:///etc/passwd\n")
    Path("films/cut.mp4").write_bytes(film.read_bytes()[:200])
    write_video(Path("films/short.mp4"), scene(4, 3), 10)
    Path("films/link.mp4").symlink_to(film)
    rows = crawl(kind="video", path="films")
    assert {name: row["reason"] for name, row in rows.items() if not row["kept"]} == {
        "words.mp4": "unreadable_video",
        "list.avi": "unreadable_video",
        "cut.mp4": "unreadable_video",
        "short.mp4": "no_clip_long_enough",
    }


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_no_folder_or_no_video_is_named(crawl, capsys, path):
    crawl(code=1, kind="video", path=path)
    assert "no such folder" in (message := capsys.readouterr().err) or "no video in it" in message
