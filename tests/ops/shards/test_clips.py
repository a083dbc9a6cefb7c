"""Training shards of clips: what was tracked frame by frame, cut out of films, and films of which nothing is left."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from models import camera as geometry
from ops import checks, data_versions
from ops.crawl.raw import RawPicture, add_pictures, sample_id
from ops.curate import takedown
from ops.curate.camera import CROP_FOCAL
from ops.curate.crop import crop_quad
from ops.fit.clips import EMPTY, SCHEMA
from ops.shards import clips
from ops.store import pictures, tables
from ops.store.clips import decode_clip, encode_clip
from ops.store.reader import ShardDataset

SHARDS = Path("data/shards/clips")
QUAD = np.array([[8.0, 4.0], [8.0, 36.0], [40.0, 36.0], [40.0, 4.0]])


def film(seed, count=12):
    """Smooth pictures that change from frame to frame."""
    y, x = np.mgrid[:48, :48] / 48
    shades = [np.stack([x, y, np.full_like(x, (n + 1) / (count + 1))], -1) * (150 + 20 * seed) for n in range(count)]
    return encode_clip([shade.astype(np.uint8) for shade in shades], 25.0)


def row(clip, number, shot=0, **changed):
    camera = geometry.pack_label(
        geometry.pose_on_sphere(torch.tensor(0.01 * number), torch.tensor(0.1)).double(),
        geometry.intrinsics(CROP_FOCAL).double(),
    )
    found = {
        **EMPTY, "id": f"{clip}-{number:06d}", "clip": clip, "frame": number, "shot": shot, "time": number / 25,
        "quad": QUAD.ravel().tolist(), "identity": [float(shot)] * 80, "expression": [number / 100] * 52,
        "pose": [number / 10] * 6, "camera": camera.tolist(), "residual": 1.0, "converged": True, "kept": True,
    }  # fmt: skip
    return found | changed


def lost(clip, number, reason):
    return {**EMPTY, "id": f"{clip}-{number:06d}", "clip": clip, "frame": number, "kept": False, "reason": reason}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Three films of one source, and the labels of their frames as a list to change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINEAMENT_WORKERS", "1")
    (tmp_path / "params.yaml").write_text(
        "sources:\n  films: {kind: folder, path: films}\nshards_clips: {resolution: 32, per_shard: 2, min_frames: 3}\n"
    )
    films = [film(seed) for seed in range(3)]
    known = {"licence": "CC0-1.0", "identity": "Ada"}
    offered = [RawPicture(f"{n}.mp4", data, known) for n, data in enumerate(films)]
    add_pictures(tmp_path / "data/raw/films", "films", "s", offered, 4)
    return [sample_id(data) for data in films], films


def run(rows, code=0):
    tables.write(Path("data/labels/films/clips.parquet"), pa.Table.from_pylist(rows, schema=SCHEMA), "track_clips")
    words = ["data/raw", "data/labels", "data/shards/clips", "--metrics", "m.json", "--preview", "p.png"]
    assert clips.main(words) == code
    return json.loads(Path("m.json").read_text()) if code == 0 else {}


def test_one_read_gives_the_frames_and_what_was_tracked_of_each(project):
    (a, *_), films = project
    rows = [row(a, n, 0) for n in range(4)] + [row(a, 4, 0, converged=False), lost(a, 5, "no_face")]
    rows += [row(a, n, 0) for n in (6, 7)] + [row(a, n, 1) for n in range(8, 12)]
    counts = run(rows)
    data = ShardDataset(SHARDS)
    assert [data.key(n) for n in range(len(data))] == [f"{a}-0000", f"{a}-0001"]
    fields = data.read(0)
    label = json.loads(fields.pop("json"))
    assert label["frames"] == [0, 1, 2, 3, 6, 7]
    assert sorted(fields) == [f"f{n:04d}.jpg" for n in range(6)]
    assert np.array(label["camera"]).shape == (6, 25)
    np.testing.assert_allclose(label["expression"], np.repeat([[n / 100] for n in label["frames"]], 52, 1), atol=1e-6)
    assert {name: len(label[name]) for name in ("pose", "residual")} == {"pose": 6, "residual": 6}
    about = {name: label[name] for name in ("source", "licence", "person", "clip", "shot", "fps")}
    assert about == {"source": "films", "licence": "CC0-1.0", "person": "Ada", "clip": a, "shot": 0, "fps": 25.0}
    assert label["yaw"] == pytest.approx(np.rad2deg(0.02), abs=0.6)
    frames = list(decode_clip(films[0]))
    for number, image in zip(label["frames"], fields.values()):
        wanted = crop_quad(frames[number], QUAD, 32).astype(int)
        assert np.abs(pictures.decode(image) - wanted).max() < 12  # JPEG
    assert json.loads(data.read(1)["json"])["identity"] == [1.0] * 80
    assert (counts["samples"], counts["frames"], counts["in"], counts["kept"]) == (2, 10, 3, 1)


def test_every_lost_clip_has_its_reason(project):
    (a, b, c), _ = project
    takedown.add([{"id": a}])
    rows = [row(a, n) for n in range(6)] + [lost(b, n, "no_face") for n in range(12)] + [row(c, 0), row(c, 1)]
    counts = run(rows)
    assert counts["reasons"] == {"no_face": 1, "short_run": 1, "taken_down": 1}
    assert (counts["kept"], counts["rejected"]) == (0, 3)


def test_long_shots_make_several_samples(project):
    (a, *_), _ = project
    text = Path("params.yaml").read_text().replace("min_frames: 3", "min_frames: 3, max_frames: 5")
    Path("params.yaml").write_text(text)
    run([row(a, n) for n in range(12)])
    data = ShardDataset(SHARDS)
    found = [json.loads(data.read(n)["json"])["frames"] for n in range(len(data))]
    assert found == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]  # two are left, too few


def test_without_clips_the_set_is_empty_and_all_who_read_it_bear_that(project, tmp_path):
    counts = run([])
    assert (counts["samples"], counts["in"]) == (0, 0)
    assert json.loads((SHARDS / "dataset.json").read_text())["samples"] == 0
    assert checks.samples_are_whole(SHARDS, set(), 4).passed
    assert len(data_versions.read_version(tmp_path, SHARDS)) == 0
    run([row(project[0][0], n) for n in range(6)])
    found = data_versions.read_version(tmp_path, SHARDS).to_pylist()
    assert [(one["id"], one["source"]) for one in found] == [(f"{project[0][0]}-0000", "films")]
    assert checks.samples_are_whole(SHARDS, {project[0][0]}, 4).passed


def test_labels_of_frames_that_the_clip_lacks_are_an_error(project, capsys):
    run([row(project[0][0], n) for n in range(20)], code=1)
    assert "fewer frames than its labels" in capsys.readouterr().err
