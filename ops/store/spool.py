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

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        self._rows.append(row)
        if len(self._rows) >= self._size:
            self._put_down()

    def tables(self) -> Iterator[pa.Table]:
        """All rows, in their order, in tables of one schema; none where there was no row."""
        if self._rows:
            self._put_down()
        if self._schema is None and self._paths:
            schemas = [pq.read_schema(path) for path in self._paths]
            whole = pa.unify_schemas(schemas, promote_options="permissive")
            self._schema = pa.schema([whole.field(name) for name in schemas[0].names])
        for path in self._paths:
            table = pq.read_table(path)
            assert self._schema is not None
            for field in self._schema:
                if field.name not in table.column_names:
                    table = table.append_column(field, pa.nulls(len(table), field.type))
            yield table.select(self._schema.names).cast(self._schema)

    def _put_down(self) -> None:
        path = self._folder / f"{len(self._paths):06d}.parquet"
        pq.write_table(pa.Table.from_pylist(self._rows, schema=self._schema), path)
        self._paths.append(path)
        self._rows = []
