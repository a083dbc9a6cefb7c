"""From photos to head shards: the steps after the face's, with networks of a few hundred weights."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.camera import check_label
from models.headpose import HeadPose, HeadPoseConfig
from models.parser import Parser, ParserConfig
from ops.curate import heads, parse
from ops.shards.heads import HELD_OUT, is_held_out
from ops.store import pictures, tables
from ops.store.reader import ShardDataset
from ops.train import checkpoint
from ops.train.checkpoint import Checkpoint

PARAMS = """
sources:
  odd: {kind: folder, path: photos, licence: private}
crawl: {per_shard: 2}
screen: {min_side: 256, min_laplacian: 20, max_svd_ratio: 0.9}
detect: {}
landmarks: {}
align: {}
camera: {}
heads: {max_disagreement: 181, max_flip_error: 181, min_presence: 0, max_outside: 1, max_roll: 181, min_crop: 1,
  shows_face: 0}
parse: {resolution: 64, max_occlusion: 1, max_disagreement: 1, min_mask_ratio: 0, min_parsing_ratio: 0}
balance: {target: 2, bin_width: 90, cap: 3}
shards_heads: {resolution: 48, per_shard: 2, held_out: 0}
"""
RAW, LABELS = "data/raw/odd", "data/labels/odd"


def network(folder: Path, system: str, model: torch.nn.Module) -> str:
    """A network as its stage publishes it."""
    folder.mkdir(parents=True)
    record = {"system": system, "params": {"model": model.config.model_dump(mode="json")}}
    checkpoint.write_into(folder, "config.json", Checkpoint({"network": dict(model.state_dict())}, record))
    return str(folder)


@pytest.fixture(scope="module")
def steps(tmp_path_factory, astronaut, weights):
    """A photo, its mirror image, and noise, taken as far as the cameras of faces; the command lines of what follows."""
    folder = tmp_path_factory.mktemp("heads")
    before = Path.cwd()
    os.chdir(folder)
    os.environ["LINEAMENT_WORKERS"] = "1"
    Path("params.yaml").write_text(PARAMS)
    Path("photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (300, 260, 3), dtype=np.uint8)
    bright = cv2.convertScaleAbs(astronaut[20:, 30:], alpha=1.1)
    for name, image in {"a": astronaut, "b": astronaut[:, ::-1].copy(), "c": noise, "d": bright}.items():
        Path(f"photos/{name}.png").write_bytes(pictures.encode_png(image))
    torch.manual_seed(0)
    pose = network(Path("pose"), "headpose", HeadPose(HeadPoseConfig(side=32, channels=8, hidden=8)))
    parser = network(Path("parser"), "parser", Parser(ParserConfig(side=32, channels=(4, 4, 8, 8))))
    table = {name: f"{LABELS}/{name}.parquet" for name in ("screen", "detect", "landmarks", "align", "camera", "heads")}
    before_heads = {
        "crawl.__main__": [RAW, "data/truth/odd", "--source", "odd"],
        "curate.screen": [RAW, table["screen"]],
        "curate.detect": [RAW, table["screen"], str(weights), table["detect"]],
        "curate.landmarks": [RAW, table["detect"], str(weights), table["landmarks"]],
        "curate.align": [RAW, table["landmarks"], table["align"]],
        "curate.camera": [RAW, table["align"], table["landmarks"], table["camera"]],
    }
    for module, words in before_heads.items():
        assert run(module, words) == 0, module
    yield {
        "curate.heads": [RAW, *(table[n] for n in ("screen", "detect", "align", "camera")), pose, table["heads"]],
        "curate.parse": [RAW, table["heads"], str(weights), parser, f"{LABELS}/parsing", f"{LABELS}/parse.parquet"],
        "curate.balance": ["data/labels", "data/balance.parquet"],
        "shards.heads": ["data/raw", "data/labels", "data/balance.parquet", "data/shards/heads"],
    }
    os.environ.pop("LINEAMENT_WORKERS")
    os.chdir(before)


def run(module: str, words: list[str]) -> int:
    main = importlib.import_module(f"ops.{module}").main
    return main([*words, "--metrics", f"metrics/{module}.json", "--preview", f"previews/{module}.png"])


@pytest.fixture(scope="module")
def shards(steps):
    """All steps, run."""
    for module, words in steps.items():
        assert run(module, words) == 0, module
    return ShardDataset(Path("data/shards/heads"))


def by_name(step: str) -> dict[str, dict]:
    names = {row["id"]: Path(row["name"]).stem for row in tables.read(Path(RAW) / "crawl.parquet").to_pylist()}
    return {names[row["id"]]: row for row in tables.read(Path(f"{LABELS}/{step}.parquet")).to_pylist()}


def test_every_screened_picture_gets_a_head_and_the_mirrored_one_the_mirrored(shards):
    rows = by_name("heads")
    assert {name: row["method"] for name, row in rows.items()} == {
        "a": "landmarks", "b": "landmarks", "c": "network", "d": "landmarks",
    }  # fmt: skip
    a, b = rows["a"], rows["b"]
    assert b["yaw"] == pytest.approx(-a["yaw"], abs=3)
    assert b["pitch"] == pytest.approx(a["pitch"], abs=3)
    quad = np.array(a["quad"]).reshape(4, 2) * [-1, 1] + [512, 0]
    assert np.abs(np.array(b["quad"]).reshape(4, 2) - quad[[3, 2, 1, 0]]).max() < 0.06 * a["crop_size"]
    assert 0.8 < by_name("align")["a"]["crop_size"] / a["crop_size"] < 1.3


def test_the_shards_hold_everything_in_register(shards):
    assert len(shards) == 4
    summary = json.loads(Path("data/shards/heads/dataset.json").read_text())
    assert summary["samples"] == 4
    assert summary["hash"] == shards.hash
    seen = {}
    for number in range(4):
        fields = shards.read(number)
        label = json.loads(fields["json"])
        check_label(torch.tensor(label["camera"]))
        assert set(label) >= {"camera", "source", "identity", "duplicates", "yaw", "pitch", "roll", "view"}
        crop, classes = pictures.decode(fields["jpg"]), pictures.decode_grey(fields["parsing.png"])
        mask = pictures.decode_grey(fields["mask.png"])
        assert crop.shape[:2] == classes.shape == mask.shape == (48, 48)
        assert classes.max() < 19
        assert ((mask > 127) == (classes > 0)).mean() > 0.9
        seen[shards.key(number)] = label["duplicates"]
    assert seen == {row["id"]: row["duplicates"] for row in tables.read(Path("data/balance.parquet")).to_pylist()}
    assert sum(v == "front" for v in (r["view"] for r in by_name("heads").values())) == summary["views"]["front"]


def test_crops_of_mirrored_pictures_are_mirrored(shards):
    ids = {name: row["id"] for name, row in by_name("heads").items()}
    crops = {}
    for number in range(len(shards)):
        crops[shards.key(number)] = pictures.decode(shards.read(number)["jpg"]).astype(float)
    mirrored = np.abs(crops[ids["a"]] - crops[ids["b"]][:, ::-1]).mean()
    assert mirrored < 10
    assert np.abs(crops[ids["a"]] - crops[ids["b"]]).mean() > 2 * mirrored


def test_a_second_run_gives_the_same_bytes(shards, steps):
    paths = [Path("data/labels/odd/heads.parquet"), *Path("data/shards/heads").glob("*.tar")]
    before = {path: path.read_bytes() for path in paths}
    for module, words in steps.items():
        assert run(module, words) == 0
    assert {path: path.read_bytes() for path in paths} == before


def test_people_held_out_stay_held_out(shards, steps, tmp_path):
    text = Path("params.yaml").read_text().replace("held_out: 0}", "held_out: 0.6}")
    (tmp_path / "params.yaml").write_text(text)
    out = str(tmp_path / "heads")
    assert run("shards.heads", [*steps["shards.heads"][:3], out, "--params", str(tmp_path / "params.yaml")]) == 0
    kept, held = ShardDataset(Path(out)), ShardDataset(Path(out) / HELD_OUT)
    assert len(kept) + len(held) == 4
    assert all(is_held_out(None, held.key(n), 0.6) for n in range(len(held)))
    assert not any(is_held_out(None, kept.key(n), 0.6) for n in range(len(kept)))


def test_who_is_held_out_depends_on_the_person_alone():
    people = [str(n) for n in range(4000)]
    chosen = {p for p in people if is_held_out(p, "any", 0.1)}
    assert 320 < len(chosen) < 480
    assert chosen == {p for p in people if is_held_out(p, "other", 0.1)}
    assert chosen < {p for p in people if is_held_out(p, "any", 0.2)}  # a larger share keeps who was out already
    assert not is_held_out(None, "abc", 0.0)


@pytest.mark.parametrize("folder", ["pose", "parser"])
def test_damaged_and_foreign_networks_are_named(shards, steps, folder, tmp_path, capsys):
    step = {"pose": "curate.heads", "parser": "curate.parse"}[folder]
    words = [str(tmp_path / word) if word.endswith(f"{step[7:]}.parquet") else word for word in steps[step]]
    words = [str(tmp_path / "parsing") if word.endswith("/parsing") else word for word in words]
    copy = tmp_path / "network"
    copy.mkdir()
    for file in Path(folder).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    words[words.index(folder)] = str(copy)
    file = copy / "network.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert run(step, words) == 1
    assert "damaged" in capsys.readouterr().err
    record = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(record | {"system": "giraffe"}))
    assert run(step, words) == 1
    assert "is wanted" in capsys.readouterr().err
    file.unlink()
    assert run(step, words) == 1
    assert not (tmp_path / f"{step[7:]}.parquet").exists()


def test_a_parsing_of_other_heads_is_refused(shards, steps, tmp_path, capsys):
    """A balance table that speaks of heads that are not there."""
    table = tables.read(Path("data/balance.parquet")).to_pylist()
    kept = tables.read(Path(f"{LABELS}/heads.parquet"))
    assert len(table) == 4
    labels = tmp_path / "labels/odd"
    labels.mkdir(parents=True)
    tables.write(labels / "heads.parquet", kept.slice(1), "heads")
    words = ["data/raw", str(tmp_path / "labels"), "data/balance.parquet", str(tmp_path / "out")]
    assert run("shards.heads", words) == 1
    assert "has no head for" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_limits_of_the_papers_are_the_defaults():
    assert parse.ParseParams().min_mask_ratio == parse.ParseParams().min_parsing_ratio == 0.3
    assert (heads.HeadsParams().scale_min, heads.HeadsParams().scale_max) == (0.7, 1.3)
    assert (heads.HeadsParams().max_pitch, heads.HeadsParams().max_roll) == (80, 50)
