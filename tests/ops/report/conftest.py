"""A project's folder with a lineage that has run, small enough to know every number in it."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ops.crawl.raw import TABLE
from ops.evaluate import giraffe
from ops.evaluate.giraffe import EvaluateGiraffeParams
from ops.evaluate.giraffe_output import write_results
from ops.evaluate.identity import cosine
from ops.store import tables
from ops.store.pictures import encode_png

spec = importlib.util.spec_from_file_location("report_fixtures", Path(__file__).parents[1] / "evaluate/fixtures.py")
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)

DAG = """
stages:
  crawl:
    foreach: ${sources}
    do:
      desc: Original pictures <of each> source.
      cmd: crawl
      deps: [nothing.py]
      outs: ["data/raw/${key}", "data/previews/crawl/${key}.png"]
      meta: {group: raw}
  screen:
    foreach: ${sources}
    do:
      desc: Which pictures are fit.
      cmd: screen
      deps: ["data/raw/${key}"]
      outs: ["data/labels/${key}/screen.parquet", "data/previews/screen/${key}.png"]
      meta: {group: labels}
  detect:
    foreach: ${sources}
    do:
      desc: The face in each picture.
      cmd: detect
      deps: ["data/labels/${key}/screen.parquet"]
      outs: ["data/labels/${key}/detect.parquet"]
      meta: {group: labels}
  train_giraffe:
    desc: Three variants.
    matrix: {variant: [giraffe, infonce, aamnce]}
    cmd: train
    deps: [data/labels, data/raw]
    outs: ["data/checkpoints/giraffe/${item.variant}"]
    meta: {group: models}
  report:
    desc: This page.
    cmd: report
    deps: [data/checkpoints]
    outs: [data/report]
    meta: {group: evaluation}
"""
PARAMS = """
profile: smoke
sources:
  mine: {kind: folder, path: photos}
report: {}
"""
LOCK = """
schema: '2.0'
stages:
  crawl@mine:
    cmd: crawl
    outs:
    - {path: data/raw/mine, md5: 0123456789abcdef0123456789abcdef.dir}
"""


class Plain:
    """A recogniser without weights."""

    name, digest, rule = "plain", "0" * 64, "cosine"

    def embed(self, images):
        return np.zeros((len(images), 2), np.float32)

    similarity = staticmethod(cosine)


def write_evaluation(folder: Path, variants=("giraffe", "aamnce")):
    """What evaluate_giraffe leaves, from made-up embeddings: 6 objects, 5 angles."""
    p = EvaluateGiraffeParams(objects=6, angles=(-60.0, -15.0, 0.0, 15.0, 60.0))
    measured = []
    for number, variant in enumerate(variants):
        rng = np.random.default_rng(number)
        embeddings = rng.normal(size=(6, 1, 8)) + rng.normal(size=(6, 5, 8))
        thumbs = rng.integers(0, 256, (6, 5, 4, 4, 3), dtype=np.uint8)
        record = {"images": 96, "step": 12, "data": "d", "params": {"model": {"resolution": 32}}}
        shown = rng.integers(0, 256, (2, 5, 16, 16, 3), dtype=np.uint8)
        measured.append(giraffe.measure(variant, record, embeddings.astype(np.float32), thumbs, shown, p, Plain()))
    folder.mkdir(parents=True)
    write_results(folder, measured, p, Plain(), "d")


def write_table(path: Path, reasons, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    base = {"id": [f"{i:016x}" for i in range(len(reasons))], **columns}
    kept = pa.array([r is None for r in reasons])
    tables.write(path, pa.table({**base, "kept": kept, "reason": pa.array(reasons, pa.string())}), stage=path.stem)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder, not to be changed. InfoNCE was not trained; of the labels after screening only cameras are there."""
    root = tmp_path_factory.mktemp("whole")
    for name, text in (("dvc.yaml", DAG), ("params.yaml", PARAMS), ("dvc.lock", LOCK)):
        (root / name).write_text(text)
    write_table(root / "data/raw/mine" / TABLE, [None] * 8 + ["exact_duplicate"] * 2)
    write_table(root / "data/labels/mine/screen.parquet", [None] * 5 + ["blurred", "blurred", "too_small"])
    columns = {"yaw": [-30.0, -5.0, 0.0, 12.0, 41.0], "pitch": [0.0, 1.0, 3.0, -8.0, 77.0]}
    write_table(root / "data/labels/mine/camera.parquet", [None] * 4 + ["turned"], **columns)
    (root / "metrics").mkdir()
    counts = {"in": 4, "kept": 3, "rejected": 1, "reasons": {"turned_too_far": 1, "never": 0}}
    (root / "metrics/shards_faces.json").write_text(json.dumps(counts))
    for stage in ("crawl", "screen"):
        picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        path = root / f"data/previews/{stage}/mine.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(encode_png(picture))
    for number, variant in enumerate(("giraffe", "aamnce")):
        fixtures.write_checkpoint(root / f"data/checkpoints/giraffe/{variant}", variant, "feedc0de" * 8, seed=number)
    write_evaluation(root / "data/evaluation/giraffe")
    work = root / "data/.work/crawl/raw-mine-abc123"
    work.mkdir(parents=True)
    (work / "timings.json").write_text('{"stage": "crawl", "seconds": 61.25, "peak_mb": 123.4}\n')
    return root


@pytest.fixture
def project(whole, tmp_path):
    """A copy of the folder to do harm to."""
    return Path(shutil.copytree(whole, tmp_path / "project"))
