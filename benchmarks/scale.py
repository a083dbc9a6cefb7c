"""Tables of a million samples: near-duplicates, balance, lineage and data sheet, each in one process.

The tables are synthetic and the tars are empty files of the right size: no step here looks at a picture.
``LINEAMENT_BENCH_SAMPLES`` sets another number of samples.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Row, at_most, seconds
from ops.store.tables import ROW_GROUP

SAMPLES = int(os.environ.get("LINEAMENT_BENCH_SAMPLES", "1000000"))
PER_SHARD, SOURCE, VERSION = 1000, "big", "5" * 64
REPEATED = 0.02  # share of pictures that repeat another one in a few bits

DAG = """
stages:
  crawl:
    foreach: ${sources}
    do: {cmd: crawl, deps: [nothing.py], outs: ["data/raw/${key}"]}
  screen:
    foreach: ${sources}
    do: {cmd: screen, deps: ["data/raw/${key}"], outs: ["data/labels/${key}/screen.parquet"]}
  heads:
    foreach: ${sources}
    do: {cmd: heads, deps: ["data/labels/${key}/screen.parquet"], outs: ["data/labels/${key}/heads.parquet"]}
  parse:
    foreach: ${sources}
    do: {cmd: parse, deps: ["data/labels/${key}/heads.parquet"], outs: ["data/labels/${key}/parse.parquet"]}
"""
PARAMS = "sources:\n  big: {kind: folder, path: photos}\nbalance: {}\ndatasheet: {}\nscreen: {}\n"


def near_hashes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count,) uint64, some of which differ from another in at most 3 bits."""
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    again = rng.permutation(count)[: 2 * int(REPEATED * count)].reshape(2, -1)
    flips = np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, (3, again.shape[1]), dtype=np.uint64))
    hashes[again[0]] = hashes[again[1]] ^ flips
    return hashes


def write(path: Path, **columns: object) -> None:
    """A table as the stages write theirs."""
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=ROW_GROUP)


def project(root: Path) -> list[str]:
    """A project whose tables hold SAMPLES rows; the ids."""
    rng = np.random.default_rng(0)
    (root / "dvc.yaml").write_text(DAG)
    (root / "params.yaml").write_text(PARAMS)
    ids = [f"{value:016x}" for value in np.unique(rng.integers(0, 2**64, SAMPLES, dtype=np.uint64))]
    rng.shuffle(ids)
    count = len(ids)
    kept = {"kept": pa.array(np.ones(count, bool)), "reason": pa.nulls(count, pa.string())}
    shard = [f"{i // PER_SHARD:06d}" for i in range(count)]
    raw, labels, shards = root / "data/raw" / SOURCE, root / "data/labels" / SOURCE, root / "data/shards/heads"
    for folder in (raw, labels, shards, root / "data/history"):
        folder.mkdir(parents=True)
    urls = [f"https://photos{i % 50}.example/{i}.jpg" for i in range(count)]
    crawl = {"name": urls, "bytes": np.full(count, 100_000), "shard": shard, "url": urls, "licence": ["by 4.0"] * count}
    pq.write_table(
        pa.table({"id": ids, **crawl, **kept}), raw / "crawl.parquet", compression="zstd", row_group_size=ROW_GROUP
    )
    side, yaw = np.full(count, 1024, np.int32), rng.normal(0, 60, count).astype(np.float32)
    screen = {"width": side, "height": side, "phash": near_hashes(rng, count)}
    for name, columns in (
        ("screen", screen),
        ("heads", {"yaw": (yaw + 180) % 360 - 180}),
        ("parse", {"mask_ratio": yaw}),
    ):
        pq.write_table(
            pa.table({"id": ids, **columns, **kept}),
            labels / f"{name}.parquet",
            compression="zstd",
            row_group_size=ROW_GROUP,
        )
    pq.write_table(
        pa.table({"id": ids}),
        root / "data/history" / f"{VERSION}.parquet",
        compression="zstd",
        row_group_size=ROW_GROUP,
    )
    (shards / "dataset.json").write_text(json.dumps({"hash": VERSION, "samples": count}))
    for first in range(0, count, PER_SHARD):
        path = shards / f"{first // PER_SHARD:06d}.tar"
        with open(path, "wb") as file:
            file.truncate(PER_SHARD * 1024)
        some = ids[first : first + PER_SHARD]
        index = pa.table(
            {"key": some, "field": ["json"] * len(some), "offset": range(len(some)), "size": [1] * len(some)}
        )
        pq.write_table(
            index.replace_schema_metadata({"size": str(PER_SHARD * 1024), "sha256": VERSION}),
            path.with_suffix(".index.parquet"),
        )
    checkpoint = root / "data/checkpoints/heads/one"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text(json.dumps({"data": VERSION}))
    return ids


def rows() -> list[Row]:
    """Seconds of each, once: nothing here is warm before."""
    from ops.curate import balance
    from ops.curate.screen import SCHEMA, mark_duplicates
    from ops.report.datasheet import DatasheetParams, collect
    from ops.trace import ids_of, trace

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        root = Path()
        ids = project(root)
        table = pq.read_table(root / "data/labels" / SOURCE / "screen.parquet")
        for column in SCHEMA:
            if column.name not in table.column_names:
                table = table.append_column(column, pa.nulls(len(table), column.type))
        found: list[pa.Table] = []
        dedup = seconds(lambda: found.append(mark_duplicates(table.select(SCHEMA.names), 4)))
        repeats = len(table) - found[0].column("kept").to_numpy().sum()
        if not 0.9 * REPEATED * len(table) <= repeats <= 1.1 * REPEATED * len(table):
            raise AssertionError(f"{repeats} near-duplicates found, {REPEATED:.0%} of {len(table)} were put in")
        key = ids[len(ids) // 3]
        looked = seconds(lambda: _check(len(trace(root, key)), 6))
        address = seconds(lambda: _check(ids_of(root, f"https://photos{7 % 50}.example/7.jpg"), [ids[7]]))
        (root / "data/history" / f"{VERSION}.parquet").rename(root / "elsewhere.parquet")
        unremembered = seconds(lambda: _check(len(trace(root, key)), 5))
        balanced = seconds(lambda: _check(balance.main(["data/labels", "data/balance.parquet"]), 0))
        sheet = seconds(lambda: collect(root, root / "params.yaml", DatasheetParams()))
    size = f"scale/{len(ids) // 1000}k_"
    return [
        at_most(f"{size}near_duplicates", dedup, "s", 60),
        at_most(f"{size}lineage_by_id", looked, "s", 1),
        at_most(f"{size}lineage_by_address", address, "s", 1),
        Row(f"{size}lineage_of_a_version_not_remembered", unremembered, "s"),
        Row(f"{size}balance", balanced, "s"),
        Row(f"{size}data_sheet", sheet, "s"),
    ]


def _check(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"found {found}, wanted {wanted}")
