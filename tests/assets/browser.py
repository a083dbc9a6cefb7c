"""A headless Chromium spoken to by its DevTools protocol: open a page, run JavaScript in it, take a screenshot."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page of a browser of its own; a context manager."""

    def __init__(self, profile: Path, width: int = 1500, height: int = 950) -> None:
        self.profile = profile
        self.size = f"{width},{height}"
        self._numbers = itertools.count(1)

    def __enter__(self) -> Browser:
        assert CHROMIUM is not None
        words = [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-port=0",
            "--no-first-run",
        ]
        words += [
            "--disable-dev-shm-usage",
            f"--user-data-dir={self.profile}",
            f"--window-size={self.size}",
            "about:blank",
        ]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = self.profile / "DevToolsActivePort"
        wait_until(lambda: port_file.is_file() and port_file.read_text().count("\n"), 30, "Chromium to start")
        port = port_file.read_text().split()[0]
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list"))
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        self._socket = connect(address, max_size=None)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, and its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv(timeout=60))
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def text(self) -> str:
        return self.run("document.body ? document.body.innerText : ''") or ""

    def wait_for(self, words: str, seconds: float = 60) -> None:
        try:
            wait_until(lambda: words in self.text(), seconds, f"'{words}' on the page")
        except AssertionError as error:
            raise AssertionError(f"{error}, which says: {self.text()[:2000]}") from None

    def click(self, words: str, seconds: float = 60) -> None:
        """Click the button with these words as a person does, as soon as it is there and can be clicked."""
        script = f"""(() => {{
            const found = [...document.querySelectorAll('button')].find(
                b => b.innerText.trim().startsWith({json.dumps(words)}) && !b.disabled);
            if (!found) return null;
            const box = found.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        place: list[float] = []

        def there() -> bool:
            place[:] = self.run(script) or []
            return bool(place)

        wait_until(there, seconds, f"a button '{words}'")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


def wait_until(condition: Any, seconds: float, what: str) -> None:
    """Wait until a condition holds; AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.2)
