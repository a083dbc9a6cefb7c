"""The ``folder`` source: every picture and clip below a folder, its bytes untouched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ops.crawl.raw import RawPicture
from ops.crawl.sources import FolderSource
from ops.runtime.errors import LineamentError
from ops.store.pictures import FORMATS, sniff

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".mp4"}
MAX_BYTES = 512 * 2**20  # unpublished: our choice; a larger file is no photo


def find_pictures(root: Path) -> list[Path]:
    """The files below ``root`` that are pictures by name or by content, in a fixed order.

    Links are not followed, so nothing outside the folder is ever read; hidden files and folders are left alone.

    Raises:
        LineamentError: there is no such folder, or no picture in it.
    """
    if not root.is_dir():
        raise LineamentError(f"{root}: no such folder. Correct the source's path in params.yaml.")
    found = []
    for base, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(base) / name
            if name.startswith(".") or path.is_symlink() or not path.is_file():
                continue
            if path.suffix.lower() in EXTENSIONS or _looks_like_a_picture(path):
                found.append(path)
    if not found:
        raise LineamentError(f"{root}: there is no picture in it ({', '.join(sorted(EXTENSIONS))}).")
    return found


def _looks_like_a_picture(path: Path) -> bool:
    try:
        with open(path, "rb") as stream:
            return sniff(stream.read(16)) in FORMATS.values()
    except OSError:
        return False  # a file without a picture's name that cannot be opened is none of ours


def pictures(source: FolderSource) -> Iterator[RawPicture]:
    """Every picture of the folder with its provenance; one that cannot be read comes with the reason."""
    root = Path(source.path).expanduser()
    for path in find_pictures(root):
        name = path.relative_to(root).as_posix()
        try:
            stat = path.stat()
            data = path.read_bytes() if stat.st_size <= MAX_BYTES else None
        except OSError:
            yield RawPicture(name, None, problem="unreadable")
            continue
        if data is None:
            yield RawPicture(name, None, problem="file_too_large")
            continue
        modified = datetime.fromtimestamp(int(stat.st_mtime), UTC).isoformat()
        known = {"licence": source.licence, "time": modified}
        if source.people == "folders" and "/" in name:
            known["identity"] = name.partition("/")[0]
        yield RawPicture(name, data, known)
