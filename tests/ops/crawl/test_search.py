"""Keyword lists, a fake Openverse, and icrawler's parsers on a fake engine page, all through the one fetcher."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from ops.crawl.search import keywords
from ops.runtime.errors import LineamentError
from tests.ops.crawl import internet as web
from tests.ops.crawl.conftest import jpeg

ROOT = Path(__file__).parents[3]
FETCH = {"per_second": 100, "timeout": 0.4, "deadline": 1.0, "max_mb": 1, "attempts": 1}
WORDS = """
views: [from behind]
groups:
  man: {phrases: ["man {style}", "man {style} {view}"], styles: [bald head]}
"""


def test_the_built_in_lists_name_styles_by_gender():
    phrases = keywords(ROOT / "ops/crawl/hairstyles.yaml")
    assert len(phrases) == len(set(phrases)) > 150
    assert {"man bald head from behind", "woman pixie cut side view"} < set(phrases)


@pytest.mark.parametrize(
    "text", ["groups: {}", "words: [a]", "groups: [a]", 'groups: {a: {styles: [b], phrases: ["{who}"]}}', "- a"]
)
def test_broken_lists_are_named(tmp_path, text):
    (tmp_path / "words.yaml").write_text(text)
    with pytest.raises(LineamentError, match=r"words\.yaml"):
        keywords(tmp_path / "words.yaml")


def openverse(handler) -> None:
    """Three results for each phrase, two a page; then a page of none."""
    query = parse_qs(urlsplit(handler.path).query)
    page, phrase = int(query["page"][0]), query["q"][0]
    numbers = {1: (0, 1), 2: (2,)}.get(page, ())
    results = [
        {
            "url": f"http://photos.example/{'back' if 'behind' in phrase else 'all'}{n}.jpg", "license": "by",
            "license_version": "4.0", "license_url": "http://l", "creator": "Ann", "foreign_landing_url": "http://page",
        }
        for n in numbers
    ]  # fmt: skip
    web.send(json.dumps({"results": results}).encode())(handler)


def test_openverse_gives_pictures_with_licence_author_and_page(crawl, internet):
    Path("words.yaml").write_text(WORDS)
    internet.site("api.openverse.org", {"/v1/images/": openverse})
    names = [f"/{kind}{n}.jpg" for kind in ("all", "back") for n in range(3)]
    internet.site("photos.example", {name: web.send(jpeg(i)) for i, name in enumerate(names)})
    rows = crawl(kind="search", path="words.yaml", engine="openverse", per_phrase=45, fetch=FETCH)
    assert sorted(rows) == sorted(f"http://photos.example{name}" for name in names)
    _, said = crawl.sample(rows["http://photos.example/back2.jpg"])
    assert (said["licence"], said["licence_url"], said["author"]) == ("by 4.0", "http://l", "Ann")
    assert (said["page"], said["keyword"]) == ("http://page", "man bald head from behind")


def bing_page(handler) -> None:
    divs = [f'<div class="imgpt"><a m=\'{{"murl":"http://photos.example/{n}.jpg"}}\'></a></div>' for n in range(2)]
    web.send(("<html><body>" + "".join(divs) + "<div class='imgpt'></div></body></html>").encode())(handler)


def test_icrawlers_parsers_read_pages_that_our_fetcher_brings(crawl, internet):
    Path("words.yaml").write_text(WORDS)
    internet.site("www.bing.com", {"/images/async": bing_page})
    internet.site("photos.example", {f"/{n}.jpg": web.send(jpeg(n)) for n in range(2)})
    rows = crawl(kind="search", path="words.yaml", engine="bing", per_phrase=2, fetch=FETCH)
    assert sorted(rows) == ["http://photos.example/0.jpg", "http://photos.example/1.jpg"]
    assert all("lineament" in headers["User-Agent"] for headers in internet.headers)


def test_an_engine_that_forbids_robots_says_so_and_can_be_asked_all_the_same(crawl, internet, capsys):
    Path("words.yaml").write_text(WORDS)
    rules = web.send(b"User-agent: *\nDisallow: /")
    internet.site("www.bing.com", {"/robots.txt": rules, "/images/async": bing_page})
    internet.site("photos.example", {"/robots.txt": rules, "/0.jpg": web.send(jpeg(0))})
    declared = {"kind": "search", "path": "words.yaml", "engine": "bing", "per_phrase": 2, "fetch": FETCH}
    crawl(code=1, **declared)
    assert "openverse" in capsys.readouterr().err
    crawl(code=1, **declared, engine_robots="ignore")
    assert "not one picture could be read" in capsys.readouterr().err  # the pictures' own host is obeyed in any case
    assert ("photos.example", "/0.jpg") not in internet.asked


@pytest.mark.parametrize("body", [b"<html>captcha</html>", b"{}", b"\xff\xfe", b"[1]", b'{"results": [{"id": 1}]}'])
@pytest.mark.parametrize("engine", ["openverse", "bing", "google", "baidu"])
def test_pages_of_another_form_have_no_results(crawl, internet, capsys, engine, body):
    Path("words.yaml").write_text(WORDS)
    hosts = ("api.openverse.org", "www.bing.com", "www.google.com", "image.baidu.com")
    for host in hosts:
        internet.site(
            host, {path: web.send(body) for path in ("/v1/images/", "/images/async", "/search", "/search/acjson")}
        )
    crawl(code=1, kind="search", path="words.yaml", engine=engine, per_phrase=2, fetch=FETCH)
    assert "Traceback" not in capsys.readouterr().err
