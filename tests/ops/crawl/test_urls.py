"""Lists of addresses to raw shards: statuses, retries of what failed, conditional re-download, resume, refresh."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.crawl.download import TABLE, Downloads, Link, spread
from ops.crawl.fetch import FetchParams
from ops.crawl.urls import read_links
from ops.runtime.errors import LineamentError
from tests.ops.crawl import internet as web
from tests.ops.crawl.conftest import jpeg
from tests.ops.odd_pictures import bomb

FETCH = {"per_second": 100, "timeout": 0.4, "deadline": 1.0, "max_mb": 1, "attempts": 1}


def source(**more):
    return {"kind": "urls", "path": "list.csv", "licence": "unknown", "fetch": FETCH, **more}


def write_list(*rows: dict[str, str]) -> None:
    with open("list.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, ["url", "licence", "author"])
        writer.writeheader()
        writer.writerows(rows)


def statuses() -> dict[str, str | None]:
    return {row["url"].removeprefix("http://example.org/"): row["problem"] for row in status_rows()}


def status_rows() -> list[dict]:
    return pq.read_table(Path("data/raw/web") / TABLE).to_pylist()


def urls(*names: str) -> None:
    write_list(*({"url": f"http://example.org/{name}"} for name in names))


def test_pictures_come_with_provenance_and_rubbish_with_its_reason(crawl, internet):
    internet.site(
        "example.org",
        {
            "/good": web.send(jpeg(1), Content_Type="text/html"),  # what it says of itself is not believed
            "/again": web.send(jpeg(1)),
            "/moved": web.redirect("/good2"),
            "/good2": web.send(jpeg(2)),
            "/page": web.send(b"<html>no picture</html>", Content_Type="image/jpeg"),
            "/bomb": web.send(bomb()),
            "/hang": web.hang(),
            "/empty": web.send(b""),
            "/inside": web.redirect("http://10.0.0.1/x.jpg"),
        },
    )
    write_list(
        {"url": "http://example.org/good", "licence": "CC-BY-4.0", "author": "Ann"},
        {"url": "http://example.org/good"},
        {"url": "  "},
        *({"url": f"http://example.org/{name}"} for name in ("moved", "page", "bomb", "hang", "empty", "inside")),
        {"url": "not an address"},
    )
    rows = crawl(**source())
    reasons = {name.removeprefix("http://example.org/"): row["reason"] for name, row in rows.items()}
    assert reasons == {
        "good": None, "moved": None, "page": "not_a_picture", "bomb": "too_large", "hang": "timeout",
        "empty": "empty", "inside": "private_address", "not an address": "bad_url",
    }  # fmt: skip
    assert statuses() == reasons
    fields, provenance = crawl.sample(rows["http://example.org/good"])
    assert fields["jpg"] == jpeg(1)
    assert (provenance["licence"], provenance["author"]) == ("CC-BY-4.0", "Ann")
    assert provenance["url"] == "http://example.org/good"
    _, moved = crawl.sample(rows["http://example.org/moved"])
    assert (moved["licence"], moved["final_url"]) == ("unknown", "http://example.org/good2")


def test_a_second_run_asks_only_for_what_failed_and_changes_no_shard(crawl, internet):
    internet.site("example.org", {"/a": web.send(jpeg(1)), "/b": web.once(web.status(500), web.send(jpeg(2)))})
    urls("a", "b")
    rows = crawl(**source())
    assert rows["http://example.org/b"]["reason"] == "server_error"
    before, first = crawl.shards(), len(internet.pictures_asked())
    rows = crawl(**source())
    assert internet.pictures_asked()[first:] == ["example.org/b"]
    assert {name: row["reason"] for name, row in rows.items()} == dict.fromkeys(rows)
    assert len(rows) == 2, "the mended address keeps one row"
    after = crawl.shards()
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    second = len(internet.pictures_asked())
    crawl(**source())
    assert internet.pictures_asked()[second:] == []
    assert crawl.shards() == after


def test_other_manners_keep_what_is_there_and_another_licence_does_not(crawl, internet):
    internet.site("example.org", {"/a": web.send(jpeg(1)), "/b": web.send(jpeg(2))})
    urls("a", "b")
    crawl(**source())
    asked = len(internet.pictures_asked())
    crawl(**source(fetch={**FETCH, "connections": 2}))
    assert len(internet.pictures_asked()) == asked
    crawl(**source(licence="CC0-1.0"))
    assert len(internet.pictures_asked()) == 2 * asked


def test_recheck_asks_on_condition_and_keeps_old_and_new(crawl, internet):
    internet.site(
        "example.org",
        {
            "/same": web.cached(jpeg(1), '"1"'),
            "/changed": web.once(web.send(jpeg(2), ETag='"2"'), web.send(jpeg(3), ETag='"3"')),
            "/gone": web.once(web.send(jpeg(4)), web.status(404)),
        },
    )
    urls("same", "changed", "gone")
    crawl(**source())
    before = crawl.shards()
    rows = crawl(**source(recheck_days=0))
    assert internet.headers[-1].get("If-None-Match") in ('"1"', '"2"', None)
    assert {h.get("If-None-Match") for h in internet.headers} >= {'"1"', '"2"'}
    after = crawl.shards()
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    assert statuses() == {"same": None, "changed": None, "gone": None}
    assert {row["etag"] for row in status_rows()} == {'"1"', '"3"', None}
    assert len(rows) == 3, "by name; the changed address has two rows"


def test_a_killed_crawl_goes_on_where_it_was(crawl, internet, tmp_path):
    internet.site("example.org", {f"/{n}": web.send(jpeg(n)) for n in range(8)})
    links = [Link(f"http://example.org/{n}") for n in range(8)]
    params = FetchParams(**FETCH)
    stream = Downloads(tmp_path / "raw", tmp_path / "work", params).pictures(links)
    some = [next(stream) for _ in range(3)]
    stream.close()
    asked = len(internet.pictures_asked())
    assert asked >= 3
    downloads = Downloads(tmp_path / "raw", tmp_path / "work", params)
    everything = list(downloads.pictures(links))
    assert [p.data for p in everything[:3]] == [p.data for p in some]
    assert sorted(internet.pictures_asked()) == [f"example.org/{n}" for n in range(8)], "each was asked for once"
    downloads.forget()
    assert not (tmp_path / "work/downloads").exists()


def test_the_order_is_that_of_the_list_however_slow_a_host_is(internet, tmp_path):
    hosts = {"slow.example": 0.2, "fast.example": 0.0}
    for host, delay in hosts.items():
        internet.site(host, {f"/{n}": _late(delay, jpeg(hash_of(host, n))) for n in range(2)})
    links = [Link(f"http://{host}/{n}") for host in hosts for n in range(2)]
    found = list(Downloads(tmp_path, tmp_path, FetchParams(**FETCH)).pictures(links))
    assert [p.name for p in found] == [link.url for link in spread(links)]
    assert all(p.data for p in found)


def hash_of(host: str, number: int) -> int:
    return len(host) * 10 + number


def _late(delay: float, body: bytes) -> web.Page:
    def page(handler):
        web.time.sleep(delay)
        web.send(body)(handler)

    return page


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=20))
def test_hosts_take_turns_and_each_address_comes_once(pairs):
    links = [Link(f"http://{host}.example/{number}") for host, number in pairs]
    found = list(spread(links))
    assert {link.url for link in found} == {link.url for link in links}
    assert len({link.url for link in found}) == len(found)
    for host in "abc":
        mine = [link.url for link in links if link.url.startswith(f"http://{host}.")]
        assert [u.url for u in found if u.url.startswith(f"http://{host}.")] == list(dict.fromkeys(mine))


def test_lists_of_every_form(tmp_path):
    wanted = ["http://a.example/1", "http://a.example/2"]
    (tmp_path / "a.txt").write_text(f"# mine\n{wanted[0]}\n\n {wanted[1]} \n", encoding="utf-8-sig")
    (tmp_path / "a.csv").write_text(f"link,license\n{wanted[0]},CC0\n{wanted[1]},\n")
    pq.write_table(pa.table({"link": wanted, "page": ["p", None]}), tmp_path / "a.parquet")
    for name, known in (("a.txt", ({}, {})), ("a.csv", ({"licence": "CC0"}, {})), ("a.parquet", ({"page": "p"}, {}))):
        links = list(read_links(tmp_path / name, "link", "none"))
        assert [link.url for link in links] == wanted
        assert [link.provenance for link in links] == [{"licence": "none", **k} for k in known]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "no column 'url'"), ("a.csv", b"link\nx\n", "only link"), ("a.csv", b"url\n\n", "no address"),
        ("a.txt", b"# nothing\n", "no address"), ("a.txt", b"\xff\xfe\xff", "cannot be read"),
        ("a.parquet", b"PAR1 no", "cannot be read"), ("a.json", b"{}", "ends in"),
    ],
)  # fmt: skip
def test_broken_lists_are_named(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LineamentError, match=says):
        list(read_links(tmp_path / name, "url", ""))


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(LineamentError, match="no such list"):
        list(read_links(tmp_path / "a.txt", "url", ""))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([".txt", ".csv", ".parquet"]))
def test_any_bytes_are_a_list_or_a_clear_error(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("lists") / f"a{suffix}"
    path.write_bytes(b"url\n" + data if suffix == ".csv" else data)
    with contextlib.suppress(LineamentError):
        assert all(isinstance(link.url, str) and link.url for link in read_links(path, "url", ""))


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=5))
def test_any_csv_that_is_written_is_read(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("lists") / "a.csv"
    stream = io.StringIO()
    csv.writer(stream).writerows([["url"], *([v] for v in values)])
    path.write_bytes(stream.getvalue().encode())
    wanted = [v.strip() for v in values if v.strip()]
    try:
        assert [link.url for link in read_links(path, "url", "")] == wanted
    except LineamentError:
        assert not wanted or "\0" in "".join(values)
