"""Tables read along with shards, rows put down as they come, and bags of names: all as if everything were in memory."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.synthetic import label_table
from ops.runtime.errors import LineamentError
from ops.store import seen, tables
from ops.store.inorder import InOrder
from ops.store.seen import Seen
from ops.store.spool import Spool


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=8), st.integers(1, 7))
def test_every_shard_gets_its_rows_whatever_the_parts(tmp_path_factory, heads, size):
    """``heads``: for each shard and picture in it, how many heads of it have a row; 0 for a picture without one."""
    shards = [[f"{n:08x}{m:08x}" for m in range(len(some))] for n, some in enumerate(heads)]
    wanted = [
        [f"{key}-h{h}" if many > 1 else key for key, many in zip(keys, some) for h in range(1, many + 1)]
        for keys, some in zip(shards, heads)
    ]
    path = tmp_path_factory.mktemp("table") / "t.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROW_GROUP", size)
        tables.write(path, label_table([key for keys in wanted for key in keys]), "s")
    table = InOrder(path, [])
    assert [list(table.rows(keys)) for keys in shards] == wanted
    table.end()


def test_what_is_rejected_or_of_another_source_is_passed_over(tmp_path):
    keys = [f"{n:016x}" for n in range(6)]
    reasons = [None, "blurred", None, None, "blurred", None]
    table = label_table(keys, reasons, source=["a", "a", "b", "a", "b", "b"], width=list(range(6)))
    tables.write(tmp_path / "t.parquet", table, "s")
    found = InOrder(tmp_path / "t.parquet", ["source", "width"], kept=True, only=("source", "b"))
    assert {key: row["width"] for key, row in found.rows(keys).items()} == {keys[2]: 2, keys[5]: 5}
    assert not found


@pytest.mark.parametrize("order", [[1, 0], [0, 9, 1]])
def test_rows_of_other_shards_or_in_another_order_are_an_error(tmp_path, order):
    tables.write(tmp_path / "t.parquet", label_table([f"{n:016x}" for n in order]), "s")
    table = InOrder(tmp_path / "t.parquet")
    for number in (0, 1):
        table.rows([f"{number:016x}"])
    with pytest.raises(LineamentError, match="run the stages before this one again"):
        table.end()


def test_a_missing_or_damaged_table_is_named(tmp_path):
    with pytest.raises(LineamentError, match="Run the stage that makes it"):
        InOrder(tmp_path / "t.parquet").rows(["a"])
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(LineamentError, match="dvc checkout"):
        InOrder(tmp_path / "t.parquet").rows(["a"])


@given(st.lists(st.text(st.characters(), max_size=3), max_size=60), st.integers(1, 9))
def test_a_bag_counts_as_a_counter_does(names, fresh):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "FRESH", fresh)
        bag, counter = Seen(), Counter()
        for name in names:
            assert (name in bag) == (name in counter)
            bag.add(name)
            counter[name] += 1
        assert {name: bag.count(name) for name in [*names, "elsewhere"]} == {**counter, "elsewhere": 0}
        assert bag.repeats == (len(set(names)) < len(names))


def test_two_names_of_one_hash_are_no_repetition(tmp_path, monkeypatch):
    monkeypatch.setattr(seen, "number_of", lambda text: 7)
    tables.write(tmp_path / "t.parquet", label_table(["a", "b"]), "s")
    with pytest.raises(LineamentError, match="more than one row"):
        tables.write(tmp_path / "t.parquet", label_table(["a", "b", "a"]), "s")


ROWS = st.sampled_from(
    [st.integers(0, 9), st.one_of(st.none(), st.floats(-1, 1)), st.lists(st.floats(-1, 1), max_size=3)]
)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 4))
def test_spooled_rows_are_the_table_of_all_of_them(tmp_path_factory, data, size):
    kinds = {"a": data.draw(ROWS), "b": data.draw(ROWS)}
    rows = data.draw(st.lists(st.fixed_dictionaries({}, optional=kinds), min_size=1, max_size=9))
    rows[0] = {"a": data.draw(kinds["a"]), **rows[0]}
    spool = Spool(tmp_path_factory.mktemp("spool") / "rows", size=size)
    for row in rows:
        spool.add(row)
    found, whole = pa.concat_tables(spool.tables()), pa.Table.from_pylist(rows)
    assert found.schema == whole.schema
    assert found.equals(whole)
