"""Tables of a million samples: near-duplicates, balance, lineage and data sheet, each in one process; and by how many
bytes the memory of each stage grows for a sample more.

The tables are synthetic and the tars are empty files of the right size: no step here looks at a picture.
``LINEAMENT_BENCH_SAMPLES`` sets another number of samples.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.growth import STAGES, bytes_a_sample
from benchmarks.harness import Row, at_most, seconds
from benchmarks.synthetic import REPEATED, SOURCE, VERSION, project

SAMPLES = int(os.environ.get("LINEAMENT_BENCH_SAMPLES", "1000000"))
FEWER = 10  # growth is measured at so many times fewer samples where each of them costs a write
SLOW = ("crawl", "addresses", "shards_faces", "shards_heads", "shards_portraits")
FLAT = 256.0  # bytes a sample: eight a list of what was seen, some dozen columns to find likeness, and no names


def rows() -> list[Row]:
    """Seconds of each, once: nothing here is warm before."""
    from ops.curate import balance
    from ops.curate.screen import SCHEMA, mark_duplicates
    from ops.report.datasheet import DatasheetParams, collect
    from ops.trace import ids_of, trace

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        root = Path()
        ids = project(root, SAMPLES)
        table = pq.read_table(root / "data/labels" / SOURCE / "screen.parquet")
        for column in SCHEMA:
            if column.name not in table.column_names:
                table = table.append_column(column, pa.nulls(len(table), column.type))
        parts = [table.select(SCHEMA.names)]
        found: list[pa.Table] = []
        dedup = seconds(lambda: found.extend(mark_duplicates(parts, 4)))
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
        *(growth(name) for name in STAGES),
    ]


def growth(name: str) -> Row:
    """Bytes a sample of a stage."""
    large = SAMPLES // (FEWER if name in SLOW else 1)
    return at_most(f"scale/bytes_a_sample_{name}", bytes_a_sample(name, large // 5, large), "bytes", FLAT)


def _check(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"found {found}, wanted {wanted}")
