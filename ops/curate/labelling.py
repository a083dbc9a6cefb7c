"""The loop that every labelling step shares: shard by shard, in parallel, resumable, one table at the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ops.curate.sheets import contact_sheet
from ops.runtime.errors import LineamentError, PictureError
from ops.runtime.publish import publish
from ops.runtime.shardwork import Piece, digest, run_pieces
from ops.runtime.stage import Stage
from ops.store import pictures, tables
from ops.store.tar import Shard, TarWriter, file_sha256, index_path, shard_paths

FILES = "files"  # what a labeller's row may hold besides the columns: side-car files, name to bytes
_TABLE, _TAR = "labels.parquet", "files.tar"


@dataclass(frozen=True)
class Sample:
    """One raw picture with what the steps before said of it.

    Attributes:
        id: first 16 hex digits of the sha256 of the bytes.
        extension: by content, e.g. ``jpg``.
        data: the original bytes.
        row: the sample's row in the previous step's table, joined with others asked for.
    """

    id: str
    extension: str
    data: bytes
    row: dict[str, Any]

    def decode(self) -> np.ndarray:
        """The upright picture, (H, W, 3) uint8 RGB; raises PictureError."""
        return pictures.decode(self.data)


Labeller = Callable[[Iterator[Sample], Any], Iterable[dict[str, Any]]]


def keep(sample: Sample, **columns: Any) -> dict[str, Any]:
    """The row of a sample that stays."""
    return {"id": sample.id, **columns, "kept": True, "reason": None}


def reject(sample: Sample, reason: str, **columns: Any) -> dict[str, Any]:
    """The row of a sample that falls, and why."""
    return {"id": sample.id, **columns, "kept": False, "reason": reason}


def label_shards(
    s: Stage[Any],
    raw: Path,
    previous: Path | None,
    labeller: Labeller,
    schema: pa.Schema,
    *,
    joined: Sequence[Path] = (),
    files: Path | None = None,
    weights: Path | None = None,
    code: Sequence[str] = (),
    workers: int | None = None,
) -> pa.Table:
    """Label every sample that the previous step kept.

    Args:
        s: the running stage.
        raw: folder of raw shards.
        previous: the previous step's table, or None for the first step.
        labeller: picklable; takes the samples of one shard and the parameters, gives one row a sample in the same order
            (see keep and reject).
        schema: of the table, see ops.store.tables.schema.
        joined: tables of earlier steps whose columns are added to each sample's row.
        files: folder that gets the side-car tars, one a raw shard, where rows hold FILES.
        weights: folder of networks that the labels depend on.
        code: modules the labels depend on besides the labeller's own.
        workers: processes.

    Returns:
        the whole table, in the order of the shards; the caller publishes it with ops.store.tables.write.

    Raises:
        LineamentError: damaged shards or tables, or a table that does not fit the shards.
    """
    before = _rows_before(previous, joined) if previous is not None else None
    networks = sorted(file_sha256(path) for path in weights.iterdir()) if weights is not None else []
    shards = shard_paths(raw)
    pieces = []
    for path in shards:
        shard = Shard(path)
        rows = None if before is None else [before[key] for key in shard.keys if key in before]
        pieces.append(Piece(path.stem, digest(shard.sha256, rows, networks), (path, rows, s.params)))
    origin = labeller.func if isinstance(labeller, partial) else labeller
    modules = [__name__, origin.__module__, *code]
    parts = run_pieces(s, pieces, partial(_label_shard, labeller, schema), code=modules, workers=workers)
    table = pa.concat_tables([pq.read_table(part / _TABLE) for part in parts])
    if before is not None and len(table) != len(before):
        raise LineamentError(
            f"{previous}: keeps {len(before)} samples, but {raw} has only {len(table)} of them. "
            "The table belongs to other shards: run the stages before this one again."
        )
    if files is not None:
        with publish(files, folder=True) as folder:
            for shard_path, part in zip(shards, parts, strict=True):
                shutil.copyfile(part / _TAR, folder / shard_path.name)
                shutil.copyfile(index_path(part / _TAR), index_path(folder / shard_path.name))
    return table


def finish(
    s: Stage[Any],
    table: pa.Table,
    raw: Path,
    out: Path,
    draw: Callable[[np.ndarray, dict[str, Any]], np.ndarray],
    caption: Callable[[dict[str, Any]], str],
) -> None:
    """Publish a step's table, its counts, and a sheet of some kept and some rejected pictures.

    Args:
        s: the running stage.
        table: what label_shards gave.
        raw: folder of raw shards.
        out: where the table goes.
        draw: marks on a picture what its row says.
        caption: the words below a kept picture; below a rejected one stands the reason.
    """
    tables.write(out, table, s.name)
    counts = tables.counts(table)
    s.log(f"{counts['kept']} of {counts['in']} kept; {counts['reasons'] or 'none rejected'}")
    s.metrics(counts)
    s.preview(_sheet(table, raw, draw, caption))


def _sheet(
    table: pa.Table,
    raw: Path,
    draw: Callable[[np.ndarray, dict[str, Any]], np.ndarray],
    caption: Callable[[dict[str, Any]], str],
    shown: int = 24,
) -> np.ndarray:
    where = {key: shard for shard in map(Shard, shard_paths(raw)) for key in shard.keys}
    images, captions = [], []
    for stays in (True, False):
        chosen = [row for row in table.to_pylist() if row["kept"] is stays]
        for number in np.linspace(0, len(chosen) - 1, min(shown, len(chosen))).astype(int):
            row = chosen[number]
            shard = where[row["id"]]
            field = shard.original_field(row["id"])
            try:
                image = pictures.decode(shard.read(row["id"], field))
                images.append(draw(image, row) if stays else image)
            except PictureError:
                images.append(np.full((64, 64, 3), 160, np.uint8))
            captions.append(caption(row) if stays else row["reason"])
    return contact_sheet(images, captions)


def _rows_before(previous: Path, joined: Sequence[Path]) -> dict[str, dict[str, Any]]:
    rows = {row["id"]: row for row in tables.kept(tables.read(previous)).to_pylist()}
    for path in joined:
        others = {row["id"]: row for row in tables.read(path).to_pylist()}
        for key, row in rows.items():
            if key not in others:
                raise LineamentError(f"{path}: has no row for {key}. Run the stages before this one again.")
            rows[key] = {**others[key], **row}
    return rows


def _label_shard(
    labeller: Labeller,
    schema: pa.Schema,
    payload: tuple[Path, list[dict[str, Any]] | None, Any],
    out: Path,
) -> None:
    path, rows, params = payload
    shard = Shard(path)
    wanted = [{"id": key} for key in shard.keys] if rows is None else rows
    out.mkdir()
    labelled = []
    with TarWriter(out / _TAR) as tar:
        for row in labeller(_samples(shard, wanted), params):
            if FILES in row:
                tar.add(row["id"], row.pop(FILES))
            labelled.append(row)
    if [row["id"] for row in labelled] != [row["id"] for row in wanted]:
        raise LineamentError(f"{path}: the labeller returned other samples than it was given.")
    pq.write_table(pa.Table.from_pylist(labelled, schema=schema), out / _TABLE)


def _samples(shard: Shard, rows: list[dict[str, Any]]) -> Iterator[Sample]:
    for row in rows:
        extension = shard.original_field(row["id"])
        yield Sample(row["id"], extension, shard.read(row["id"], extension), row)
