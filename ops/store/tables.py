"""Label tables: one Parquet file a curation step and source, one row a sample, nothing edited in place.

Every table has ``id`` (first 16 hex digits of the sha256 of the original bytes), ``kept`` and ``reason``. A table has
exactly one row for each sample that the step before it kept, in the same order; a rejected sample keeps its row and
the reason, so that counts add up from step to step.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish

ROW_GROUP = 65_536  # rows that are read at a time by who looks for one; unpublished: our choice
BASE = (pa.field("id", pa.string()), pa.field("kept", pa.bool_()), pa.field("reason", pa.string()))


def schema(*fields: pa.Field) -> pa.Schema:
    """A label table's schema: the id, the step's own columns, then kept and reason."""
    return pa.schema([BASE[0], *fields, *BASE[1:]])


def check(table: pa.Table, where: object) -> None:
    """Raise LineamentError unless a table keeps the rules of every label table."""
    missing = {field.name for field in BASE} - set(table.column_names)
    if missing:
        raise LineamentError(f"{where}: a label table needs the columns {', '.join(sorted(missing))}.")
    ids = table.column("id")
    if pc.count_distinct(ids).as_py() != len(ids):
        raise LineamentError(f"{where}: a sample has more than one row.")
    has_reason = pc.is_valid(table.column("reason"))
    if pc.any(pc.equal(table.column("kept"), has_reason)).as_py():
        raise LineamentError(f"{where}: a rejected sample needs a reason, and a kept one has none.")


def write(path: Path, table: pa.Table, stage: str) -> None:
    """Publish a label table; equal content gives equal bytes.

    Raises:
        LineamentError: the table breaks a rule (see check).
    """
    check(table, path)
    with publish(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata({"stage": stage}), temporary, compression="zstd", row_group_size=ROW_GROUP
        )


def read(path: Path) -> pa.Table:
    """A label table.

    Raises:
        LineamentError: missing or damaged.
    """
    if not path.is_file():
        raise LineamentError(f"{path}: no such table. Run the stage that makes it first (dvc repro).")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise LineamentError(f"{path}: cannot be read ({error}). Restore it with `dvc checkout {path}`.") from None
    check(table, path)
    return table


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


def counts(table: pa.Table) -> dict[str, object]:
    """How many came in, how many were kept, and how many fell for each reason."""
    found = pc.value_counts(table.column("reason").drop_null()).to_pylist()
    reasons = {entry["values"]: entry["counts"] for entry in found}
    return {
        "in": len(table),
        "kept": len(table) - sum(reasons.values()),
        "rejected": sum(reasons.values()),
        "reasons": dict(sorted(reasons.items())),
    }
