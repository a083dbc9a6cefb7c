"""Label tables: one Parquet file a curation step and source, one row a sample, nothing edited in place.

Every table has ``id`` (first 16 hex digits of the sha256 of the original bytes), ``kept`` and ``reason``. A table has
exactly one row for each sample that the step before it kept, in the same order; a rejected sample keeps its row and
the reason, so that counts add up from step to step.

Where all heads of a picture are kept, each is a sample of its own from the step that found it on: its id is the
picture's with ``-h1``, ``-h2`` … behind, so that whatever is said of a picture reaches all its heads.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish
from ops.store.seen import Seen

ROW_GROUP = 65_536  # rows that are read at a time by who looks for one; unpublished: our choice
WIDE_GROUP = 2_048  # the same where rows hold lists, such as landmarks: about 12 MB; unpublished: our choice
CRAWL = "crawl.parquet"  # beside raw shards: a row for every picture that was ever offered
_HEAD = r"-h\d+$"
BASE = (pa.field("id", pa.string()), pa.field("kept", pa.bool_()), pa.field("reason", pa.string()))
NAMES = [field.name for field in BASE]


def schema(*fields: pa.Field) -> pa.Schema:
    """A label table's schema: the id, the step's own columns, then kept and reason."""
    return pa.schema([BASE[0], *fields, *BASE[1:]])


def check(table: pa.Table, where: object) -> None:
    """Raise LineamentError unless a table keeps the rules of every label table."""
    _check_rows(table, where)
    ids = table.column("id")
    if pc.count_distinct(ids).as_py() != len(ids):
        raise LineamentError(f"{where}: a sample has more than one row.")


def _check_rows(table: pa.Table, where: object) -> None:
    """What can be said of each row by itself."""
    missing = {field.name for field in BASE} - set(table.column_names)
    if missing:
        raise LineamentError(f"{where}: a label table needs the columns {', '.join(sorted(missing))}.")
    has_reason = pc.is_valid(table.column("reason"))
    if pc.any(pc.equal(table.column("kept"), has_reason)).as_py():
        raise LineamentError(f"{where}: a rejected sample needs a reason, and a kept one has none.")


def picture_of(key: str) -> str:
    """The id of the picture that a sample's id speaks of: its own, or that of which it is one of several heads."""
    return re.sub(_HEAD, "", key)


def pictures_of(keys: pa.Array) -> pa.Array:
    """picture_of, of many."""
    return pc.replace_substring_regex(keys, _HEAD, "")


def head_id(picture: str, number: int) -> str:
    """The id of one of several heads of a picture, numbered from 1."""
    return f"{picture}-h{number}"


def by_picture(keys: Iterable[str]) -> dict[str, list[str]]:
    """The samples of each picture, in their order."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(picture_of(key), []).append(key)
    return found


def write(path: Path, table: pa.Table | Iterable[pa.Table], stage: str, more: Mapping[str, str] | None = None) -> None:
    """Publish a label table; equal content gives equal bytes.

    Args:
        path: where it shall stand.
        table: whole, or part by part: of what was written eight bytes a row stay in memory.
        stage: that made it.
        more: to say of the table as a whole, in its metadata.

    Raises:
        LineamentError: the table breaks a rule (see check).
    """
    parts = iter([table] if isinstance(table, pa.Table) else table)
    first = next(parts)
    schema = first.schema.with_metadata({"stage": stage, **(more or {})})
    group = WIDE_GROUP if any(pa.types.is_list(field.type) for field in schema) else ROW_GROUP
    seen = Seen()
    with publish(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for some in _regrouped(itertools.chain([first], parts), group):
                _check_rows(some, path)
                seen.update(some.column("id").to_pylist())
                writer.write_table(some.replace_schema_metadata(schema.metadata), row_group_size=group)
        if seen.repeats:  # or two hashes agree by chance, which is looked into
            check(pq.read_table(temporary, columns=NAMES), path)


def _regrouped(parts: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of ``size``, so that bytes depend on rows alone; at least one table."""
    waiting: list[pa.Table] = []
    count, given = 0, False
    for part in parts:
        waiting.append(part)
        count += len(part)
        while count >= size:
            whole = pa.concat_tables(waiting).combine_chunks()
            yield whole.slice(0, size)
            waiting, count, given = [whole.slice(size)], count - size, True
    if count or not given:
        yield pa.concat_tables(waiting).combine_chunks()


