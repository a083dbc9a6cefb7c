"""Each gate passes what is right and fails what is wrong, with words that help."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.camera import intrinsics, pack_label, pose_on_sphere
from ops import checks
from ops.checks import (
    CheckParams,
    Verdict,
    cameras_are_valid,
    counts_add_up,
    curves_are_finite,
    distance_halves,
    gates_of,
    more_frames_help,
    run_gate,
    terms_fall,
)
from ops.dag import Dag
from ops.store import pictures, tables
from ops.store.reader import ShardDataset
from ops.store.tar import ShardWriter

IDS = [f"{i:016x}" for i in range(6)]
KEPT = {"screen": IDS[:5], "camera": IDS[:4]}

DVC_YAML = """
stages:
  crawl:
    foreach: ${sources}
    do:
      cmd: crawl
      outs:
        - data/raw/${key}
  screen:
    foreach: ${sources}
    do:
      cmd: screen
      deps:
        - data/raw/${key}
      outs:
        - data/labels/${key}/screen.parquet
  camera:
    foreach: ${sources}
    do:
      cmd: camera
      deps:
        - data/raw/${key}
        - data/labels/${key}/screen.parquet
      outs:
        - data/labels/${key}/camera.parquet
  shards:
    cmd: shards
    deps:
      - data/raw
      - data/labels
    outs:
      - data/shards/faces
  train_tiny:
    matrix:
      variant: [plain]
    cmd: train
    deps:
      - data/shards/faces
    outs:
      - data/checkpoints/tiny/${item.variant}
