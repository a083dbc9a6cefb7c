"""The loop that every labelling step shares: shard by shard, in parallel, resumable, one table at the end."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
        id: first 16 hex digits of the sha256 of the bytes; of one of several heads, see ops.store.tables.
        extension: by content, e.g. ``jpg``.
        data: the original bytes.
        row: the sample's row in the previous step's table, joined with others asked for.
    """

    id: str
    extension: str
    data: bytes
    row: dict[str, Any]

    def head(self, number: int) -> Sample:
        """One of several heads of the picture, numbered from 1, as a sample of its own."""
        return replace(self, id=tables.head_id(self.id, number))

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


class Labelled:
    """What a step says of all samples: one table a raw shard, in the order of the shards, read when asked for.

    Iterating gives the tables one after the other, so memory does not grow with their number.
    """

    def __init__(self, parts: Sequence[Path], edits: Sequence[Callable[[pa.Table], pa.Table]] = ()) -> None:
        self._parts, self._edits = parts, tuple(edits)

    def __iter__(self) -> Iterator[pa.Table]:
        for part in self._parts:
            table = pq.read_table(part)
            for edit in self._edits:
                table = edit(table)
            yield table

    def map(self, edit: Callable[[pa.Table], pa.Table]) -> Labelled:
        """The same with every table changed by a function of it alone."""
        return Labelled(self._parts, (*self._edits, edit))


def label_shards(
    s: Stage[Any],
    raw: Path,
    previous: Path | None,
    labeller: Labeller,
    schema: pa.Schema,
    *,
    joined: Sequence[Path] = (),
    rejected_too: bool = False,
    expands: bool = False,
    files: Path | None = None,
    weights: Path | None = None,
    code: Sequence[str] = (),
    loads: Sequence[str] = (),
    workers: int | None = None,
) -> Labelled:
    """Label every sample that the previous step kept.

    Args:
        s: the running stage.
        raw: folder of raw shards.
        previous: the previous step's table, or None for the first step.
        labeller: picklable; takes the samples of one shard and the parameters, gives one row a sample in the same order
            (see keep and reject).
        schema: of the table, see ops.store.tables.schema.
        joined: tables of earlier steps whose columns are added to each sample's row. What a table says of a picture is
            said of each of its heads.
        rejected_too: label what the previous step rejected as well.
        expands: whether the labeller may give several rows for a sample, each a head with an id of its own.
        files: folder that gets the side-car tars, one a raw shard, where rows hold FILES.
        weights: folder of networks that the labels depend on.
        code: modules the labels depend on besides the labeller's own.
        loads: modules that the labeller loads when it is called.
        workers: processes.

    Returns:
        the tables of all shards; finish publishes them.

    Raises:
        LineamentError: damaged shards or tables, or a table that does not fit the shards.
    """
    networks = sorted(file_sha256(path) for path in weights.iterdir()) if weights is not None else []
    shards = shard_paths(raw)
    before = [None] * len(shards) if previous is None else _before(shards, previous, joined, rejected_too)
    pieces = []
    for path, where in zip(shards, before, strict=True):
        rows = None if where is None else _rows(where)
        identity = digest(Shard(path).sha256, rows, networks)
        pieces.append(Piece(path.stem, identity, (path, where, s.params)))
    origin = labeller.func if isinstance(labeller, partial) else labeller
    modules = [__name__, origin.__module__, *code]
    work = partial(_label_shard, labeller, schema, expands)
    parts = run_pieces(s, pieces, work, code=modules, loads=loads, workers=workers)
    if files is not None:
        with publish(files, folder=True) as folder:
            for shard_path, part in zip(shards, parts, strict=True):
                shutil.copyfile(part / _TAR, folder / shard_path.name)
                shutil.copyfile(index_path(part / _TAR), index_path(folder / shard_path.name))
    return Labelled([part / _TABLE for part in parts])


def finish(
    s: Stage[Any],
    labelled: Iterable[pa.Table],
    raw: Path,
    out: Path,
    draw: Callable[[np.ndarray, dict[str, Any]], np.ndarray],
    caption: Callable[[dict[str, Any]], str],
    joined: Sequence[Path] = (),
) -> None:
    """Publish a step's table, its counts, and a sheet of some kept and some rejected pictures.

    Args:
        s: the running stage.
        labelled: what label_shards gave, or tables in its place.
        raw: folder of raw shards.
        out: where the table goes.
        draw: marks on a picture what its row says.
        caption: the words below a kept picture; below a rejected one stands the reason.
        joined: tables of earlier steps whose columns the drawn rows get too.
    """
    tables.write(out, labelled, s.name)
    counts = tables.counts(tables.parts(out, tables.NAMES))
    s.log(f"{counts['kept']} of {counts['in']} kept; {counts['reasons'] or 'none rejected'}")
    s.metrics(counts)
    s.preview(_sheet(out, joined, raw, draw, caption))


