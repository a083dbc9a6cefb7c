"""A hostile internet on one local port.

Names resolve to the addresses given here, by the code's own check, and every public address leads to the local
server; nothing else is reached. So the check itself is never switched off in a test.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpcore
import pytest

from ops.crawl import fetch

PUBLIC = "93.184.216.34"
Page = Callable[[BaseHTTPRequestHandler], None]


class Plain(httpcore.NetworkStream):
    """A connection that takes TLS for granted."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self.inner = inner

    def read(self, max_bytes, timeout=None):
        return self.inner.read(max_bytes, timeout)

    def write(self, buffer, timeout=None):
        self.inner.write(buffer, timeout)

    def start_tls(self, ssl_context, server_hostname=None, timeout=None):
        return self

    def close(self):
        self.inner.close()

    def get_extra_info(self, info):
        return None


class Internet:
    """Pages by (host, path); what was asked for, when, and with which headers."""

    def __init__(self) -> None:
        self.pages: dict[tuple[str, str], Page] = {}
        self.names: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.dialled: list[str] = []
        internet = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                host = self.headers["Host"]
                internet.asked.append((host, self.path))
                internet.times.append(time.monotonic())
                internet.headers.append(dict(self.headers))
                page = internet.pages.get((host, self.path)) or internet.pages.get((host, self.path.split("?")[0]))
                with contextlib.suppress(ConnectionError):
                    (page or status(404))(self)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def resolve(self, host: str, port: int) -> list[str]:
        if host in self.names:
            return self.names[host]
        with contextlib.suppress(ValueError):
            return [str(fetch.ipaddress.ip_address(host))]
        raise socket.gaierror(f"no such host: {host}")

    def dial(self, address: str, port: int, timeout: float | None) -> httpcore.NetworkStream:
        assert fetch.is_public(address), f"a private address was dialled: {address}"
        self.dialled.append(address)
        return Plain(httpcore.SyncBackend().connect_tcp("127.0.0.1", self.server.server_address[1], timeout))

    def site(self, host: str, pages: dict[str, Page], address: str = PUBLIC) -> None:
        self.names[host.split(":")[0]] = [address]
        for path, page in pages.items():
            self.pages[host, path] = page

    def pictures_asked(self) -> list[str]:
        return [f"{host}{path}" for host, path in self.asked if path != "/robots.txt"]


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    net = Internet()
    monkeypatch.setattr(fetch, "resolve", net.resolve)
    monkeypatch.setattr(fetch, "dial", net.dial)
    yield net
    net.server.shutdown()
    net.server.server_close()


def send(body: bytes, code: int = 200, **headers: str) -> Page:
    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return page


def status(code: int, **headers: str) -> Page:
    return send(b"<html>no</html>", code, **headers)


def redirect(to: str, code: int = 302) -> Page:
    return send(b"", code, Location=to)


def hang(seconds: float = 20.0) -> Page:
    return lambda handler: time.sleep(seconds)


def drip(head: bool) -> Page:
    """A byte now and then, in the header or in the body, without end."""

    def page(handler: BaseHTTPRequestHandler) -> None:
        start = b"HTTP/1.1 200 OK\r\n" + (b"X: " if head else b"Content-Length: 100000\r\n\r\n")
        handler.wfile.write(start)
        for _ in range(400):
            handler.wfile.write(b"a")
            handler.wfile.flush()
            time.sleep(0.05)

    return page


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    block = b"10000\r\n" + b"\xff\xd8\xff" + b"x" * (0x10000 - 3) + b"\r\n"
    while True:
        handler.wfile.write(block)


def cut_short(body: bytes) -> Page:
    return send(body, Content_Length=str(len(body) + 1000))


def gzip_bomb(megabytes: int = 300) -> Page:
    packer = zlib.compressobj(9, wbits=31)
    body = b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes)) + packer.flush()
    return send(body, Content_Encoding="gzip")


def zipped(body: bytes) -> Page:
    return send(gzip.compress(body), Content_Encoding="gzip")


def once(first: Page, then: Page) -> Page:
    """Another page from the second request on."""
    left = [first]
    return lambda handler: (left.pop() if left else then)(handler)


def cached(body: bytes, etag: str) -> Page:
    """304 to who knows the tag."""

    def page(handler: BaseHTTPRequestHandler) -> None:
        known = handler.headers.get("If-None-Match") == etag
        send(b"" if known else body, 304 if known else 200, ETag=etag)(handler)

    return page
