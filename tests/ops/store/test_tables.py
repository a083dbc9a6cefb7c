"""Label tables: equal bytes for equal content, and the rules that make counts add up."""

import numpy as np
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


def test_a_table_written_in_parts_has_the_bytes_of_the_whole(tmp_path, monkeypatch):
    wide = tables.schema(pa.field("points", pa.list_(pa.float32())))
    rows = [{"id": f"{n:016x}", "points": [n, 2 * n], "kept": True, "reason": None} for n in range(23)]
    whole = pa.Table.from_pylist(rows, schema=wide)
    monkeypatch.setattr(tables, "WIDE_GROUP", 4)
    for name, cuts in {"a": [23], "b": [0, 1, 9, 10, 23], "c": [4, 8, 23]}.items():
        parts = [whole.slice(low, high - low) for low, high in zip([0, *cuts], cuts)]
        tables.write(tmp_path / name, iter(parts), "detect")
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1
    assert tables.read(tmp_path / "a").to_pylist() == rows
    numbers = np.array([22, 3, 3, 0, 11])
    assert tables.take(tmp_path / "a", numbers) == [rows[n] for n in numbers]
    assert tables.take(tmp_path / "a", numbers[:0]) == []
    with pytest.raises(LineamentError, match="more than one row"):
        tables.write(tmp_path / "d", iter([whole, whole]), "detect")


def test_an_empty_table_keeps_its_columns(tmp_path):
    tables.write(tmp_path / "x.parquet", iter([table([]), table([])]), "screen")
    assert tables.read(tmp_path / "x.parquet").schema.names == SCHEMA.names


def test_heads_stand_where_they_are_or_where_their_picture_is():
    picture, other = "0" * 16, "1" * 16
    keys = pa.array([f"{picture}-h2", other, f"{other}-h1", f"{picture}-h1"])
    assert tables.places(keys, pa.array([other, picture])).tolist() == [1, 0, 0, 1]
    assert tables.places(keys, pa.array([other, f"{picture}-h1"])).tolist() == [-1, 0, 0, 1]
    assert tables.places(keys, pa.array([other, picture]), exactly=True).tolist() == [-1, 0, -1, -1]
    assert [tables.picture_of(key) for key in (picture, tables.head_id(picture, 12), f"{picture}-000123")] == [
        picture, picture, f"{picture}-000123",
    ]  # fmt: skip
