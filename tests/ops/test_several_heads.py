"""Pictures of several people under each policy: with `all`, each head is a sample from its detection to the shards."""

from __future__ import annotations

import csv
import importlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.headpose import HeadPose, HeadPoseConfig
from models.parser import Parser, ParserConfig
from ops import cli
from ops.checks import counts_add_up
from ops.curate import seeing
from ops.curate.detect import DetectParams, label
from ops.curate.heads import HeadsParams
from ops.curate.labelling import Sample
from ops.curate.review import LIST as REVIEW
from ops.curate.seeing import heads_of
from ops.shards.heads import is_held_out
from ops.store import pictures, tables
from ops.store.reader import ShardDataset
from ops.studio.crawl import Studio
from ops.studio.params import StudioParams
from tests.ops.test_lineage_of_heads import network

PARAMS = """
sources:
  mine: {kind: folder, path: photos, licence: private, people: folders}
crawl: {per_shard: 2}
screen: {min_side: 256, min_laplacian: 0, max_svd_ratio: 1.0}
detect: {several: POLICY, several_share: 0.25}
landmarks: {min_score: 0}
align: {max_outside: 1, min_crop: 16}
camera: {max_residual: 60, max_yaw: 90}
segment: {resolution: 64, min_ratio: 0}
heads: {max_disagreement: 181, max_flip_error: 181, min_presence: 0, max_outside: 1, max_roll: 181, max_pitch: 181,
  min_crop: 1, scale_min: 0.01, scale_max: 100}
parse: {resolution: 64, max_occlusion: 1, max_disagreement: 1, min_mask_ratio: 0, min_parsing_ratio: 0}
balance: {target: 2, bin_width: 90, cap: 3}
shards_faces: {resolution: 48, max_yaw: 180}
shards_heads: {resolution: 48, per_shard: 2, held_out: 0}
"""
RAW, LABELS = "data/raw/mine", "data/labels/mine"
TABLE = {
    name: f"{LABELS}/{name}.parquet"
    for name in ("screen", "detect", "landmarks", "align", "camera", "segment", "heads", "parse")
}


STEPS = (
    ("crawl.__main__", [RAW, "data/truth/mine", "--source", "mine"]),
    ("curate.screen", [RAW, TABLE["screen"]]),
    ("curate.detect", [RAW, TABLE["screen"], "WEIGHTS", TABLE["detect"]]),
    ("curate.landmarks", [RAW, TABLE["detect"], "WEIGHTS", TABLE["landmarks"]]),
    ("curate.align", [RAW, TABLE["landmarks"], TABLE["align"]]),
    ("curate.camera", [RAW, TABLE["align"], TABLE["landmarks"], TABLE["camera"]]),
    ("curate.segment", [RAW, TABLE["camera"], TABLE["align"], "WEIGHTS", f"{LABELS}/masks", TABLE["segment"]]),
    ("curate.heads", [RAW, *(TABLE[n] for n in ("screen", "detect", "align", "camera")), "pose", TABLE["heads"]]),
    ("curate.parse", [RAW, TABLE["heads"], "WEIGHTS", "parser", f"{LABELS}/parsing", TABLE["parse"]]),
    ("curate.balance", ["data/labels", "data/balance.parquet"]),
    ("shards.faces", ["data/raw", "data/labels", "data/shards/faces"]),
    ("shards.heads", ["data/raw", "data/labels", "data/balance.parquet", "data/shards/heads"]),
)


@pytest.fixture(scope="module")
def group() -> np.ndarray:
    """(384, 512, 3) two people of the studio beside one another, both from the front."""
    params = StudioParams(people=2, views=1, size=384, azimuth_front_share=1.0, azimuth_front_spread=5.0)
    studio = Studio(params)
    return np.concatenate([studio.shot(who, 0)[1].picture[:, 64:320] for who in (0, 1)], axis=1)


