"""Label tables read along with the raw shards: every table once, of every shard's samples the rows, then forgotten.

Rows stand in the order of the raw shards, whatever was rejected on the way (see ops.store.tables). So what several
tables say of a shard is found by walking all of them at the same pace; nothing is kept of a sample once its shard is
done, and memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ops.runtime.errors import LineamentError
from ops.store import tables

WINDOW = 512  # rows looked at in one go, or as many as samples are asked for; unpublished: our choice


class InOrder:
    """A label table, walked from its first row to its last.

    Args:
        path: of the table.
        columns: to read besides those that all label tables have; all if not given.
        kept: leave out what was rejected.
        only: a column and the value in it of the rows that count.
        by: the column that names a row's picture, or a sample of it.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str] | None = None,
        *,
        kept: bool = False,
        only: tuple[str, str] | None = None,
        by: str = "id",
    ) -> None:
        self.path = path
        self._by, self._kept, self._only = by, kept, only
        names = None if columns is None else [tables.BASE[0].name, *columns, *(f.name for f in tables.BASE[1:])]
        self._parts = tables.parts(path, names)
        self._part: pa.Table | None = None
        self._at = 0

    def take(self, keys: Sequence[str] | pa.Array) -> pa.Table:
        """The rows that come next, as long as they are of these samples, or of heads in these pictures."""
        wanted = pa.array(keys, pa.string())
        found: list[pa.Table] = []
        while (part := self._ahead()) is not None:
            some = part.slice(self._at, max(WINDOW, len(wanted)))
            names = some.column(self._by)
            either = (pc.is_in(each, value_set=wanted) for each in (names, tables.pictures_of(names)))
            inside = pc.or_(*either).to_numpy(zero_copy_only=False)
            count = len(some) if inside.all() else int(np.argmin(inside))
            found.append(some.slice(0, count))
            self._at += count
            if count < len(some):
                break
        return pa.concat_tables(found) if found else pa.table({})

    def rows(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The same rows by sample.

        Raises:
            LineamentError: a sample has more than one.
        """
        rows = self.take(keys).to_pylist()
        found = {row["id"]: row for row in rows}
        if len(found) < len(rows):
            raise LineamentError(f"{self.path}: a sample has more than one row.")
        return found

    def end(self) -> None:
        """Make sure that all was read.

        Raises:
            LineamentError: rows are left: they speak of pictures that never came, or in another order.
        """
        part = self._ahead()
        if part is not None:
            left = part.column(self._by)[self._at].as_py()
            raise LineamentError(
                f"{self.path}: speaks of {left}, which is not in the shards, or not where its row stands. The table "
                "belongs to other shards: run the stages before this one again."
            )

    def __bool__(self) -> bool:
        """Whether rows are left."""
        return self._ahead() is not None

    def _ahead(self) -> pa.Table | None:
        """The part that holds the next row; None at the end."""
        while self._part is None or self._at >= len(self._part):
            self._part = next(self._parts, None)
            if self._part is None:
                return None
            if self._kept:
                self._part = tables.kept(self._part)
            if self._only is not None:
                name, value = self._only
                self._part = self._part.filter(pc.equal(self._part.column(name), value))
            self._at = 0
        return self._part
