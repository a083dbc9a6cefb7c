"""From a folder of odd files to training shards: each file ends where it should, and nothing is lost on the way."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from models.camera import check_label
from ops.crawl.raw import TABLE
from ops.status import status_table, step_counts, step_tables
from ops.store import pictures, tables
from ops.store.reader import ShardDataset
from ops.store.tar import Shard
from tests.ops.odd_pictures import write_folder

ROOT = Path(__file__).parents[2]
PARAMS = """
sources:
  odd: {kind: folder, path: photos, licence: private}
crawl: {per_shard: 5}
screen: {min_side: 256, min_laplacian: 20, max_svd_ratio: 0.9}
detect: {}
landmarks: {}
align: {}
camera: {}
segment: {resolution: 64}
shards_faces: {resolution: 64, per_shard: 4}
"""


def words(step: str, weights: Path) -> list[str]:
    """The command line of a step, as dvc.yaml has it."""
    raw, labels = "data/raw/odd", "data/labels/odd"
    networks = [str(weights)]
    before = {
        "screen": [],
        "detect": [f"{labels}/screen.parquet", *networks],
        "landmarks": [f"{labels}/detect.parquet", *networks],
        "align": [f"{labels}/landmarks.parquet"],
        "camera": [f"{labels}/align.parquet", f"{labels}/landmarks.parquet"],
        "segment": [f"{labels}/camera.parquet", f"{labels}/align.parquet", *networks, f"{labels}/masks"],
    }
    if step == "crawl":
        return [raw, "data/truth/odd", "--source", "odd"]
    if step == "shards_faces":
        return ["data/raw", "data/labels", "data/shards/faces"]
    return [raw, *before[step], f"{labels}/{step}.parquet"]


STEPS = ("screen", "detect", "landmarks", "align", "camera", "segment")
MODULES = {"crawl": "ops.crawl.__main__", "shards_faces": "ops.shards.faces"} | {s: f"ops.curate.{s}" for s in STEPS}


OUTPUTS = {
    "crawl": "data/raw/odd",
    "screen": "data/labels/odd/screen.parquet",
    "shards_faces": "data/shards/faces",
}


def run(step: str, weights: Path) -> int:
    metrics, preview = f"metrics/{step}.json", f"previews/{step}.png"
    main = importlib.import_module(MODULES[step]).main
    return main([*words(step, weights), "--metrics", metrics, "--preview", preview])


def write_lineage() -> None:
    """The part of the project's dvc.yaml that is walked here."""
    stages = yaml.safe_load((Path(__file__).parents[2] / "dvc.yaml").read_text())["stages"]
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {step: stages[step] for step in ("crawl", *STEPS)}}))


@pytest.fixture(scope="module")
def project(tmp_path_factory, astronaut, weights):
    """A folder of odd pictures taken through all steps."""
    folder = tmp_path_factory.mktemp("project")
    before = Path.cwd()
    os.chdir(folder)
    os.environ["LINEAMENT_WORKERS"] = "1"
    Path("params.yaml").write_text(PARAMS)
    write_lineage()
    outcomes = write_folder(Path("photos"), astronaut)
    os.symlink("/etc/hostname", "photos/link.jpg")
    for step in ("crawl", *STEPS, "shards_faces"):
        assert run(step, weights) == 0, step
    yield outcomes
    os.environ.pop("LINEAMENT_WORKERS")
    os.chdir(before)


def outcome_by_name() -> dict[str, str]:
    """Every crawled file and where it ended."""
    crawl = tables.read(Path("data/raw/odd") / TABLE).to_pylist()
    fate = {row["id"]: row["reason"] or "kept" for row in crawl}
    for path in list(step_tables("odd").values())[1:]:
        fate |= {row["id"]: row["reason"] for row in tables.read(path).to_pylist() if not row["kept"]}
    return {row["name"]: fate[row["id"]] for row in crawl}


def test_each_file_ends_where_it_should(project):
    assert outcome_by_name() == project


def test_counts_add_up_from_step_to_step(project):
    counts = list(step_counts("odd").values())
    assert all(count is not None for count in counts)
    for before, after in itertools.pairwise(counts):
        assert after["in"] == before["kept"]
        assert after["kept"] + after["rejected"] == after["in"]
    assert json.loads(Path("metrics/shards_faces.json").read_text())["kept"] == counts[-1]["kept"]
    assert "near_duplicate 1" in status_table()


def test_original_bytes_and_provenance_are_kept(project):
    row = next(r for r in tables.read(Path("data/raw/odd") / TABLE).to_pylist() if r["name"] == "really_a_png.jpg")
    shard = Shard(Path("data/raw/odd") / f"{row['shard']}.tar")
    assert shard.read(row["id"], "png") == Path("photos/really_a_png.jpg").read_bytes()
    provenance = json.loads(shard.read(row["id"], "json"))
    assert provenance["licence"] == "private"
    assert provenance["sha256"].startswith(row["id"])


def test_training_shards_hold_upright_faces_with_their_cameras(project):
    data = ShardDataset(Path("data/shards/faces"))
    assert len(data) == sum(outcome == "kept" for outcome in project.values())
    crops = []
    for number in range(len(data)):
        fields = data.read(number)
        label = json.loads(fields["json"])
        check_label(torch.tensor(label["camera"]))
        assert label["fit"] is None  # faces were not fitted here
        assert abs(label["yaw"]) < 25
        assert pictures.decode_grey(fields["mask.png"]).shape == (64, 64)
        crops.append(pictures.decode(fields["jpg"]).astype(float).mean(-1))
    # All show one person, cut by one rule: rotated, palette, CMYK and 16-bit files alike.
    middle = np.median(crops, axis=0)
    assert max(np.abs(crop - middle).mean() for crop in crops) < 12