@pytest.fixture(scope="module")
def project(tmp_path_factory, group, astronaut, weights):
    """The group and a portrait, all steps done with every head kept; the pictures' ids by name."""
    folder = tmp_path_factory.mktemp("several")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LINEAMENT_WORKERS", "1")
        for name, image in {"group": group, "one": astronaut}.items():
            Path("photos", name).mkdir(parents=True)
            Path("photos", name, "a.png").write_bytes(pictures.encode_png(image))
        Path("params.yaml").write_text(PARAMS.replace("POLICY", "all"))
        torch.manual_seed(0)
        network(Path("pose"), "headpose", HeadPose(HeadPoseConfig(side=32, channels=8, hidden=8)))
        network(Path("parser"), "parser", Parser(ParserConfig(side=32, channels=(4, 4, 8, 8))))
        go(weights)
        rows = tables.read(Path(RAW, "crawl.parquet")).to_pylist()
        yield {row["name"].split("/")[0]: row["id"] for row in rows}


def go(weights: Path) -> None:
    for module, words in STEPS:
        main = importlib.import_module(f"ops.{module}").main
        words = [str(weights) if word == "WEIGHTS" else word for word in words]
        assert main([*words, "--metrics", "m.json", "--preview", "p.png"]) == 0, module


def ids_of(name: str) -> list[str]:
    return tables.read(Path(TABLE[name])).column("id").to_pylist()


def test_every_head_is_a_sample_from_its_detection_to_the_shards(project):
    key = project["group"]
    expected = {f"{key}-h1", f"{key}-h2", project["one"]}
    for name in TABLE:
        assert set(ids_of(name)) == (set(project.values()) if name == "screen" else expected), name
    for name in ("faces", "heads"):
        data = ShardDataset(Path("data/shards", name))
        assert {data.key(n) for n in range(len(data))} == expected
    crops = [pictures.decode(data.read(n)["jpg"]).astype(int) for n in range(3)]
    assert min(np.abs(a - b).mean() for a, b in itertools.pairwise(crops)) > 5  # three heads, not one thrice
    said = {data.key(n): json.loads(data.read(n)["json"])["identity"] for n in range(3)}
    assert said == {f"{key}-h1": None, f"{key}-h2": None, project["one"]: "one"}  # whom of a group, nobody knows


def test_heads_lie_where_their_faces_are_and_the_larger_comes_first(project):
    rows = {row["id"]: row for row in tables.read(Path(TABLE["detect"])).to_pylist()}
    aligned = {row["id"]: row for row in tables.read(Path(TABLE["align"])).to_pylist()}
    heads = {row["id"]: row for row in tables.read(Path(TABLE["heads"])).to_pylist()}
    one, two = (rows[f"{project['group']}-h{n}"] for n in (1, 2))
    assert (one["x1"] - one["x0"]) * (one["y1"] - one["y0"]) >= (two["x1"] - two["x0"]) * (two["y1"] - two["y0"])
    assert sorted(row["x0"] > 250 for row in (one, two)) == [False, True]
    for key, row in rows.items():
        middle = np.array([row["x0"] + row["x1"], row["y0"] + row["y1"]]) / 2
        for quad in (aligned[key]["quad"], heads[key]["quad"]):
            corners = np.array(quad).reshape(4, 2)
            assert (corners.min(0) < middle).all()
            assert (middle < corners.max(0)).all()


def test_counts_add_up_although_there_are_more_rows_than_pictures(project):
    before = tables.kept_ids(Path(TABLE["screen"]))
    for name in ("detect", "heads"):
        table = tables.read(Path(TABLE[name]))
        assert counts_add_up(table, before).passed
        lost = table.filter([key != project["one"] for key in table.column("id").to_pylist()])
        assert not counts_add_up(lost, before).passed


