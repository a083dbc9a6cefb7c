"""The page's server: this machine only, a secret in its address, nothing but a few calls.

A browser on this machine may visit hostile pages too, so every request must carry the token, name this server as its
host, and, when it changes something, come from the page itself.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa

from ops.curate import review
from ops.curate.review import Decision
from ops.review.items import Item, collect, draw
from ops.runtime.errors import LineamentError
from ops.store.pictures import encode_jpeg

MAX_BODY = 10_000
PAGE_SIZE = 60


class Desk:
    """The pictures and what has been decided; every decision is written at once."""

    def __init__(self, root: Path, source: str | None = None) -> None:
        self.root = root
        self.items = {item.id: item for item in collect(root, source)}
        self.path = root / review.LIST
        self.decisions = review.read(self.path)
        self._lock = threading.Lock()

    def page(self, start: int, undecided: bool) -> dict[str, Any]:
        """Some of the pictures, from the most doubtful on."""
        shown = [item for key, item in self.items.items() if not (undecided and key in self.decisions)]
        records = [item.record(self.decisions.get(item.id)) for item in shown[start : start + PAGE_SIZE]]
        decided = sum(key in self.decisions for key in self.items)
        return {"items": records, "start": start, "count": len(shown), "all": len(self.items), "decided": decided}

    def decide(self, key: str, values: dict[str, Any] | None) -> None:
        """Set, or with None take back, a decision.

        Raises:
            LineamentError: no such picture, or no decision.
        """
        if key not in self.items:
            raise LineamentError(f"there is no picture {key!r} here")
        with self._lock:
            decisions = {**review.read(self.path)}  # others may have written too
            decisions.pop(key, None)
            if values is not None:
                decisions[key] = decision_of(values)
            review.write(decisions, self.path)
            self.decisions = decisions

    def picture(self, key: str, values: dict[str, Any] | None) -> bytes:
        """The JPEG of a picture, its axes turned to the given angles or to what was decided."""
        item: Item = self.items[key]
        chosen = decision_of({"decision": "pose", **values}) if values else self.decisions.get(key)
        return encode_jpeg(draw(self.root, item, chosen), 88)


def decision_of(values: dict[str, Any]) -> Decision:
    """A decision from what the page sends.

    Raises:
        LineamentError: it is none.
    """
    try:
        yaw, pitch = (float(values.get(name) or 0.0) for name in ("yaw", "pitch"))
        roll = None if values.get("roll") is None else float(values["roll"])
        note = re.sub(r"[\x00-\x1f]", " ", str(values.get("note") or "")[:500])
        one = Decision(str(values["decision"]), yaw, pitch, roll, note)
    except (KeyError, TypeError, ValueError) as error:
        raise LineamentError(f"no decision: {error!r}") from None
    review.check(one, "the decision")
    return one


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        if not self._allowed(query.get("token", "")):
            return
        try:
            if address.path == "/":
                nonce = secrets.token_urlsafe(16)
                page = resources.files("ops.review").joinpath("page.html").read_text(encoding="utf-8")
                page = page.replace("NONCE", nonce).replace("TOKEN", self.server.token)
                self._send(200, "text/html; charset=utf-8", page.encode(), nonce)
            elif address.path == "/items":
                start = max(0, int(query.get("start", "0")))
                self._json(200, self.server.desk.page(start, query.get("undecided") == "1"))
            elif address.path == "/picture" and query.get("id") in self.server.desk.items:
                angles: dict[str, Any] = {name: query[name] for name in ("yaw", "pitch", "roll") if name in query}
                self._send(200, "image/jpeg", self.server.desk.picture(query["id"], angles or None))
            else:
                self._json(404, {"error": "there is no such page"})
        except (LineamentError, ValueError, FileNotFoundError, pa.ArrowException) as error:
            self._json(400, {"error": str(error)})

    def do_POST(self) -> None:
        if not self._allowed(self.headers.get("X-Token", "")):
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
            if self.path != "/decide" or not 0 <= length <= MAX_BODY:
                raise ValueError("a short JSON to /decide is all that is understood")
            body = json.loads(self.rfile.read(length))
            self.server.desk.decide(body["id"], body["decision"])
            self._json(200, {"decided": sum(key in self.server.desk.decisions for key in self.server.desk.items)})
        except (LineamentError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._json(400, {"error": str(error)})

    def _allowed(self, token: str) -> bool:
        """Whether the secret is right, and the page is ours: another site's script can name neither."""
        here = {f"{name}:{self.server.server_address[1]}" for name in ("127.0.0.1", "localhost")}
        origin = self.headers.get("Origin")
        right = hmac.compare_digest(token.encode(), self.server.token.encode())
        if right and self.headers.get("Host") in here and (origin is None or urlsplit(origin).netloc in here):
            return True
        self._json(403, {"error": "open the address that `lineament review` printed"})
        return False

    def _json(self, code: int, content: dict[str, Any]) -> None:
        self._send(code, "application/json", json.dumps(content).encode())

    def _send(self, code: int, kind: str, body: bytes, nonce: str = "") -> None:
        self.send_response(code)
        policy = f"default-src 'none'; img-src 'self'; connect-src 'self'; script-src 'nonce-{nonce}'; "
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": policy + f"style-src 'nonce-{nonce}'; frame-ancestors 'none'",
            "Connection": "close",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing: the terminal is the user's."""


class Server(ThreadingHTTPServer):
    """Serves the page on 127.0.0.1.

    Args:
        desk: what to show.
        port: 0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, desk: Desk, port: int = 0) -> None:
        self.desk = desk
        self.token = secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone on to another page no longer wants the rest of this one."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """The address to open, with its secret."""
        return f"http://127.0.0.1:{self.server_address[1]}/?token={self.token}"


def serve(root: Path, source: str | None, port: int) -> None:
    """Show the page until Ctrl-C.

    Raises:
        LineamentError: nothing to show, or the port is taken.
    """
    desk = Desk(root, source)
    try:
        server = Server(desk, port)
    except OSError as error:
        raise LineamentError(f"port {port} cannot be had ({error.strerror}); choose another with --port.") from None
    print(f"{len(desk.items)} pictures, the most doubtful first. Open {server.url}\nCtrl-C ends it.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print(f"\n{len(desk.decisions)} decisions in {review.LIST}. `dvc repro` applies them; commit the list.")
    finally:
        server.server_close()
