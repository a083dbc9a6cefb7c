"""The one way to the web: polite to hosts, wary of what they send.

Each request resolves its host, refuses any address that is not public, and connects to the very address that was
checked, so that a name cannot point elsewhere a moment later; a redirect starts again from there. A request has a
deadline for all of it, bytes are counted as they come and as they unpack, and what a server says of type or size is
never believed. Hosts are asked no faster than their robots.txt and the declared rate allow.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import httpcore
from protego import Protego
from pydantic import Field

from ops.runtime.params import Params

AGENT = "lineament"
REDIRECTS = (301, 302, 303, 307, 308)
CODES = {401: "forbidden", 403: "forbidden", 404: "not_found", 410: "not_found", 429: "too_many_requests"}
TRANSIENT = {"timeout", "connection_failed", "host_unknown", "server_error", "too_many_requests", "robots_unreachable"}
ROBOTS_BYTES = 512 * 1024  # RFC 9309 2.5: at least 500 KiB are read
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class FetchParams(Params):
    """How a crawl behaves. All values are unpublished: our choice."""

    contact: str = Field(default="", description="address or page of who crawls; goes into the user agent")
    per_second: float = Field(default=1.0, gt=0, le=100, description="requests a second to one host")
    connections: int = Field(default=8, ge=1, le=64, description="hosts asked at a time")
    timeout: float = Field(default=20.0, gt=0, description="seconds without a byte")
    deadline: float = Field(default=120.0, gt=0, description="seconds for one picture, redirects included")
    max_mb: float = Field(default=64.0, gt=0, description="a larger file is refused")
    redirects: int = Field(default=5, ge=0, le=20, description="followed, each to a public address only")
    attempts: int = Field(default=3, ge=1, le=10, description="for what may mend itself: time-outs, 429, 5xx")
    max_wait: float = Field(default=60.0, ge=0, description="seconds; a host that wants more waits for the next run")
    give_up: int = Field(default=5, ge=1, description="failures in a row after which a host is left for the next run")

    @property
    def agent(self) -> str:
        """The User-Agent header."""
        return f"{AGENT}/0.1 ({self.contact})" if self.contact else f"{AGENT}/0.1"


@dataclass(frozen=True)
class Fetched:
    """What came of one address.

    Attributes:
        url: as asked for.
        final: after redirects.
        code: HTTP status; None when there was no answer.
        data: the bytes; None when there are none, for the reason ``problem`` or because they are unchanged.
        problem: short snake_case reason.
        etag, modified: what a later conditional request sends back.
        attempts: how often the server was asked.
    """

    url: str
    final: str
    code: int | None = None
    data: bytes | None = None
    problem: str | None = None
    etag: str | None = None
    modified: str | None = None
    attempts: int = 1

    @property
    def unchanged(self) -> bool:
        """The server says that nothing is new since the last time."""
        return self.code == 304 and self.problem is None


class _Failed(Exception):
    """A request came to nothing."""

    def __init__(self, problem: str, code: int | None = None, wait: float | None = None) -> None:
        super().__init__(problem)
        self.problem, self.code, self.wait = problem, code, wait


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def dial(address: str, port: int, timeout: float | None) -> httpcore.NetworkStream:
    """A connection to an address (never a name: that would be resolved again)."""
    return httpcore.SyncBackend().connect_tcp(address, port, timeout)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet, also when it carries another one inside."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if any(v4 is not None and not is_public(str(v4)) for v4 in inner):
            return False
        if ip.ipv4_mapped is not None:
            return True
    return ip.is_global and not ip.is_multicast


def public_addresses(host: str, port: int) -> list[str]:
    """The addresses of a host, all of them public; raises _Failed otherwise."""
    try:
        found = resolve(host, port)
    except (OSError, UnicodeError):
        raise _Failed("host_unknown") from None
    if not found or not all(map(is_public, found)):
        raise _Failed("private_address")
    return found


class _Stream(httpcore.NetworkStream):
    """A connection on which every wait ends at the deadline, however slowly bytes drip."""

    def __init__(self, inner: httpcore.NetworkStream, left: Callable[[float | None], float]) -> None:
        self._inner, self._left = inner, left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._left(timeout))

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, self._left(timeout)), self._left)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Guard(httpcore.NetworkBackend):
    """Connects to public addresses only, until the deadline."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def _left(self, timeout: float | None) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the deadline has passed")
        return left if timeout is None else min(left, timeout)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        problem: Exception = httpcore.ConnectError("no address")
        for address in public_addresses(host, port)[:4]:
            try:
                return _Stream(dial(address, port, self._left(timeout)), self._left)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem


