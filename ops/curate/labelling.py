"""The loop that every labelling step shares: shard by shard, in parallel, resumable, one table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ops.runtime.errors import LineamentError
from ops.runtime.shardwork import Piece, digest, run_pieces
from ops.runtime.stage import Stage
from ops.store import tables
from ops.store.tar import Shard, shard_paths

PROVENANCE = "json"  # the field of a raw sample that holds where it came from


@dataclass(frozen=True)
class Sample:
    """One raw picture with what the step before said of it.

    Attributes:
        id: first 16 hex digits of the sha256 of the bytes.
        extension: by content, e.g. ``jpg``.
        data: the original bytes.
        row: the sample's row in the previous step's table; empty for the first step.
    """

    id: str
    extension: str
    data: bytes
    row: dict[str, Any]


Labeller = Callable[[Iterator[Sample], Any], Iterable[dict[str, Any]]]


def label_shards(
    s: Stage[Any],
    raw: Path,
    previous: Path | None,
    labeller: Labeller,
    schema: pa.Schema,
    *,
    code: Sequence[str] = (),
    workers: int | None = None,
) -> pa.Table:
    """Label every sample that the previous step kept.

    Args:
        s: the running stage.
        raw: folder of raw shards.
        previous: the previous step's table, or None for the first step.
        labeller: picklable; takes the samples of one shard and the parameters, gives one row a sample in the same order
            (``kept`` and ``reason`` included).
        schema: of the table, see ops.store.tables.schema.
        code: modules the labels depend on besides the labeller's own.
        workers: processes.

    Returns:
        the whole table, in the order of the shards; the caller publishes it with ops.store.tables.write.

    Raises:
        LineamentError: damaged shards or tables, or a table that does not fit the shards.
    """
    rows_before = _kept_rows(previous) if previous is not None else None
    pieces = []
    for path in shard_paths(raw):
        shard = Shard(path)
        rows = None
        if rows_before is not None:
            rows = [rows_before[key] for key in shard.keys if key in rows_before]
        pieces.append(Piece(path.stem, digest(shard.sha256, rows), (path, rows, s.params)))
    parts = run_pieces(
        s,
        pieces,
        partial(_label_shard, labeller, schema),
        code=[__name__, labeller.__module__, *code],
        suffix=".parquet",
        workers=workers,
    )
    table = pa.concat_tables([pq.read_table(part) for part in parts]) if parts else schema.empty_table()
    if rows_before is not None and len(table) != len(rows_before):
        raise LineamentError(
            f"{previous}: keeps {len(rows_before)} samples, but {raw} has only {len(table)} of them. "
            "The table belongs to other shards: run the stages before this one again."
        )
    return table


def _kept_rows(path: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in tables.kept(tables.read(path)).to_pylist()}


def _label_shard(
    labeller: Labeller,
    schema: pa.Schema,
    payload: tuple[Path, list[dict[str, Any]] | None, Any],
    out: Path,
) -> None:
    path, rows, params = payload
    shard = Shard(path)
    wanted = [{"id": key} for key in shard.keys] if rows is None else rows
    labelled = list(labeller(_samples(shard, wanted), params))
    if [row["id"] for row in labelled] != [row["id"] for row in wanted]:
        raise LineamentError(f"{path}: the labeller returned other samples than it was given.")
    pq.write_table(pa.Table.from_pylist(labelled, schema=schema), out)


def _samples(shard: Shard, rows: list[dict[str, Any]]) -> Iterator[Sample]:
    for row in rows:
        extension = next(field for field in shard.fields(row["id"]) if field != PROVENANCE)
        yield Sample(row["id"], extension, shard.read(row["id"], extension), row)
