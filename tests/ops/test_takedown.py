"""Takedown and lineage on a small project: a sample is found everywhere, and gone after the next run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import cli
from ops.crawl.__main__ import main as crawl
from ops.crawl.raw import TABLE, sample_id
from ops.curate import takedown
from ops.curate.screen import main as screen
from ops.runtime.errors import LineamentError
from ops.store import tables
from ops.store.pictures import encode_jpeg
from ops.store.reader import ShardDataset
from ops.store.tar import ShardWriter

PARAMS = """
sources:
  mine: {kind: folder, path: photos, licence: private}
crawl: {per_shard: 2}
screen: {min_side: 32, min_laplacian: 0, max_svd_ratio: 1.0, svd_side: 64}
"""
NAMES = ("a", "b", "c", "d", "e")


def photo(number: int, quality: int = 95) -> bytes:
    coarse = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return encode_jpeg(cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC), quality)


@pytest.fixture
def project(tmp_path, monkeypatch) -> dict[str, str]:
    """Five photos crawled and screened, two of them in shards that a checkpoint was trained on; ids by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINEAMENT_WORKERS", "1")
    Path("params.yaml").write_text(PARAMS)
    Path("photos").mkdir()
    for number, name in enumerate(NAMES):
        Path("photos", f"{name}.jpg").write_bytes(photo(number))
    Path("photos/a_again.jpg").write_bytes(photo(0, quality=60))
    run()
    ids = {path.stem: sample_id(path.read_bytes()) for path in Path("photos").iterdir()}
    folder = Path("data/shards/faces")
    with ShardWriter(folder, 2) as writer:
        for name in ("a", "b", "c"):
            writer.add(ids[name], {"json": json.dumps({"source": "mine", "yaw": 0.0}).encode()})
    version = ShardDataset(folder).hash
    (folder / "dataset.json").write_text(json.dumps({"hash": version, "samples": 3, "resolution": 8}))
    for model, data in (("giraffe/plain", version), ("giraffe/other", "0" * 64)):
        Path("data/checkpoints", model).mkdir(parents=True)
        Path("data/checkpoints", model, "config.json").write_text(json.dumps({"data": data}))
    return ids


def run() -> dict[str, str | None]:
    """Crawl and screen; the reason of each sample by id."""
    assert crawl(["data/raw/mine", "data/truth/mine", "--source", "mine"]) == 0
    assert screen(["data/raw/mine", "data/labels/mine/screen.parquet"]) == 0
    rows = tables.read(Path("data/labels/mine/screen.parquet")).to_pylist()
    return {row["id"]: row["reason"] for row in rows}


def outcomes(ids: dict[str, str]) -> dict[str, str | None]:
    found = run()
    return {name: found[key] for name, key in ids.items()}


def test_a_sample_is_found_wherever_it_is(project, capsys):
    assert cli.main(["takedown", "list"]) == 0
    assert cli.main(["lineage", str(Path("photos/b.jpg"))]) == 0
    words = capsys.readouterr().out
    for said in ("data/raw/mine/000001.tar", "b.jpg", "licence private", "data/labels/mine/screen.parquet", "kept",
                 "data/shards/faces/000000.tar", "data/checkpoints/giraffe/plain"):  # fmt: skip
        assert said in words, "whoever saw it is named, though nobody has asked before"
    assert "giraffe/other" not in words
    assert cli.main(["lineage", "a_again.jpg"]) == 0
    assert "near_duplicate" in capsys.readouterr().out
    assert cli.main(["lineage", "nowhere.jpg"]) == 1
    assert "no sample has this address" in capsys.readouterr().err
    assert cli.main(["lineage", "0" * 16]) == 0
    assert "nothing here" in capsys.readouterr().out


def test_shards_are_found_by_index_and_by_remembered_version_alike(project):
    from ops.trace import _shards, remember

    before = {name: list(_shards(Path(), key)) for name, key in project.items()}
    remember(Path())
    assert before == {name: list(_shards(Path(), key)) for name, key in project.items()}
    assert [p.where for p in before["c"]] == ["data/shards/faces/000001.tar"]
    assert before["d"] == []


def test_a_takedown_removes_the_picture_and_its_likes_and_names_who_saw_it(project, capsys):
    assert cli.main(["takedown", "add", project["a"], "--reason", "asked by mail"]) == 0
    words = capsys.readouterr().out
    assert "checkpoint data/checkpoints/giraffe/plain was trained on 1 of them" in words
    assert "giraffe/other" not in words
    assert "2 samples here" in words
    found = outcomes(project)
    assert found == {"a": "taken_down", "a_again": "taken_down", "b": None, "c": None, "d": None, "e": None}
    assert cli.main(["takedown", "add", project["a"], "--reason", "asked by mail"]) == 0
    assert "0 new" in capsys.readouterr().out
    # The shards are made anew without it: who saw it stays known.
    for path in Path("data/shards/faces").iterdir():
        path.unlink()
    assert cli.main(["takedown", "list"]) == 0
    assert "giraffe/plain was trained on 1 of them" in capsys.readouterr().out