def _sheet(
    out: Path,
    joined: Sequence[Path],
    raw: Path,
    draw: Callable[[np.ndarray, dict[str, Any]], np.ndarray],
    caption: Callable[[dict[str, Any]], str],
    shown: int = 24,
) -> np.ndarray:
    stays = tables.is_kept(out)
    some = [np.flatnonzero(stays), np.flatnonzero(~stays)]
    numbers = np.concatenate([each[_evenly(len(each), shown)] for each in some])
    ids = pa.array([row["id"] for row in tables.take(out, numbers, ["id"])], pa.string())
    rows = _rows([(out, numbers), *((path, tables.places(ids, tables.ids(path))) for path in joined)])
    wanted = set(tables.pictures_of(ids).to_pylist())
    where = {key: path for path in shard_paths(raw) for key in Shard(path).keys if key in wanted}
    images, captions = [], []
    for row in rows:
        key = tables.picture_of(row["id"])
        shard = Shard(where[key])
        field = shard.original_field(key)
        try:
            image = pictures.decode(shard.read(key, field))
            images.append(draw(image, row) if row["kept"] else image)
        except PictureError:
            images.append(np.full((64, 64, 3), 160, np.uint8))
        captions.append(caption(row) if row["kept"] else row["reason"])
    return contact_sheet(images, captions)


def _evenly(count: int, shown: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(shown, count)).astype(int)


Where = list[tuple[Path, np.ndarray]]
"""What was said of the samples of a shard: tables, and the numbers of the samples' rows in each."""


def _before(shards: Sequence[Path], previous: Path, joined: Sequence[Path], rejected_too: bool) -> list[Where]:
    """Where each shard's samples are in the tables before, without reading more of these than the ids."""
    base = tables.read(previous, tables.NAMES)
    wanted = np.arange(len(base)) if rejected_too else np.flatnonzero(base.column("kept").to_numpy())
    ids = base.column("id").take(pa.array(wanted)).combine_chunks()
    keys = [pa.array(Shard(path).keys, pa.string()) for path in shards]
    order = tables.places(ids, pa.concat_arrays(keys))
    if (order < 0).any():
        raise LineamentError(
            f"{previous}: keeps {len(order)} samples, but {shards[0].parent} has only {(order >= 0).sum()} of them. "
            "The table belongs to other shards: run the stages before this one again."
        )
    found = [(previous, wanted)]
    for path in joined:
        numbers = tables.places(ids, tables.ids(path))
        if (numbers < 0).any():
            missing = ids[int(np.argmax(numbers < 0))].as_py()
            raise LineamentError(f"{path}: has no row for {missing}. Run the stages before this one again.")
        found.append((path, numbers))
    sequence = np.argsort(order, kind="stable")
    cuts = np.searchsorted(order[sequence], np.cumsum([len(some) for some in keys])[:-1])
    parts = np.split(sequence, cuts)
    return [[(path, numbers[part]) for path, numbers in found] for part in parts]


def _rows(where: Where) -> list[dict[str, Any]]:
    """The samples' rows; where tables have a column in common, the earlier table's holds."""
    (first, numbers), *others = where
    rows = tables.take(first, numbers)
    for path, more in others:
        rows = [{**other, **row} for row, other in zip(rows, tables.take(path, more), strict=True)]
    return rows


def _label_shard(
    labeller: Labeller, schema: pa.Schema, expands: bool, payload: tuple[Path, Where | None, Any], out: Path
) -> None:
    path, where, params = payload
    shard = Shard(path)
    wanted = [{"id": key} for key in shard.keys] if where is None else _rows(where)
    out.mkdir()
    labelled = []
    with TarWriter(out / _TAR) as tar:
        for row in labeller(_samples(shard, wanted), params):
            if FILES in row:
                tar.add(row["id"], row.pop(FILES))
            labelled.append(row)
    given = [row["id"] for row in labelled]
    if expands:  # of each picture as often as it has rows, so compare pictures
        pairs = [[key for key, _ in itertools.groupby(map(tables.picture_of, ids))] for ids in (given, _names(wanted))]
    else:
        pairs = [given, _names(wanted)]
    if pairs[0] != pairs[1]:
        raise LineamentError(f"{path}: the labeller returned other samples than it was given.")
    pq.write_table(pa.Table.from_pylist(labelled, schema=schema), out / _TABLE)


def _names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def _samples(shard: Shard, rows: list[dict[str, Any]]) -> Iterator[Sample]:
    for row in rows:
        key = tables.picture_of(row["id"])
        extension = shard.original_field(key)
        yield Sample(row["id"], extension, shard.read(key, extension), row)