@dataclass
class _Host:
    """What is known of a host in this run."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    robots: Protego | None = None
    next_time: float = 0.0
    failures: int = 0


class Fetcher:
    """Fetches addresses for one crawl; threads may share it."""

    def __init__(self, params: FetchParams, sleep: Callable[[float], object] = time.sleep) -> None:
        self.params = params
        self._sleep = sleep
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    def fetch(self, url: str, *, etag: str | None = None, modified: str | None = None, robots: bool = True) -> Fetched:
        """One address, tried again where that may help. Never raises: what went wrong is in ``problem``.

        Args:
            url: http or https.
            etag, modified: of the last answer; the server may then say that nothing is new.
            robots: whether robots.txt has a say.
        """
        result = Fetched(url, url, problem="bad_url")
        try:
            url = normal(url)
        except ValueError:
            return result
        for attempt in range(1, self.params.attempts + 1):
            host = self._host(url)
            if host.failures >= self.params.give_up:
                return Fetched(url, url, problem="host_given_up", attempts=attempt - 1)
            wait = self.params.per_second**-1 * 2 ** (attempt - 1)
            try:
                result = self._follow(url, {"If-None-Match": etag, "If-Modified-Since": modified}, robots)
                host.failures = 0
                return replace(result, attempts=attempt)
            except _Failed as failed:
                result = Fetched(url, url, failed.code, problem=failed.problem, attempts=attempt)
                if failed.problem not in TRANSIENT:
                    return result
                wait = wait if failed.wait is None else failed.wait
            if wait > self.params.max_wait:
                host.failures = self.params.give_up
                return result
            if attempt < self.params.attempts:
                self._sleep(wait)
        host.failures += 1
        return result

    def _host(self, url: str) -> _Host:
        with self._lock:
            return self._hosts.setdefault(urlsplit(url).netloc, _Host())

    def _follow(self, url: str, conditions: dict[str, str | None], robots: bool) -> Fetched:
        deadline = time.monotonic() + self.params.deadline
        limit = int(self.params.max_mb * 2**20)
        here = url
        for _ in range(self.params.redirects + 1):
            host = self._host(here)
            with host.lock:  # one request at a time to a host
                if robots and not self._rules(host, here, deadline).can_fetch(here, AGENT):
                    raise _Failed("robots_disallow")
                self._take_turn(host)
                with self._ask(here, deadline, conditions) as response:
                    headers = _headers(response)
                    if response.status not in REDIRECTS:
                        _raise_for(response.status, headers)
                        data = None if response.status == 304 else _body(response, headers, limit)
                        etag, modified = headers.get("etag"), headers.get("last-modified")
                        return Fetched(url, here, response.status, data, None, etag, modified)
            try:
                here = normal(urljoin(here, headers.get("location", "")))
            except ValueError:
                raise _Failed("bad_redirect", response.status) from None
        raise _Failed("too_many_redirects")

    def _rules(self, host: _Host, url: str, deadline: float) -> Protego:
        """The host's robots.txt, read once; what it asks for when it cannot be had is RFC 9309's answer."""
        if host.robots is None:
            here = urljoin(url, "/robots.txt")
            try:
                for _ in range(self.params.redirects + 1):
                    with self._ask(here, deadline, {}) as response:
                        headers = _headers(response)
                        if response.status not in REDIRECTS:
                            _raise_for(response.status, headers)
                            text = _body(response, headers, ROBOTS_BYTES, cut=True).decode("utf-8", "replace")
                            host.robots = Protego.parse(text)
                            return host.robots
                    here = normal(urljoin(here, headers.get("location", "")))
                raise _Failed("too_many_redirects", 310)
            except ValueError:
                host.robots = Protego.parse("")  # a redirect to nowhere counts as none
            except _Failed as failed:
                if failed.code is not None and 300 <= failed.code < 500 and failed.code != 429:
                    host.robots = Protego.parse("")  # RFC 9309 2.3.1.3: there is none
                elif failed.problem in ("private_address", "host_unknown", "too_many_requests"):
                    raise
                else:
                    raise _Failed("robots_unreachable", failed.code, failed.wait) from None
        return host.robots

    def _take_turn(self, host: _Host) -> None:
        """Wait until the host may be asked again."""
        pause = 1 / self.params.per_second
        if host.robots is not None:
            pause = max(pause, min(float(host.robots.crawl_delay(AGENT) or 0), self.params.max_wait))
        now = time.monotonic()
        if host.next_time > now:
            self._sleep(host.next_time - now)
        host.next_time = max(now, host.next_time) + pause

    @contextmanager
    def _ask(self, url: str, deadline: float, conditions: dict[str, str | None]) -> Iterator[httpcore.Response]:
        wait = dict.fromkeys(("connect", "read", "write", "pool"), self.params.timeout)
        headers = {"User-Agent": self.params.agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
        headers |= {"Host": urlsplit(url).netloc, "Connection": "close"}
        headers |= {name: value for name, value in conditions.items() if value}
        try:
            with httpcore.ConnectionPool(_tls(), network_backend=_Guard(deadline)) as pool:
                pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
                with pool.stream("GET", url, headers=pairs, extensions={"timeout": wait}) as response:
                    yield response
        except httpcore.TimeoutException:
            raise _Failed("timeout") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError):
            raise _Failed("connection_failed") from None


@lru_cache
def _tls() -> Any:
    return httpcore.default_ssl_context()


def normal(url: str) -> str:
    """An address fit to be sent: http(s), a host, no password, no fragment, all ASCII.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url.strip())
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.password is not None:
        raise ValueError(f"{url!r} is no address of the web")
    if re.search(r"[\x00-\x20\x7f]", url.strip().replace(" ", "")):
        raise ValueError(f"{url!r} has control characters")
    name = host if host.isascii() else host.encode("idna").decode()
    place = f"[{name}]" if ":" in name else name
    if parts.port is not None:
        place += f":{parts.port}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    return urlunsplit((parts.scheme, place, path, quote(parts.query, safe="/%:@!$&'()*+,;=~-._?"), ""))


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


