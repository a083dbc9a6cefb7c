"""Progress that people can read: a bar on a terminal, a line now and then in a log, messages in the Dagster UI."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from datetime import UTC, datetime
from typing import Any, TypeVar

from tqdm import tqdm

from ops.runtime.launch import is_first

T = TypeVar("T")
LOG_VARIABLE = "LINEAMENT_LOG"  # `json` for a JSON object a line, for those who collect logs


class Reporter:
    """Where a stage's messages go: to the terminal, and to Dagster when Dagster launched the process through Pipes."""

    def __init__(self, name: str, interval: float = 10.0) -> None:
        self.name = name
        self.interval = interval
        self._pipes: Any = _open_pipes()

    def log(self, message: str) -> None:
        """One line to whoever watches."""
        if os.environ.get(LOG_VARIABLE) == "json":
            record = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "stage": self.name,
                "message": message,
            }
            tqdm.write(json.dumps(record), file=sys.stderr)
        else:
            tqdm.write(f"[{self.name}] {message}", file=sys.stderr)
        if self._pipes is not None:
            self._pipes.log.info(message)

    def progress(self, items: Iterable[T], total: int | None = None, desc: str = "", unit: str = "it") -> Iterator[T]:
        """The items, with a bar (rate, time left) on a terminal and a line every few seconds elsewhere."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        on_terminal = sys.stderr.isatty()
        started = last = time.monotonic()
        count = 0
        with tqdm(items, total=total, desc=desc or self.name, unit=unit, disable=not on_terminal) as bar:
            for item in bar:
                yield item
                count += 1
                now = time.monotonic()
                if not on_terminal and now - last >= self.interval:
                    last = now
                    self.log(_line(desc, count, total, unit, now - started))

    def close(self) -> None:
        """End the conversation with Dagster, if there was one."""
        if self._pipes is not None:
            self._pipes.close()
            self._pipes = None


def _line(desc: str, count: int, total: int | None, unit: str, elapsed: float) -> str:
    rate = count / max(elapsed, 1e-9)
    if not total:
        return f"{desc} {count} {unit}, {rate:.1f} {unit}/s"
    return f"{desc} {count}/{total} {unit}, {rate:.1f} {unit}/s, {max(total - count, 0) / max(rate, 1e-9):.0f} s left"


def _open_pipes() -> Any:
    """The Pipes session when Dagster's environment variables are there, else None; one of several processes speaks."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ or not is_first():
        return None
    from dagster_pipes import open_dagster_pipes

    return open_dagster_pipes()
