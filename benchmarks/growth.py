"""Bytes of memory that a stage needs for each sample more: its peak at two sizes, each in a process of its own.

Buffers of a fixed size, such as a row group, are made small here, so that they are full at both sizes and what grows is
seen alone. ``python -m benchmarks.growth run STAGE COUNT`` runs one in the present folder and prints its peak in bytes.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.synthetic import SOURCE, project

ROOT = Path(__file__).parent.parent


def _offers(count: int) -> Iterator[Any]:
    """Pictures that are nothing but different."""
    from ops.crawl.raw import RawPicture

    for number in range(count):
        name = f"https://photos{number % 50}.example/{number}.jpg"
        yield RawPicture(name, b"\xff\xd8\xff" + number.to_bytes(8, "big"), {"url": name, "licence": "by 4.0"})


def crawl(count: int) -> None:
    """Store every picture; then be offered all of them once more."""
    from ops.crawl.raw import add_pictures

    for _ in range(2):
        add_pictures(Path("data/raw/web"), "web", "s", _offers(count), 1000)


def addresses(count: int) -> None:
    """A list of addresses all of which were fetched before."""
    from ops.crawl.download import Downloads
    from ops.crawl.fetch import FetchParams
    from ops.crawl.urls import read_links

    downloads = Downloads(Path("data/raw/web"), Path("data/.work/web"), FetchParams())
    if list(downloads.pictures(read_links(Path("list.txt"), "url", "unknown"))):
        raise AssertionError("an address was asked again")
    downloads.write(Path("data/raw/web"))


def near_duplicates(count: int) -> None:
    """What screening does with all pictures at once."""
    from ops.curate.screen import SCHEMA, mark_duplicates
    from ops.store import tables

    class Parts:
        def __iter__(self) -> Iterator[Any]:
            for part in tables.parts(Path("data/labels", SOURCE, "screen.parquet")):
                for column in SCHEMA:
                    if column.name not in part.column_names:
                        part = part.append_column(column, pa.nulls(len(part), column.type))
                yield part.select(SCHEMA.names)

    tables.write(Path("data/screen.parquet"), mark_duplicates(Parts(), 4), "screen")


def balance(count: int) -> None:
    from ops.curate import balance as stage

    _end(stage.main(["data/labels", "data/balance.parquet"]))


def datasheet(count: int) -> None:
    from ops.report.datasheet import DatasheetParams, collect

    collect(Path(), Path("params.yaml"), DatasheetParams())


def shards_faces(count: int) -> None:
    from ops.shards import faces as stage

    stage._crop_shard = _nothing  # the cutting itself sees one shard at a time
    stage._sheet = _no_sheet
    _end(stage.main(["data/raw", "data/labels", "data/shards/faces"]))


def shards_heads(count: int) -> None:
    from ops.shards import heads as stage

    stage._crop_shard = _nothing
    stage._sheet = _no_sheet
    _end(stage.main(["data/raw", "data/labels", "data/balance.parquet", "data/shards/heads"]))


def shards_portraits(count: int) -> None:
    from ops.shards import portraits as stage

    stage._cut_shard = _not_even_weights
    stage._sheet = _no_sheet
    _end(stage.main(["data/raw", "data/labels", "data/weights", "data/shards/portraits"]))


def _nothing(params: Any, payload: tuple[Any, ...], out: Path) -> None:
    from ops.store.tar import TarWriter

    with TarWriter(out) as writer:
        for row in payload[-1]:
            writer.add(row["id"], {"json": b'{"identity": null, "view": "front"}'})


def _not_even_weights(params: Any, weights: Any, payload: tuple[Any, ...], out: Path) -> None:
    _nothing(params, payload, out)


def _no_sheet(folder: Path) -> Any:
    import numpy as np

    return np.zeros((8, 8, 3), np.uint8)


def _end(code: int) -> None:
    if code:
        raise AssertionError("the stage failed")


STAGES: dict[str, Callable[[int], None]] = {
    one.__name__: one
    for one in (crawl, addresses, near_duplicates, balance, datasheet, shards_faces, shards_heads, shards_portraits)
}


def prepare(name: str, count: int) -> None:
    """The folder in which a stage is run, made in another process than it."""
    if name == "addresses":
        _prepare_addresses(count)
    elif name != "crawl":
        project(Path(), count, wide=name.startswith("shards_"))
        if name == "shards_heads":
            balance(count)


def _prepare_addresses(count: int) -> None:
    from ops.crawl.download import SCHEMA, TABLE

    urls = [f"https://photos{i % 50}.example/{i}.jpg" for i in range(count)]
    Path("list.txt").write_text("\n".join(urls))
    table = pa.table({"url": urls}).append_column("code", pa.array([200] * count, pa.int32()))
    for field in SCHEMA:
        if field.name not in table.column_names:
            empty = pa.nulls(count, field.type) if field.name != "attempts" else pa.array([1] * count, pa.int32())
            table = table.append_column(field, empty)
    Path("data/raw/web").mkdir(parents=True)
    pq.write_table(table.select(SCHEMA.names).cast(SCHEMA), Path("data/raw/web", TABLE))


def peak(name: str, count: int) -> int:
    """Bytes that a process running a stage holds at most."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LINEAMENT_WORKERS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for what in ("prepare", "run"):
            words = [sys.executable, "-m", "benchmarks.growth", what, name, str(count)]
            done = subprocess.run(words, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{name} of {count}: {done.stderr}")
    return int(done.stdout.split()[-1])


def bytes_a_sample(name: str, small: int, large: int) -> float:
    """By how much the peak grows for each sample between two sizes."""
    return (peak(name, large) - peak(name, small)) / (large - small)


def small_buffers() -> None:
    """A sixteenth of every buffer whose size does not depend on the number of samples."""
    from ops.crawl import download
    from ops.store import seen, tables

    tables.ROW_GROUP = download.ROW_GROUP = seen.FRESH = 4_096


if __name__ == "__main__":
    small_buffers()
    what, name, count = sys.argv[1:]
    if what == "prepare":
        prepare(name, int(count))
    else:
        STAGES[name](int(count))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
