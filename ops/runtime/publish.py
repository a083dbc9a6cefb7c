"""Atomic publishing: an output is either whole under its name or not there at all.

Work in progress lies beside its goal under a name that starts with a dot, so that the final rename stays on one file
system. What a killed run leaves behind is swept away by the next run of the same output.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.runtime.errors import LineamentError

_MARK = ".partial-"


@contextmanager
def publish(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """A temporary sibling of ``path`` that takes its place when the block succeeds.

    Args:
        path: where the output shall stand; parents are made.
        folder: make the temporary path a folder rather than leave it to be written as a file.

    Raises:
        LineamentError: the disk is full, or the block succeeded without writing anything.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.parent / f".{path.name}{_MARK}{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        if folder:
            temporary.mkdir()
        yield temporary
        if not temporary.exists():
            raise LineamentError(f"{path}: nothing was written.")
        replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LineamentError(
                f"{path}: the disk is full. Nothing was published; finished shards are kept in the work area. "
                "Free some room and run again."
            ) from error
        raise
    finally:
        remove(temporary)


def replace(temporary: Path, path: Path) -> None:
    """Put ``temporary`` in the place of ``path``, whatever stood there before."""
    if path.is_dir() and not path.is_symlink():
        old = path.parent / f".{path.name}{_MARK}old-{uuid.uuid4().hex[:8]}"
        path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old)
    else:
        os.replace(temporary, path)


def remove(path: Path) -> None:
    """Delete a file or a folder; nothing happens when there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    for left in path.parent.glob(f".{path.name}{_MARK}*"):
        owner = left.name.split(_MARK, 1)[1].split("-", 1)[0]
        if owner == "old" and not path.exists():
            left.rename(path)  # killed between the two renames of replace(): the old version is still the newest
        elif owner == "old" or not _alive(owner):
            remove(left)


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