def _raise_for(code: int, headers: dict[str, str]) -> None:
    if code in (200, 304):
        return
    wait = _seconds(headers.get("retry-after")) if code in (429, 503) else None
    raise _Failed(CODES.get(code, "server_error" if code >= 500 else "refused"), code, wait)


def _seconds(text: str | None) -> float | None:
    """A Retry-After header, seconds or a date, as seconds from now."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _body(response: httpcore.Response, headers: dict[str, str], limit: int, cut: bool = False) -> bytes:
    """The body, unpacked, at most ``limit`` bytes; a longer one is refused, or ``cut``."""
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit and not cut:
        raise _Failed("file_too_large", response.status)
    packing = headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise _Failed("unknown_encoding", response.status)
    unpack = zlib.decompressobj(47) if packing not in ("identity", "") else None
    body = bytearray()
    for chunk in response.iter_stream():
        try:
            body += unpack.decompress(chunk, limit + 1 - len(body)) if unpack is not None else chunk
        except zlib.error:
            raise _Failed("bad_encoding", response.status) from None
        if len(body) > limit:
            if cut:
                return bytes(body[:limit])
            raise _Failed("file_too_large", response.status)
    if unpack is not None and not unpack.eof:
        raise _Failed("bad_encoding", response.status)
    return bytes(body)
