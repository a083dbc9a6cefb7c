"""The output of a command that runs on another machine: it writes to a file of the shared folder, read as it grows."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL = 0.3  # seconds between two looks


@contextmanager
def following(log: Path) -> Iterator[None]:
    """Copy what is written to a file to the standard output, to its end; the file is gone afterwards."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    done = threading.Event()
    follower = threading.Thread(target=_follow, args=(log, done), daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()
        log.unlink(missing_ok=True)


def _follow(log: Path, done: threading.Event) -> None:
    with open(log, errors="replace") as stream:
        while True:
            last = done.is_set()
            while text := stream.read(1 << 16):
                sys.stdout.write(text)
                sys.stdout.flush()
            if last:
                return
            done.wait(POLL)
