"""Crawl after crawl: the table is that of a plain dictionary's bookkeeping, whatever is offered in whatever order."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.crawl.raw import TABLE, RawPicture, add_pictures, sample_id
from ops.store import seen, tables
from ops.store.tar import Shard, shard_paths

NAMES = st.sampled_from(["a", "b", "c", "d"])
DATA = st.sampled_from([None, b"\xff\xd8\xffone", b"\xff\xd8\xfftwo", b"\xff\xd8\xffthree"])
CRAWLS = st.lists(st.lists(st.tuples(NAMES, DATA), max_size=6), min_size=1, max_size=4)


def bookkeeping(crawls):
    """Id, name and reason of all rows, as the documentation says."""
    rows, offered, kept, known = [], Counter(), set(), set()
    for crawl in crawls:
        failed = {name: (key, name, reason) for key, name, reason in rows if reason == "timeout"}
        for name, data in crawl:
            key = sample_id(data if data is not None else name.encode())
            mended = failed.pop(name, None)
            if mended is not None:
                rows.remove(mended)
            elif (name, key) in known:
                continue
            known.add((name, key))
            reason = "timeout" if data is None else "exact_duplicate" if key in kept else None
            offered[key] += 1
            if reason is None:
                kept.add(key)
            rows.append((key if reason is None else f"{key}-{offered[key]}", name, reason))
        offered = Counter(key.split("-")[0] for key, _, _ in rows)  # a later crawl knows the table alone
        known = {(name, key.split("-")[0]) for key, name, _ in rows}
    return rows


@settings(max_examples=25, deadline=None)
@given(CRAWLS, st.integers(1, 3))
def test_the_table_is_that_of_the_bookkeeping(tmp_path_factory, crawls, fresh):
    raw = tmp_path_factory.mktemp("crawl") / "raw"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "FRESH", fresh)
        for number, crawl in enumerate(crawls):
            pictures = (RawPicture(n, d, problem="timeout" if d is None else None) for n, d in crawl)
            counts, _ = add_pictures(raw, "web", "s", pictures, 2)
            found = tables.read(raw / TABLE).to_pylist()
            wanted = bookkeeping(crawls[: number + 1])
            assert [(row["id"], row["name"], row["reason"]) for row in found] == wanted
            assert (counts["in"], counts["kept"]) == (len(wanted), sum(reason is None for *_, reason in wanted))
    kept = [row["id"] for row in found if row["kept"]]
    if kept:
        assert [key for path in shard_paths(raw) for key in Shard(path).keys] == kept
    assert sorted(path.suffix for path in raw.iterdir() if path.name.startswith(".")) == []
