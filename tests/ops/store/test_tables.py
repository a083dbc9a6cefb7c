"""Label tables: equal bytes for equal content, and the rules that make counts add up."""

import pyarrow as pa
import pytest

from ops.runtime.errors import LineamentError
from ops.store import tables

SCHEMA = tables.schema(pa.field("score", pa.float32()))


def table(rows):
    names = ("id", "score", "kept", "reason")
    return pa.Table.from_pylist([dict(zip(names, row)) for row in rows], schema=SCHEMA)


GOOD = [("a", 1.0, True, None), ("b", 0.1, False, "blurred"), ("c", 0.2, False, "blurred"), ("d", 0.3, True, None)]


def test_round_trip_and_counts(tmp_path):
    path = tmp_path / "labels" / "screen.parquet"
    tables.write(path, table(GOOD), "screen")
    assert tables.read(path).to_pylist() == table(GOOD).to_pylist()
    assert tables.kept_ids(path) == ["a", "d"]
    assert tables.counts(tables.read(path)) == {"in": 4, "kept": 2, "rejected": 2, "reasons": {"blurred": 2}}


def test_equal_content_equal_bytes(tmp_path):
    for name in "ab":
        tables.write(tmp_path / name, table(GOOD), "screen")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 1.0, True, None), ("a", 1.0, True, None)], "more than one row"),
        ([("a", 1.0, True, "why")], "reason"),
        ([("a", 1.0, False, None)], "reason"),
    ],
)
def test_broken_rules_are_refused(tmp_path, rows, message):
    with pytest.raises(LineamentError, match=message):
        tables.write(tmp_path / "x.parquet", table(rows), "screen")
    assert not (tmp_path / "x.parquet").exists()


def test_missing_and_damaged_tables_are_named(tmp_path):
    with pytest.raises(LineamentError, match="no such table"):
        tables.read(tmp_path / "x.parquet")
    tables.write(tmp_path / "x.parquet", table(GOOD), "screen")
    data = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(LineamentError, match="cannot be read"):
        tables.read(tmp_path / "x.parquet")
