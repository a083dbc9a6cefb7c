"""The data sheet: its counts are those of the tables, its sentences those of its counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic import dag, label_table, write_labels
from ops.crawl.raw import RawPicture, add_pictures, sample_id
from ops.report.datasheet import main
from ops.report.datasheet_text import biases
from ops.report.page import Embedding
from ops.store import tables
from ops.store.pictures import encode_jpeg
from ops.store.reader import ShardDataset
from ops.store.tar import ShardWriter

PARAMS = """
sources:
  web: {kind: urls, path: list.txt}
  mine: {kind: folder, path: photos, licence: private}
datasheet: {view_bin: 30, shown: 4}
"""
COUNT = 10
REASONS = [None, None, None, None, "taken_down", "rejected_by_hand", "blurred", "blurred", "too_small", None]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(dag(["screen", "camera"]))
    Path("params.yaml").write_text(PARAMS)
    for number, source in enumerate(("web", "mine")):
        rng = np.random.default_rng(number)
        photos = [encode_jpeg(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)) for _ in range(COUNT)]
        offered = [
            RawPicture(f"{i}", data, {"licence": ("CC0", "unknown")[i % 2], "url": f"http://{'ab'[i % 2]}.example/{i}"})
            for i, data in enumerate(photos)
        ]
        broken = RawPicture("broken", None, problem="timeout")
        add_pictures(Path("data/raw", source), source, "s", [*offered, broken], 4)
        ids = [sample_id(data) for data in photos]
        sides = {"width": list(range(100, 110)), "height": [200] * COUNT}
        write_labels(tmp_path, source, "screen", ids, REASONS, **sides)
        kept = [key for key, reason in zip(ids, REASONS) if reason is None]
        write_labels(
            tmp_path, source, "camera", kept, [None] * 4 + ["turned_too_far"], yaw=[-10.0, 5.0, 20.0, 170.0, 60.0]
        )
    with ShardWriter(Path("data/shards/faces"), 4) as writer:
        for key, data in zip(ids, photos):
            writer.add(key, {"jpg": data, "json": b"{}"})
    summary = {"samples": COUNT, "resolution": 40, "hash": ShardDataset(Path("data/shards/faces")).hash}
    Path("data/shards/faces/dataset.json").write_text(json.dumps(summary))
    return tmp_path


def run(code: int = 0) -> dict:
    assert main([".", "data/datasheet", "--metrics", "m.json", "--preview", "p.png"]) == code
    return json.loads(Path("data/datasheet/datasheet.json").read_text()) if code == 0 else {}


def test_counts_are_those_of_the_tables(project):
    sheet = run()
    web = sheet["sources"]["web"]
    assert (web["offered"], web["kept"], web["kind"]) == (COUNT + 1, COUNT, "urls")
    assert web["licences"] == {"CC0": 5, "unknown": 5}
    assert web["hosts"] == {"a.example": 5, "b.example": 5}
    assert sheet["steps"]["web"]["crawl"]["reasons"] == {"timeout": 1}
    assert sheet["steps"]["mine"]["screen"]["reasons"] == {
        "blurred": 2, "rejected_by_hand": 1, "taken_down": 1, "too_small": 1,
    }  # fmt: skip
    assert (sheet["taken_down"], sheet["rejected_by_hand"]) == (2, 2)
    assert sheet["sizes"]["0"] == 100
    assert sheet["sizes"]["100"] == 109
    assert sheet["views"]["before"] == [0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 0, 2] == sheet["views"]["after"]
    assert sheet["shards"]["faces"]["samples"] == COUNT
    assert json.loads(Path("m.json").read_text())["taken_down"] == 2


def test_views_after_balancing_are_those_of_the_balance_table(project):
    keys = [f"{number:016x}" for number in range(3)]
    table = label_table(keys, yaw=[0.0, 10.0, 179.0], duplicates=[1, 1, 8])
    tables.write(Path("data/balance.parquet"), table, "balance")
    sheet = run()
    assert sheet["views"]["before"] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1]
    assert sheet["views"]["after"] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 8]
    said = " ".join(sheet["biases"])
    assert "67 % of the pictures show the face" in said
    assert "20 % of what training sees show the face" in said
    assert "80 % the back" in said


def test_sentences_name_what_is_uneven(project):
    said = " ".join(run()["biases"])
    assert "The licence of 10 pictures is unknown." in said
    assert "50 % of all pictures come from the source web." in said
    assert "screen leaves out 20 % of mine as blurred." in said
    assert "taken down" not in said.replace("Taken down", "")
    assert "9 of 12 groups of azimuth have no picture" in said
    assert "6 pictures from the subject's left, 2 from the right" in said
    assert "skin colour" in said


def test_without_any_camera_it_says_so(project):
    for source in ("web", "mine"):
        Path("data/labels", source, "camera.parquet").unlink()
    assert run()["biases"][0] == "No picture has a camera label yet."


def test_a_sheet_of_nothing_has_no_percentages():
    empty = {"views": {"edges": [-180, 180], "before": [0], "after": [0]}, "sources": {}, "steps": {}}
    assert len(biases(empty)) == 2


def test_pages_and_pictures_stand_beside_each_other_and_are_the_same_each_time(project):
    run()
    first = {path.name: path.read_bytes() for path in Path("data/datasheet").iterdir()}
    assert {"datasheet.md", "views.png", "shards_faces.jpg", "fell_web.jpg", "fell_mine.jpg"} <= set(first)
    text = first["datasheet.md"].decode()
    assert all(name in text for name in first if name.endswith((".jpg", ".png")))
    run()
    assert {path.name: path.read_bytes() for path in Path("data/datasheet").iterdir()} == first


def test_what_others_wrote_cannot_break_the_page(project):
    from ops.report.data import datasheet_section

    provenance = {"licence": "<script>|x", "url": "http://[::1"}
    odd = RawPicture("x", encode_jpeg(np.zeros((8, 8, 3), np.uint8)), provenance)
    add_pictures(Path("data/raw/web"), "web", "other", [odd], 4)
    run()
    text = Path("data/datasheet/datasheet.md").read_text()
    assert "<script>" not in text
    assert "&lt;script>\\|x 1" in text
    page = datasheet_section(Path(), Embedding(600, 80))
    assert "<script>" not in page
    assert "Known to be uneven" in page


def test_a_source_that_was_not_crawled_is_named(project, capsys):
    Path("data/raw/web/crawl.parquet").unlink()
    run(code=1)
    assert "dvc repro crawl@web" in capsys.readouterr().err