def test_a_second_run_gives_the_same_bytes(project, weights):
    before = {path: path.read_bytes() for path in [*Path("data/labels").rglob("*"), *Path("data/shards").rglob("*")]
              if path.is_file()}  # fmt: skip
    go(weights)
    assert {path: path.read_bytes() for path in before} == before


def test_a_head_is_reviewed_and_taken_down_by_its_picture(project, weights, capsys):
    key, other = f"{project['group']}-h1", f"{project['group']}-h2"
    REVIEW.write_text(f"id,decision,yaw,pitch,roll\n{key},pose,30,5,0\n")
    go(weights)
    rows = {row["id"]: row for row in tables.read(Path(TABLE["heads"])).to_pylist()}
    assert rows[key]["yaw"] == pytest.approx(30)
    assert rows[other]["yaw"] != pytest.approx(30)
    REVIEW.unlink()
    assert cli.main(["lineage", key]) == 0
    said = capsys.readouterr().out
    assert "shards/heads" in said
    assert "shards/faces" in said
    assert cli.main(["takedown", "add", other]) == 0
    with open("data/takedown.csv", newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [project["group"]]
    go(weights)
    for name in ("faces", "heads"):
        data = ShardDataset(Path("data/shards", name))
        assert [data.key(n) for n in range(len(data))] == [project["one"]]
    Path("data/takedown.csv").unlink()


@pytest.mark.parametrize(
    ("policy", "found"),
    [("reject", [("k", "several_faces")]), ("largest", [("k", None)]), ("all", [("k-h1", None), ("k-h2", None)])],
)
def test_each_policy(group, weights, policy, found):
    params = DetectParams(several=policy, several_share=0.25)
    sample = Sample("k", "png", pictures.encode_png(group), {"id": "k"})
    assert [(row["id"], row["reason"]) for row in label(iter([sample]), params, weights)] == found


def test_users_boxes_find_heads_without_faces_too(group, monkeypatch):
    """A face keeps its box, whatever its size; a head that looks away gets the next number."""
    boxes = [np.array(box, float) for box in ([200, 0, 500, 300], [0, 100, 190, 290], [300, 300, 420, 380])]
    monkeypatch.setattr(seeing, "head_boxes", lambda image, path: [(box, 0.9) for box in boxes])
    monkeypatch.setattr(seeing, "require", lambda name: Path(name))
    monkeypatch.setattr(seeing, "headpose", lambda path: HeadPose(HeadPoseConfig(side=32, channels=8, hidden=8)))
    small = {"x0": 50, "y0": 150, "x1": 90, "y1": 190, "width": 512, "height": 384, "faces": 1}
    sample = Sample("0" * 16, "png", pictures.encode_png(group), {**small, "id": "0" * 16})
    names = {}
    for policy in ("all", "largest"):
        params = HeadsParams(boxes="yolo", several=policy, several_share=0.3)
        names[policy] = [row["id"][16:] for row in heads_of(iter([sample]), params, Path())]
    assert names == {"all": ["", "-h2"], "largest": [""]}
    pair = [replace(sample.head(1), row={**small, "x0": 350, "x1": 390}), sample.head(2)]
    rows = list(heads_of(iter(pair), HeadsParams(boxes="yolo", several="all", several_share=0.1), Path()))
    assert [row["id"][16:] for row in rows] == ["-h1", "-h2", "-h3"]
    gone = replace(sample.head(2), row={**small, "x0": 500, "x1": 511, "y0": 370, "y1": 383})
    rows = list(heads_of(iter([pair[0], gone]), HeadsParams(boxes="yolo", several_share=0.3), Path()))
    assert [row["reason"] for row in rows] == [None, "no_head"]


def test_all_heads_of_a_picture_are_held_out_together():
    keys = [f"{n:016x}" for n in range(60)]
    apart = [is_held_out(None, f"{key}-h{n}", 0.5) for key in keys for n in (1, 2)]
    assert apart[::2] == apart[1::2]
    assert len(set(apart)) == 2