"""


def label(radius: float = 2.7) -> list[float]:
    pose = pose_on_sphere(torch.tensor(0.3), torch.tensor(0.1), radius)
    return pack_label(pose, intrinsics()).tolist()


def label_table(path: Path, ids: list[str], kept: list[str], **columns: list[object]) -> None:
    table = pa.table(
        {
            "id": ids,
            **columns,
            "kept": [i in kept for i in ids],
            "reason": pa.array([None if i in kept else "blurred" for i in ids], pa.string()),
        }
    )
    tables.write(path, table, stage=path.stem)


def write_shards(folder: Path, ids: list[str], size: int = 16) -> None:
    picture = pictures.encode_png(np.full((16, 16, 3), 90, np.uint8))
    with ShardWriter(folder, per_shard=3) as writer:
        for key in ids:
            sample = {"camera": label(), "source": "studio"}
            writer.add(key, {"png": picture, "mask.png": picture, "json": json.dumps(sample).encode()})
    summary = {"samples": len(ids), "resolution": size, "hash": ShardDataset(folder).hash}
    (folder / "dataset.json").write_text(json.dumps(summary))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """All results of a small lineage, as they should be."""
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text("sources:\n  studio:\n    kind: studio\nchecks:\n  at_least: 2\n")
    with ShardWriter(tmp_path / "data/raw/studio", per_shard=4) as writer:
        for key in IDS:
            writer.add(key, {"png": b"original"})
    labels = tmp_path / "data/labels/studio"
    label_table(labels / "screen.parquet", IDS, KEPT["screen"])
    label_table(labels / "camera.parquet", KEPT["screen"], KEPT["camera"], camera=[label()] * len(KEPT["screen"]))
    write_shards(tmp_path / "data/shards/faces", KEPT["camera"])
    checkpoint = tmp_path / "data/checkpoints/tiny/plain"
    checkpoint.mkdir(parents=True)
    (checkpoint / "curves.csv").write_text("step,loss,term\n0,1.5,d\n1,,g\n")
    return tmp_path


def verdicts(root: Path) -> dict[str, Verdict]:
    dag, params = Dag.load(root), checks.load_thresholds(root)
    return {
        f"{unit.name} {gate.name}": run_gate(gate, dag, unit, params)
        for unit in dag.units.values()
        for gate in gates_of(unit)
    }


def test_what_is_right_passes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verdicts(project)
    assert set(found) == {
        "crawl@studio shards_are_readable",
        "crawl@studio enough_samples",
        "screen@studio counts_add_up",
        "screen@studio enough_samples",
        "camera@studio counts_add_up",
        "camera@studio cameras_are_valid",
        "camera@studio enough_samples",
        "shards samples_match_labels",
        "shards cameras_are_valid",
        "shards enough_samples",
        "train_tiny@plain losses_are_finite",
    }
    assert {name for name, verdict in found.items() if not verdict.passed} == set()
    assert found["camera@studio counts_add_up"].numbers == {"rows": 5, "kept": 4, "rejected": 1, "before": 5}
    assert checks.main([str(project)]) == 0
    assert "FAIL" not in capsys.readouterr().out


def lose_a_row(root: Path) -> None:
    path = root / "data/labels/studio/camera.parquet"
    label_table(path, KEPT["screen"][1:], KEPT["camera"], camera=[label()] * 4)


def swap_rows(root: Path) -> None:
    ids = [KEPT["screen"][1], KEPT["screen"][0], *KEPT["screen"][2:]]
    label_table(root / "data/labels/studio/camera.parquet", ids, KEPT["camera"], camera=[label()] * 5)


def cut_a_raw_shard(root: Path) -> None:
    path = root / "data/raw/studio/000000.tar"
    path.write_bytes(path.read_bytes()[:-1])


def mirror_a_camera(root: Path) -> None:
    wrong = label()
    wrong[0], wrong[4], wrong[8] = -wrong[0], -wrong[4], -wrong[8]
    label_table(
        root / "data/labels/studio/camera.parquet", KEPT["screen"], KEPT["camera"], camera=[label()] * 2 + [wrong] * 3
    )


def move_a_camera_away(root: Path) -> None:
    label_table(
        root / "data/labels/studio/camera.parquet", KEPT["screen"], KEPT["camera"], camera=[label(5.0), *[label()] * 4]
    )


def keep_too_few(root: Path) -> None:
    (root / "params.yaml").write_text("sources:\n  studio:\n    kind: studio\nchecks:\n  at_least_of:\n    shards: 5\n")


def add_a_stranger(root: Path) -> None:
    folder = root / "data/shards/faces"
    for path in folder.iterdir():
        path.unlink()
    write_shards(folder, [*KEPT["camera"], IDS[5]])


def exchange_a_shard(root: Path) -> None:
    folder = root / "data/shards/faces"
    said = (folder / "dataset.json").read_text()
    write_shards(folder, [KEPT["camera"][1], KEPT["camera"][0], *KEPT["camera"][2:]])
    (folder / "dataset.json").write_text(said)


def wrong_size(root: Path) -> None:
    write_shards(root / "data/shards/faces", KEPT["camera"], size=32)


def damage_a_picture(root: Path) -> None:
    folder = root / "data/shards/faces"
    with ShardWriter(folder, per_shard=3) as writer:
        for key in KEPT["camera"]:
            writer.add(key, {"png": b"\x89PNG\r\n\x1a\n but no more", "json": b"{}"})
    summary = {"samples": 4, "resolution": 16, "hash": ShardDataset(folder).hash}
    (folder / "dataset.json").write_text(json.dumps(summary))


def diverge(root: Path) -> None:
    (root / "data/checkpoints/tiny/plain/curves.csv").write_text("step,loss\n0,1.5\n1,nan\n")


def cut_the_curves(root: Path) -> None:
    (root / "data/checkpoints/tiny/plain/curves.csv").write_text("step,loss\n0,1.5\n1\n")


@pytest.mark.parametrize(
    ("spoil", "gate", "says"),
    [
        (lose_a_row, "camera@studio counts_add_up", "4 rows, where the step before kept 5"),
        (swap_rows, "camera@studio counts_add_up", "row 0 is of"),
        (cut_a_raw_shard, "crawl@studio shards_are_readable", "bytes, where"),
        (mirror_a_camera, "camera@studio cameras_are_valid", "reflection"),
        (move_a_camera_away, "camera@studio cameras_are_valid", "2.700 to 5.000 from the pivot"),
        (keep_too_few, "shards enough_samples", "4 samples, at least 5 wanted"),
        (add_a_stranger, "shards samples_match_labels", "1 samples are in no label table"),
        (exchange_a_shard, "shards samples_match_labels", "hash differs"),
        (wrong_size, "shards samples_match_labels", "not 32 x 32"),
        (damage_a_picture, "shards samples_match_labels", "PictureError"),
        (diverge, "train_tiny@plain losses_are_finite", "'loss' is nan in row 1"),
        (cut_the_curves, "train_tiny@plain losses_are_finite", "row 1 of curves.csv has not as many values"),
    ],
)
def test_what_is_wrong_fails(
    project: Path, spoil: Callable[[Path], None], gate: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(project)
    verdict = verdicts(project)[gate]
    assert not verdict.passed
    assert says in verdict.message
    assert checks.main([str(project)]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_steps_may_go_back_before_others_and_clips_have_rows_of_frames(project: Path) -> None:
    """Heads go on from the screening, whatever the camera step read beside it rejects; clips from the raw shards."""
    text = (project / "dvc.yaml").read_text()
    more = """  heads:
    foreach: ${sources}
    do:
      cmd: heads
      deps:
        - data/raw/${key}
        - data/labels/${key}/screen.parquet
        - data/labels/${key}/camera.parquet
      outs:
        - data/labels/${key}/heads.parquet
  track_clips:
    foreach: ${sources}
    do:
      cmd: clips
      deps:
        - data/raw/${key}
      outs:
        - data/labels/${key}/clips.parquet
  shards:
"""
    (project / "dvc.yaml").write_text(text.replace("  shards:\n", more, 1))
    labels, folder = project / "data/labels/studio", project / "data/shards/faces"
    label_table(labels / "heads.parquet", KEPT["screen"], KEPT["screen"])
    label_table(labels / "clips.parquet", [f"{IDS[-1]}-{n:06d}" for n in range(3)], [f"{IDS[-1]}-000001"])
    for path in folder.iterdir():
        path.unlink()
    write_shards(folder, [*KEPT["screen"], f"{IDS[-1]}-0000"])
    assert {name: v.message for name, v in verdicts(project).items() if not v.passed} == {}
    label_table(labels / "clips.parquet", [f"{IDS[-1]}-000000"], [])
    failed = {name: v.message for name, v in verdicts(project).items() if not v.passed}
    assert list(failed) == ["shards samples_match_labels"]
    assert "1 samples are in no label table" in failed["shards samples_match_labels"]


def test_kept_and_rejected_make_the_whole() -> None:
    """A table that no stage could write, as writing refuses it; a gate must not rely on that."""
    table = pa.table({"id": IDS[:2], "kept": [True, True], "reason": pa.array([None, "blurred"], pa.string())})
    assert "2 kept and 1 rejected do not make 2 rows" in counts_add_up(table, None).message


def test_no_camera_and_no_curve(tmp_path: Path) -> None:
    assert cameras_are_valid(np.empty((0, 25)), CheckParams()).passed
    (tmp_path / "curves.csv").write_text("step,loss\n")
    assert not curves_are_finite(tmp_path / "curves.csv").passed


@pytest.mark.parametrize(
    ("most", "passed", "words"),
    [
        ({"mean": 0.3, "interval": [0.1, 0.5]}, True, "8 frames: better: +0.3 dB over one, 95 % interval 0.1 to 0.5"),
        ({"mean": 0.3, "interval": [-0.1, 0.7]}, True, "neither better nor worse"),
        ({"mean": -0.3, "interval": [-0.5, -0.1]}, False, "worse: -0.3 dB"),
        ({"mean": 0.3, "interval": None}, True, "not measured"),
    ],
)
def test_more_frames_fail_only_where_the_interval_says_so(most: dict, passed: bool, words: str) -> None:
    fewer = {"mean": 0.6, "interval": [0.5, 0.7]}
    ordered = {"1": {}, "2": {"psnr_gain": fewer}, "8": {"psnr_gain": most}}
    found = more_frames_help({"encoders": {"recurrent": {"by_frames": {"ordered": ordered}}}})
    assert found.passed == passed
    assert words in found.message
    assert more_frames_help({"encoders": {}}).passed


@pytest.mark.parametrize(("last", "passed"), [(499.0, True), (501.0, False)])
def test_the_distance_of_heads_halves_or_not(last: float, passed: bool) -> None:
    kept = {"fd_curve": [{"fd": 1000.0}, {"fd": 300.0}, {"fd": last}]}
    found = distance_halves({"variants": {"spherehead": kept, "eg3d": {"fd_curve": []}}})
    assert found.passed == passed
    assert found.message == f"spherehead: 1000 to {last:.4g}, 50% left"
    assert distance_halves({"variants": {"eg3d": {"fd_curve": []}}}).passed


def test_not_made_yet_is_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "data/labels/studio/camera.parquet").unlink()
    assert checks.main([str(project)]) == 0
    said = capsys.readouterr().out
    for name in ("camera@studio", "shards"):
        assert f"{name}: not checked, as data/labels/studio/camera.parquet has not been made" in said


def test_losses_of_portraits_are_judged_term_by_term(project: Path) -> None:
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("checkpoints/tiny/", "checkpoints/portrait/"))
    folder = project / "data/checkpoints/portrait/plain"
    folder.mkdir(parents=True)
    name = "train_tiny@plain loss_terms_fall"
    rows = "step,imitation,imitation_untaught,minimal,generator_face\n1,4,2,1,1\n2,3,2,{},2\n3,{},2,2,3\n"
    (folder / "curves.csv").write_text(rows.format(3, 1))
    verdict = verdicts(project)[name]
    assert verdict.passed, verdict.message
    assert "imitation, of an untaught network's, fell: 2 to 0.5" in verdict.message
    assert "nothing is asked: generator_face" in verdict.message
    assert verdict.numbers["minimal.peak"] == 3
    (folder / "curves.csv").write_text(rows.format(1.5, 5))
    verdict = verdicts(project)[name]
    assert not verdict.passed
    assert verdict.message.startswith("imitation, of an untaught network's, did not fall: 2 to 2.5; minimal has not")
    assert not next(
        gate for gate in gates_of(Dag.load(project).units["train_tiny@plain"]) if gate.name in name
    ).blocking


def test_curves_without_the_losses_of_portraits_fail() -> None:
    assert not terms_fall({"step": np.arange(3.0)}).passed