def test_a_second_run_gives_the_same_bytes(project, weights):
    paths = [Path("data/labels/odd/segment.parquet"), *Path("data/shards/faces").iterdir()]
    before = {path: path.read_bytes() for path in paths}
    for step in ("segment", "shards_faces"):
        assert run(step, weights) == 0
    assert {path: path.read_bytes() for path in paths} == before


def test_a_refresh_adds_shards_and_changes_none(project, weights, astronaut, tmp_path, monkeypatch):
    copy_project(tmp_path, monkeypatch)
    before = {path.name: path.read_bytes() for path in Path("data/raw/odd").glob("*.tar")}
    mirrored = np.ascontiguousarray(astronaut[:, ::-1])
    Path("photos/new.png").write_bytes(pictures.encode_png(mirrored))
    assert run("crawl", weights) == 0
    after = {path.name: path.read_bytes() for path in Path("data/raw/odd").glob("*.tar")}
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    rows = tables.read(Path("data/raw/odd") / TABLE).to_pylist()
    assert rows[-1]["name"] == "new.png"
    assert len(rows) == len(project) + 1


def copy_project(folder: Path, monkeypatch) -> None:
    """The project's files without its finished work, in another folder, which becomes the current one."""
    shutil.copytree("data", folder / "data", ignore=shutil.ignore_patterns(".work"))
    shutil.copytree("photos", folder / "photos", symlinks=True)
    shutil.copy("params.yaml", folder)
    monkeypatch.chdir(folder)


def test_a_damaged_shard_or_a_table_of_other_shards_is_named(project, weights, tmp_path, capsys):
    copy = tmp_path / "raw"
    shutil.copytree("data/raw/odd", copy)
    first = sorted(copy.glob("*.tar"))[0]
    main = importlib.import_module("ops.curate.detect").main
    arguments = [str(copy), "data/labels/odd/screen.parquet", str(weights), str(tmp_path / "detect.parquet")]
    first.write_bytes(first.read_bytes()[:-1])
    assert main(arguments) == 1
    assert "bytes, where" in capsys.readouterr().err
    first.unlink()
    (copy / f"{first.stem}.index.parquet").unlink()
    assert main(arguments) == 1
    assert "belongs to other shards" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("photos", "message"), [(None, "no such folder"), ([], "no picture in it"), ([("a.txt", b"x")], "no picture in it")]
)
def test_a_folder_without_pictures_says_so(tmp_path, monkeypatch, capsys, photos, message):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS)
    if photos is not None:
        Path("photos").mkdir()
        for name, data in photos:
            Path("photos", name).write_bytes(data)
    assert run("crawl", Path()) == 1
    assert message in capsys.readouterr().err
    assert not Path("data/raw/odd").exists()


def test_a_folder_without_a_face_runs_to_a_clear_end(tmp_path, monkeypatch, capsys, weights):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINEAMENT_WORKERS", "1")
    Path("params.yaml").write_text(PARAMS)
    Path("photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Path("photos/noise.png").write_bytes(pictures.encode_png(noise))
    for step in ("crawl", *STEPS):
        assert run(step, weights) == 0, step
    assert run("shards_faces", weights) == 1
    assert "only 0 faces are left" in capsys.readouterr().err
    assert not Path("data/shards/faces").exists()


@pytest.mark.parametrize("step", ["crawl", "screen", "shards_faces"])
def test_killed_at_any_moment_the_next_run_completes(project, weights, tmp_path, monkeypatch, step):
    """kill -9 after ever longer times; then one run to the end gives the bytes of an undisturbed one."""
    out = OUTPUTS[step]
    wanted = _content(Path(out))
    copy_project(tmp_path, monkeypatch)
    _delete(Path(out))
    module = MODULES[step].removesuffix(".__main__")
    command = [sys.executable, "-m", module, *words(step, weights)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LINEAMENT_WORKERS": "2"}
    for delay in (0.6, 1.4):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
    assert done.returncode == 0
    assert "Warning" not in done.stderr  # that workers find the module loaded is meant
    assert _content(Path(out)) == wanted


def _content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {file.name: file.read_bytes() for file in files}


def _delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_full_disk_loses_nothing(project, weights, monkeypatch, capsys):
    import errno

    from ops.store import tables as module

    before = Path("data/labels/odd/screen.parquet").read_bytes()

    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.pq, "ParquetWriter", no_room)
        assert run("screen", weights) == 1
    assert "disk is full" in capsys.readouterr().err
    assert Path("data/labels/odd/screen.parquet").read_bytes() == before
    assert run("screen", weights) == 0


def test_wrong_parameters_are_named_by_every_step(project, weights, monkeypatch, capsys, tmp_path):
    text = Path("params.yaml").read_text().replace("min_side: 256", "min_side: large")
    (tmp_path / "params.yaml").write_text(text)
    main = importlib.import_module("ops.curate.screen").main
    assert main([*words("screen", weights), "--params", str(tmp_path / "params.yaml")]) == 1
    assert "screen.min_side" in capsys.readouterr().err