def places(keys: pa.Array, among: pa.Array, *, exactly: bool = False) -> np.ndarray:
    """(N,) where each id stands among others; one of several heads that is not there stands where its picture does.

    Args:
        keys: ids.
        among: different ids.
        exactly: a picture's row is none of its heads'.

    Returns:
        (N,) int64, -1 for those that are not there.
    """
    found, by_picture = (
        pc.fill_null(pc.index_in(some, value_set=among), -1).to_numpy(zero_copy_only=False).astype(np.int64)
        for some in (keys, keys if exactly else pictures_of(keys))
    )
    return np.where(found >= 0, found, by_picture)


def ids(path: Path) -> pa.Array:
    """The ids of all rows of a table, in order."""
    return read(path, NAMES).column("id").combine_chunks()


def take(path: Path, numbers: np.ndarray, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Some rows of a table by their numbers, in the order asked for; only the parts that hold them are read."""
    if not len(numbers):
        return []
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.searchsorted(ends, numbers, side="right")
        wanted = np.unique(groups)
        parts = []
        for group in wanted.tolist():
            inside = np.sort(numbers[groups == group]) - (ends[group] - sizes[group])
            parts.append(file.read_row_group(group, columns).take(np.unique(inside)))
    rows = pa.concat_tables(parts).to_pylist()
    places = np.searchsorted(np.unique(numbers), numbers)
    return [rows[i] for i in places.tolist()]


def read(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A label table, or some of its columns: ``id``, ``kept`` and ``reason`` among them.

    Raises:
        LineamentError: missing or damaged.
    """
    with _reading(path):
        table = pq.read_table(path, columns=columns)
        table.validate(full=True)  # names that are no text
    check(table, path)
    return table


def parts(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """A label table, or some of its columns, some ten thousand rows at a time; that no sample comes twice is not
    looked into.

    Raises:
        LineamentError: missing or damaged.
    """
    with _reading(path):
        file = pq.ParquetFile(path)
    with file:
        for group in range(file.num_row_groups):
            with _reading(path):
                table = file.read_row_group(group, columns)
                table.validate(full=True)
            _check_rows(table, path)
            lacking = set(columns or ()) - set(table.column_names)
            if lacking:
                raise LineamentError(f"{path}: lacks {', '.join(sorted(lacking))}. Run the stage that makes it again.")
            yield table


def metadata(path: Path) -> dict[str, str]:
    """What a table says of itself as a whole."""
    with _reading(path):
        return {name.decode(): value.decode() for name, value in (pq.read_schema(path).metadata or {}).items()}


def is_kept(path: Path) -> np.ndarray:
    """(N,) bool: which rows of a table were not rejected."""
    return np.concatenate([np.empty(0, bool), *(part.column("kept").to_numpy() for part in parts(path, NAMES))])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise LineamentError(f"{path}: no such table. Run the stage that makes it first (dvc repro).")
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, MemoryError, OverflowError) as error:
        raise LineamentError(f"{path}: cannot be read ({error}). Restore it with `dvc checkout {path}`.") from None


def kept(table: pa.Table) -> pa.Table:
    """The rows that were not rejected."""
    return table.filter(table.column("kept"))


def reject(table: pa.Table, which: np.ndarray, reason: str) -> pa.Table:
    """The table with some of its kept rows rejected; rows that fell before keep their reason.

    Args:
        table: a label table.
        which: (N,) bool.
        reason: short snake_case.
    """
    kept_now = table.column("kept").to_numpy()
    falls = pa.array(which & kept_now)
    reasons = pc.if_else(falls, pa.scalar(reason), table.column("reason").combine_chunks())
    table = table.set_column(table.schema.get_field_index("kept"), BASE[1], pa.array(kept_now & ~which))
    return table.set_column(table.schema.get_field_index("reason"), BASE[2], reasons)


def kept_ids(path: Path) -> list[str]:
    """The ids that a step kept, in order."""
    return kept(read(path)).column("id").to_pylist()


def counts(table: pa.Table | Iterable[pa.Table]) -> dict[str, Any]:
    """How many came in, how many were kept, and how many fell for each reason; of a table, or of its parts."""
    rows, reasons = 0, Counter[str]()
    for part in [table] if isinstance(table, pa.Table) else table:
        found = pc.value_counts(part.column("reason").drop_null()).to_pylist()
        reasons.update({entry["values"]: entry["counts"] for entry in found})
        rows += len(part)
    return {
        "in": rows,
        "kept": rows - reasons.total(),
        "rejected": reasons.total(),
        "reasons": dict(sorted(reasons.items())),
    }
