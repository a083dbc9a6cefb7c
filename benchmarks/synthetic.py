"""A project of any size without pictures: label tables of random rows, and tars that are empty files of the right size.

What only reads tables and indices cannot tell it from a real one. Tests take small ones, benchmarks large ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ops.store import tables
from ops.store.tar import index_path

PER_SHARD, SOURCE, VERSION = 1000, "big", "5" * 64
REPEATED = 0.02  # share of pictures that repeat another one in a few bits
WIDE_PARTS = 2_048  # rows of lists made at a time

_STEPS = ("screen", "align", "camera", "segment", "heads", "parse", "fit_face", "fit_body")


def dag(steps: Sequence[str]) -> str:
    """A dvc.yaml of a crawl and labelling steps, each after the one before."""
    lines = ["stages:", "  crawl:", "    foreach: ${sources}",
             '    do: {cmd: crawl, deps: [nothing.py], outs: ["data/raw/${key}"]}']  # fmt: skip
    before = "data/raw/${key}"
    for step in steps:
        out = f"data/labels/${{key}}/{step}.parquet"
        lines += [
            f"  {step}:",
            "    foreach: ${sources}",
            f'    do: {{cmd: {step}, deps: ["{before}"], outs: ["{out}"]}}',
        ]
        before = out
    return "\n".join([*lines, ""])


def ids(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count,) different sample ids in no order."""
    numbers = np.unique(rng.integers(0, 2**64, count + 8, dtype=np.uint64))
    rng.shuffle(numbers)
    return np.array([f"{number:016x}" for number in numbers[:count].tolist()], object)


def near_hashes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count,) uint64, some of which differ from another in at most 3 bits."""
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    again = rng.permutation(count)[: 2 * int(REPEATED * count)].reshape(2, -1)
    flips = np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, (3, again.shape[1]), dtype=np.uint64))
    hashes[again[0]] = hashes[again[1]] ^ flips
    return hashes


def label_table(
    keys: Sequence[str] | np.ndarray, reasons: Sequence[str | None] | None = None, **columns: Any
) -> pa.Table:
    """A label table: ids, a step's own columns, kept and reason; without reasons every sample is kept."""
    said = pa.array([None] * len(keys) if reasons is None else reasons, pa.string())
    return pa.table({"id": pa.array(keys, pa.string()), **columns, "kept": said.is_null(), "reason": said})


def write_labels(
    root: Path, source: str, step: str, keys: Sequence[str], reasons: Sequence[str | None] | None = None, **columns: Any
) -> None:
    """A label table where the stage of that name would leave it."""
    tables.write(root / "data/labels" / source / f"{step}.parquet", label_table(keys, reasons, **columns), step)


def empty_shards(folder: Path, keys: np.ndarray, fields: Sequence[str], per_shard: int = PER_SHARD) -> None:
    """Shards that have their samples in the index alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(keys), per_shard):
        some = keys[first : first + per_shard]
        path = folder / f"{first // per_shard:06d}.tar"
        size = 1024 * len(some) * len(fields)
        with open(path, "wb") as file:
            file.truncate(size)
        columns = {"key": np.repeat(some, len(fields)), "field": [*fields] * len(some)}
        places = {"offset": np.arange(len(some) * len(fields)), "size": np.ones(len(some) * len(fields), np.int64)}
        metadata = {"size": str(size), "sha256": VERSION}
        pq.write_table(pa.table({**columns, **places}).replace_schema_metadata(metadata), index_path(path))


def project(root: Path, count: int, *, wide: bool = False, seed: int = 0) -> np.ndarray:
    """A project of one source whose tables hold ``count`` rows.

    Args:
        root: where.
        count: samples.
        wide: with the tables and side-car tars that the shard stages join, too, a few kilobytes a sample.
        seed: of the random rows.

    Returns:
        the ids in the order of the raw shards.
    """
    rng = np.random.default_rng(seed)
    (root / "dvc.yaml").write_text(dag(_STEPS))
    sections = ("balance", "datasheet", "screen", "shards_faces", "shards_heads", "shards_portraits")
    (root / "params.yaml").write_text(
        "\n".join(
            [f"sources: {{{SOURCE}: {{kind: folder, path: photos}}}}", *(f"{name}: {{}}" for name in sections), ""]
        )
    )
    keys = ids(rng, count)
    raw, labels, shards = root / "data/raw" / SOURCE, root / "data/labels" / SOURCE, root / "data/shards/heads"
    urls = [f"https://photos{i % 50}.example/{i}.jpg" for i in range(count)]
    shard = [f"{i // PER_SHARD:06d}" for i in range(count)]
    crawl: dict[str, Any] = {
        "name": urls,
        "bytes": np.full(count, 100_000),
        "shard": shard,
        "url": urls,
        "licence": ["by 4.0"] * count,
    }
    side, yaw = np.full(count, 1024, np.int32), (rng.normal(0, 60, count).astype(np.float32) + 180) % 360 - 180
    tables.write(raw / "crawl.parquet", label_table(keys, **crawl), "crawl")
    tables.write(
        labels / "screen.parquet", label_table(keys, width=side, height=side, phash=near_hashes(rng, count)), "screen"
    )
    tables.write(labels / "parse.parquet", label_table(keys, mask_ratio=yaw), "parse")
    empty_shards(shards, keys, ["json"])
    (shards / "dataset.json").write_text(json.dumps({"hash": VERSION, "samples": count}))
    if wide:
        empty_shards(raw, keys, ["jpg", "json"])
        for side_cars in ("masks", "parsing"):
            empty_shards(labels / side_cars, keys, ["png", "mask.png"])
        _write_wide(labels, keys, yaw)
    else:
        tables.write(labels / "heads.parquet", label_table(keys, yaw=yaw), "heads")
    history, checkpoint = root / "data/history", root / "data/checkpoints/heads/one"
    for folder in (history, checkpoint):
        folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": keys}), history / f"{VERSION}.parquet", row_group_size=tables.ROW_GROUP)
    (checkpoint / "config.json").write_text(json.dumps({"data": VERSION}))
    return keys


def _write_wide(labels: Path, keys: np.ndarray, yaw: np.ndarray) -> None:
    """The tables that the shard stages join."""
    lists = {"quad": 8, "camera": 25, "identity": 80, "expression": 52, "shape": 10, "pose": 18}
    steps: Mapping[str, tuple[str, ...]] = {
        "align": ("quad",),
        "camera": ("camera", "yaw", "pitch", "roll"),
        "segment": ("yaw",),
        "heads": ("quad", "camera", "yaw", "pitch", "roll", "view", "method"),
        "fit_face": ("identity", "expression", "camera", "residual"),
        "fit_body": ("shape", "pose", "camera", "residual"),
    }

    def part(first: int, names: tuple[str, ...]) -> pa.Table:
        some = slice(first, first + WIDE_PARTS)
        rows = len(keys[some])
        columns: dict[str, Any] = {}
        for name in names:
            if name in lists:
                values = pa.array(np.tile(yaw[some], lists[name]).astype(np.float32))
                columns[name] = pa.FixedSizeListArray.from_arrays(values, lists[name]).cast(pa.list_(pa.float32()))
            else:
                columns[name] = ["front"] * rows if name in ("view", "method") else yaw[some]
        return label_table(keys[some], **columns)

    for step, names in steps.items():
        parts = (part(first, names) for first in range(0, len(keys), WIDE_PARTS))
        tables.write(labels / f"{step}.parquet", parts, step)
