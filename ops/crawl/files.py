"""The files below a folder that a source takes, in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ops.runtime.errors import LineamentError


def files_below(root: Path, wanted: Callable[[Path], bool], what: str, extensions: Iterable[str]) -> Iterator[Path]:
    """The wanted files below ``root``; the names of one folder at a time are in memory.

    Links are not followed, so nothing outside the folder is ever read; hidden files and folders are left alone.

    Args:
        root: the folder.
        wanted: asked of each file.
        what: is wanted, and the extensions it usually has: for the message.

    Raises:
        LineamentError: there is no such folder, or nothing wanted in it.
    """
    if not root.is_dir():
        raise LineamentError(f"{root}: no such folder. Correct the source's path in params.yaml.")
    found = False
    for base, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(base) / name
            if not name.startswith(".") and not path.is_symlink() and path.is_file() and wanted(path):
                found = True
                yield path
    if not found:
        raise LineamentError(f"{root}: there is no {what} in it ({', '.join(sorted(extensions))}).")
