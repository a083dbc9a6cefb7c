"""Rows that come one by one, put down as they come: memory holds a few thousand, however many there will be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class Spool:
    """A folder of tables that grows row by row and is read back part by part.

    Args:
        folder: new; the caller deletes it.
        schema: of the rows; found from the rows themselves if not given, columns being those of the first row.
        size: rows a part.
    """

    def __init__(self, folder: Path, schema: pa.Schema | None = None, size: int = 4_096) -> None:
        folder.mkdir(parents=True)
        self._folder, self._schema, self._size = folder, schema, size
        self._rows: list[dict[str, Any]] = []
        self._paths: list[Path] = []
        self._schemas: list[pa.Schema] = []
        self._names = None if schema is None else schema.names

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        self._names = self._names or list(row)
        self._rows.append({name: row.get(name) for name in self._names})
        if len(self._rows) >= self._size:
            self._put_down()

    def tables(self) -> Iterator[pa.Table]:
        """All rows, in their order, in tables of one schema; none where there was no row."""
        if self._rows:
            self._put_down()
        schema = pa.unify_schemas(self._schemas, promote_options="permissive") if self._schemas else None
        for path in self._paths:
            yield pq.read_table(path).cast(schema)

    def _put_down(self) -> None:
        path = self._folder / f"{len(self._paths):06d}.parquet"
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        pq.write_table(table, path)
        self._paths.append(path)
        self._schemas.append(table.schema)
        self._rows = []