def test_one_table_row_of_each_kind_takes_down(project):
    crawled = {row["name"]: row for row in tables.read(Path("data/raw/mine") / TABLE).to_pylist()}
    hashes = {r["id"]: r["phash"] for r in tables.read(Path("data/labels/mine/screen.parquet")).to_pylist()}
    rows = [
        {"id": project["a_again"]},
        {"sha256": project["b"] + "0" * 48},
        {"url": crawled["c.jpg"]["name"]},
        {"phash": f"{hashes[project['d']] ^ 0b101:016x}"},
    ]
    assert takedown.add(rows) == 4
    found = outcomes(project)
    assert found == {**dict.fromkeys(["a", "a_again", "b", "c", "d"], "taken_down"), "e": None}


def test_a_picture_that_is_not_here_is_matched_by_likeness(project, capsys):
    Path("other.jpg").write_bytes(photo(4, quality=50))
    assert cli.main(["takedown", "add", "other.jpg"]) == 0
    assert "1 samples here" in capsys.readouterr().out
    assert outcomes(project)["e"] == "taken_down"


def test_what_is_taken_down_is_not_stored_again(project):
    takedown.add([{"id": sample_id(photo(7))}, {"url": "f.jpg"}])
    for number, name in ((7, "new"), (8, "f"), (9, "g")):
        Path("photos", f"{name}.jpg").write_bytes(photo(number))
    run()
    rows = {row["name"]: row["reason"] for row in tables.read(Path("data/raw/mine") / TABLE).to_pylist()}
    assert (rows["new.jpg"], rows["f.jpg"], rows["g.jpg"]) == ("taken_down", "taken_down", None)


def test_an_address_that_is_not_here_can_be_named_and_other_words_cannot(project, capsys):
    assert cli.main(["takedown", "add", "https://example.org/me.jpg"]) == 0
    assert takedown.read().urls == {"https://example.org/me.jpg"}
    assert cli.main(["takedown", "add", "nobody"]) == 1
    assert "no id, sha256 or file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [("id\nxyz\n", "is no id"), ("sha256\nabc\n", "is no sha256"), ("id,reason\n,asked\n", "names no picture"),
     ("picture\nme.jpg\n", "none of the columns"), ("phash\n123\n", "is no phash")],
)  # fmt: skip
def test_a_broken_list_stops_the_run(project, capsys, text, says):
    Path("data/takedown.csv").write_text(text)
    before = Path("data/labels/mine/screen.parquet").read_bytes()
    assert screen(["data/raw/mine", "data/labels/mine/screen.parquet"]) == 1
    assert says in capsys.readouterr().err
    assert Path("data/labels/mine/screen.parquet").read_bytes() == before


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_list_is_read_or_a_clear_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("lists") / "takedown.csv"
    path.write_text("id,url\n" + text, encoding="utf-8")
    try:
        takedown.read(path)
    except LineamentError as error:
        assert str(path) in str(error)  # noqa: PT017  either outcome is right


def test_it_says_which_shards_still_hold_it_the_held_out_ones_too(project, capsys):
    with ShardWriter(Path("data/shards/heads/held_out"), 2) as writer:
        for name in ("a-h2", "d"):
            key = project[name[0]] + name[1:]
            writer.add(key, {"json": b"{}"})
    assert cli.main(["takedown", "add", project["d"], project["a"]]) == 0
    said = capsys.readouterr().out
    assert "data/shards/faces still holds 1 of them: run `dvc repro`" in said
    assert "data/shards/heads/held_out still holds 2 of them" in said
    assert "delete data/raw/SOURCE" in said
    assert cli.main(["lineage", project["d"]]) == 0
    assert "data/shards/heads/held_out/000000.tar" in capsys.readouterr().out
    assert cli.main(["takedown", "add", project["e"]]) == 0
    assert "still holds" not in capsys.readouterr().out


def test_who_deletes_the_raw_shards_is_rid_of_the_bytes(project):
    assert cli.main(["takedown", "add", project["b"]]) == 0
    outcomes({})
    assert any(project["b"] in shard.keys for shard in ShardDataset(Path("data/raw/mine")).shards), "raw never changes"
    shutil.rmtree("data/raw/mine")
    run()
    assert not any(project["b"] in shard.keys for shard in ShardDataset(Path("data/raw/mine")).shards)
