"""The ``urls`` source: pictures by their addresses, from a txt, csv or parquet list."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ops.crawl.download import Link
from ops.runtime.errors import LineamentError

PROVENANCE = ("licence", "license", "page", "author", "title")  # columns that go into a sample's provenance


def read_links(path: Path, column: str, licence: str) -> Iterator[Link]:
    """The addresses of a list, one after the other.

    Args:
        path: ``.txt`` with an address a line (``#`` starts a comment), or ``.csv`` or ``.parquet`` with a column of
            them; columns licence, page, author and title go into the provenance.
        column: name of the column.
        licence: where the list says nothing of it.

    Raises:
        LineamentError: missing, unreadable, without the column, or without one address.
    """
    if not path.is_file():
        raise LineamentError(f"{path}: no such list. Correct the source's path in params.yaml.")
    readers = {".txt": _read_txt, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise LineamentError(f"{path}: a list of addresses ends in {', '.join(readers)}.")
    empty = True
    try:
        for row in readers[path.suffix.lower()](path, column):
            url = str(row.get(column) or "").strip()
            if url:
                empty = False
                known = {n.replace("license", "licence"): str(row[n]) for n in PROVENANCE if row.get(n)}
                yield Link(url, {"licence": licence, **known})
    except (OSError, UnicodeError, csv.Error, pa.ArrowException) as error:
        raise LineamentError(f"{path}: cannot be read ({error}).") from None
    if empty:
        raise LineamentError(f"{path}: there is no address in it.")


def _read_txt(path: Path, column: str) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig") as stream:
        for line in stream:
            yield {column: "" if line.lstrip().startswith("#") else line}


def _read_csv(path: Path, column: str) -> Iterator[dict[str, Any]]:
    with open(path, newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        _check_column(path, column, list(reader.fieldnames or []))
        yield from reader


def _read_parquet(path: Path, column: str) -> Iterator[dict[str, Any]]:
    table = pq.ParquetFile(path)
    names = table.schema_arrow.names
    _check_column(path, column, names)
    for batch in table.iter_batches(columns=[column, *(n for n in PROVENANCE if n in names and n != column)]):
        yield from batch.to_pylist()


def _check_column(path: Path, column: str, names: list[str]) -> None:
    if column not in names:
        raise LineamentError(f"{path}: has no column '{column}', only {', '.join(names) or 'nothing'}; see `column`.")
