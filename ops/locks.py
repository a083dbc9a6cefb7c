"""DVC's lock file: the locks of processes that are dead, which DVC itself would honour for ever."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

AWAY = ".dvc/tmp/away"  # held by whoever runs DVC on this project on another machine


@contextmanager
def away(root: Path) -> Iterator[None]:
    """While a pod runs DVC on this project, no lock may be called dead: its processes cannot be seen from here."""
    path = root / AWAY
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        yield


def _someone_is_away(root: Path) -> bool:
    path = root / AWAY
    if not path.is_file():
        return False
    with open(path, "a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def drop_dead_locks(root: Path) -> set[int]:
    """Take out of .dvc/tmp/rwlock the entries of processes that are gone.

    DVC does so itself where no process has the number; but numbers are given out again, after a restart of a
    container within seconds, and then an innocent process seems to hold the lock for ever. So a holder counts only if
    it is a DVC command. A lock file cut short by a kill is put aside.

    Returns:
        the process numbers taken out.
    """
    file = root / ".dvc/tmp/rwlock"
    dead: set[int] = set()
    with _guard(root) as ours:
        if not ours or not file.is_file() or _someone_is_away(root):
            return dead
        try:
            locks = json.loads(file.read_text())
        except json.JSONDecodeError:
            file.replace(file.with_name("rwlock.damaged"))
            return dead
        readers = [entry for entries in locks.get("read", {}).values() for entry in entries]
        held: list[Any] = [*locks.get("write", {}).values(), *readers]
        dead = {entry["pid"] for entry in held if not _is_dvc(entry["pid"])}
        if dead:
            write = {path: entry for path, entry in locks.get("write", {}).items() if entry["pid"] not in dead}
            read = {
                path: [e for e in entries if e["pid"] not in dead] for path, entries in locks.get("read", {}).items()
            }
            kept = {"write": write, "read": {path: entries for path, entries in read.items() if entries}}
            temporary = file.with_name("rwlock.new")
            temporary.write_text(json.dumps(kept))
            temporary.replace(file)
    return dead


def is_locked(root: Path) -> bool:
    """Whether DVC's lock file names a holder, alive or dead, or cannot be read."""
    file = root / ".dvc/tmp/rwlock"
    try:
        return any(json.loads(file.read_text() or "{}").values())
    except FileNotFoundError:
        return False
    except json.JSONDecodeError:
        return True


@contextmanager
def _guard(root: Path) -> Iterator[bool]:
    """DVC's own lock about its lock file; False if another process has it just now."""
    path = root / ".dvc/tmp/rwlock.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _is_dvc(pid: int) -> bool:
    try:
        return any("dvc" in word for word in psutil.Process(pid).cmdline()[:4])
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    except psutil.AccessDenied:
        return True
