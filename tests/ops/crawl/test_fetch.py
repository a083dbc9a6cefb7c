"""The fetcher against a hostile internet: whatever a server does, the answer is a picture or a reason, in time."""

from __future__ import annotations

import time

import pytest

from ops.crawl.fetch import Fetcher, FetchParams, is_public, normal
from tests.ops.crawl import internet as web
from tests.ops.crawl.internet import internet

__all__ = ["internet"]

QUICK = FetchParams(per_second=100, timeout=0.4, deadline=1.2, max_mb=1, attempts=1, contact="me@example.org")
BODY = b"\xff\xd8\xff some bytes"


def fetch(path: str, host: str = "example.org", params: FetchParams = QUICK, **known):
    return Fetcher(params, sleep=lambda seconds: None).fetch(f"http://{host}{path}", **known)


HOSTILE = {
    "hang": (web.hang(), "timeout"),
    "drip_body": (web.drip(head=False), "timeout"),
    "drip_head": (web.drip(head=True), "timeout"),
    "endless": (web.endless, "file_too_large"),
    "large": (web.send(b"x", Content_Length=str(10**12)), "file_too_large"),
    "short": (web.cut_short(BODY), "connection_failed"),
    "bomb": (web.gzip_bomb(), "file_too_large"),
    "no_gzip": (web.send(BODY, Content_Encoding="gzip"), "bad_encoding"),
    "half_gzip": (web.send(web.gzip.compress(BODY * 9)[:-12], Content_Encoding="gzip"), "bad_encoding"),
    "brotli": (web.send(BODY, Content_Encoding="br"), "unknown_encoding"),
    "nonsense": (lambda handler: handler.wfile.write(b"\0\1\2 what?\r\n\r\n"), "connection_failed"),
    "nothing": (lambda handler: None, "connection_failed"),
    "long_head": (web.send(BODY, X="y" * 200_000), "connection_failed"),
    "gone": (web.status(410), "not_found"),
    "secret": (web.status(403), "forbidden"),
    "teapot": (web.status(418), "refused"),
    "broken": (web.status(500), "server_error"),
    "busy": (web.status(429, Retry_After="3600"), "too_many_requests"),
    "loop": (web.redirect("/loop"), "too_many_redirects"),
    "nowhere": (web.redirect("gopher://example.org/"), "bad_redirect"),
    "password": (web.redirect("http://user:secret@example.org/"), "bad_redirect"),
    "to_loopback": (web.redirect("http://127.0.0.1/admin"), "private_address"),
    "to_metadata": (web.redirect("http://169.254.169.254/latest/meta-data"), "private_address"),
    "to_inside": (web.redirect("https://inside.example/"), "private_address"),
    "to_mapped": (web.redirect("http://[::ffff:10.0.0.1]/"), "private_address"),
    "to_unknown": (web.redirect("http://nobody.example/"), "host_unknown"),
    "to_file": (web.redirect("file:///etc/passwd"), "bad_redirect"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_end_with_their_reason_in_time(internet, name):
    page, problem = HOSTILE[name]
    internet.site("example.org", {f"/{name}": page})
    internet.names["inside.example"] = ["192.168.1.1"]
    started = time.monotonic()
    result = fetch(f"/{name}")
    assert (result.problem, result.data) == (problem, None)
    assert time.monotonic() - started < 5
    assert all(is_public(address) for address in internet.dialled)


def test_a_good_page_comes_whole_with_what_a_later_request_needs(internet):
    internet.site("example.org", {"/a b": web.send(b""), "/a%20b": web.send(BODY, ETag='"1"', Last_Modified="then")})
    result = fetch("/a b#part")
    assert (result.data, result.code, result.problem) == (BODY, 200, None)
    assert (result.etag, result.modified) == ('"1"', "then")
    sent = internet.headers[-1]
    assert sent["User-Agent"] == "lineament/0.1 (me@example.org)"
    assert sent["Accept-Encoding"] == "identity"


def test_packed_bodies_are_unpacked_though_none_was_asked_for(internet):
    internet.site("example.org", {"/z": web.zipped(BODY)})
    assert fetch("/z").data == BODY


def test_redirects_are_followed_to_public_hosts(internet):
    internet.site("example.org", {"/old": web.redirect("https://other.example/new", 301)})
    internet.site("other.example", {"/new": web.send(BODY)}, address="1.1.1.1")
    result = fetch("/old")
    assert (result.data, result.final) == (BODY, "https://other.example/new")
    assert "1.1.1.1" in internet.dialled


def test_what_is_checked_is_what_is_dialled(internet, monkeypatch):
    """A name that answers with a public address first and a private one later gains nothing by it."""
    from ops.crawl import fetch as module

    internet.site("rebind.example", {"/x": web.send(BODY)})
    answers = [["1.1.1.1"], ["1.1.1.1"]]
    monkeypatch.setattr(module, "resolve", lambda host, port: answers.pop(0) if answers else ["127.0.0.1"])
    assert fetch("/x", "rebind.example").data == BODY  # robots.txt and the page: one look-up each
    assert internet.dialled == ["1.1.1.1", "1.1.1.1"]
    assert fetch("/x", "rebind.example").problem == "private_address"


def test_one_private_address_among_public_ones_is_enough_to_refuse(internet):
    internet.names["mixed.example"] = ["1.1.1.1", "10.0.0.1"]
    assert fetch("/x", "mixed.example").problem == "private_address"
    assert internet.dialled == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700:4700::1111", True), ("::ffff:8.8.8.8", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.0.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False),
        ("255.255.255.255", False), ("::1", False), ("::", False), ("fe80::1%1", False), ("fc00::1", False),
        ("ff02::1", False), ("::ffff:127.0.0.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
        ("not an address", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address, public):
    assert is_public(address) is public


@pytest.mark.parametrize(
    "url",
    ["", "ftp://a.b/c", "http://", "//a.b/c", "http://u:p@a.b/", "http://a.b:99999/", "javascript:alert(1)",
     "http://a.b/\r\nX: y", "http://[::1", "http://\x00/"],
)  # fmt: skip
def test_addresses_that_are_none(internet, url):
    assert Fetcher(QUICK).fetch(url).problem == "bad_url"
    assert internet.asked == []


def test_addresses_are_made_plain():
    assert normal(" https://Bücher.example:8443/ä ö?q=ü#x ") == (
        "https://xn--bcher-kva.example:8443/%C3%A4%20%C3%B6?q=%C3%BC"
    )


def test_robots_are_obeyed_wildcards_too(internet):
    rules = b"User-agent: *\nDisallow: /private\nDisallow: /*.gif$\nAllow: /\n"
    internet.site("example.org", {"/robots.txt": web.send(rules), "/a": web.send(BODY), "/a.gif": web.send(BODY)})
    fetcher = Fetcher(QUICK)
    assert fetcher.fetch("http://example.org/private/x").problem == "robots_disallow"
    assert fetcher.fetch("http://example.org/a.gif").problem == "robots_disallow"
    assert fetcher.fetch("http://example.org/a").data == BODY
    assert internet.pictures_asked() == ["example.org/a"]
    assert internet.asked.count(("example.org", "/robots.txt")) == 1


def test_robots_of_the_host_that_a_redirect_leads_to_are_obeyed(internet):
    internet.site("example.org", {"/a": web.redirect("http://other.example/a")})
    internet.site("other.example", {"/robots.txt": web.send(b"User-agent: *\nDisallow: /"), "/a": web.send(BODY)})
    assert fetch("/a").problem == "robots_disallow"


@pytest.mark.parametrize(
    ("page", "problem"),
    [(web.status(404), None), (web.status(500), "robots_unreachable"), (web.hang(), "robots_unreachable"),
     (web.redirect("/robots.txt"), None), (web.redirect("http://10.0.0.1/"), "private_address"),
     (web.endless, None), (web.send(b"\xff\xfe\0garbage" * 9), None)],
)  # fmt: skip
def test_robots_that_cannot_be_had(internet, page, problem):
    """None at all allows everything, a host in trouble allows nothing (RFC 9309); an endless one is cut and read."""
    internet.site("example.org", {"/robots.txt": page, "/a": web.send(BODY)})
    assert fetch("/a").problem == problem


def test_the_rate_of_a_host_and_its_crawl_delay_are_kept(internet):
    internet.site("slow.example", {"/robots.txt": web.send(b"User-agent: *\nCrawl-delay: 7")})
    waits: list[float] = []
    fetcher = Fetcher(FetchParams(per_second=2, attempts=1), sleep=waits.append)
    for number in range(3):
        fetcher.fetch(f"http://slow.example/{number}")
    assert [round(wait) for wait in waits] == [7, 14]
    internet.site("example.org", {})
    waits.clear()
    for number in range(3):
        fetcher.fetch(f"http://example.org/{number}")
    assert [round(wait * 2) for wait in waits] == [1, 2]


def test_what_may_mend_itself_is_tried_again_after_the_time_asked_for(internet):
    waits: list[float] = []
    page = web.once(web.status(503, Retry_After="7"), web.send(BODY))
    internet.site("example.org", {"/a": page, "/b": web.status(404), "/c": web.status(500)})
    fetcher = Fetcher(FetchParams(per_second=100, attempts=3), sleep=waits.append)
    result = fetcher.fetch("http://example.org/a")
    assert (result.data, result.attempts) == (BODY, 2)
    assert 7 in waits
    assert fetcher.fetch("http://example.org/b").attempts == 1  # what is not there will not be there in a second
    assert fetcher.fetch("http://example.org/c").attempts == 3


def test_a_host_in_trouble_is_left_alone(internet):
    internet.site("example.org", {"/busy": web.status(429, Retry_After="3600"), **{f"/{n}": web.hang() for n in "abc"}})
    fetcher = Fetcher(QUICK, sleep=lambda seconds: None)
    assert fetcher.fetch("http://example.org/busy").problem == "too_many_requests"
    assert fetcher.fetch("http://example.org/a").problem == "host_given_up"
    internet.site("dead.example", {"/robots.txt": web.status(404), **{f"/{n}": web.status(500) for n in "abcdefg"}})
    problems = [fetcher.fetch(f"http://dead.example/{name}").problem for name in "abcdefg"]
    assert problems == ["server_error"] * 5 + ["host_given_up"] * 2


def test_a_conditional_request_costs_no_body(internet):
    internet.site("example.org", {"/a": web.cached(BODY, '"7"')})
    assert fetch("/a").data == BODY
    again = fetch("/a", etag='"7"')
    assert again.unchanged
    assert again.data is None
    assert again.problem is None
