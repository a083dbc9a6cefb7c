"""The ``folder`` source: every picture and clip below a folder, its bytes untouched."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ops.crawl.files import files_below
from ops.crawl.raw import RawPicture
from ops.crawl.sources import FolderSource
from ops.store.pictures import KINDS, sniff

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".mp4"}
MAX_BYTES = 512 * 2**20  # unpublished: our choice; a larger file is no photo


def find_pictures(root: Path) -> Iterator[Path]:
    """The files below ``root`` that are pictures or clips by name or by content, in a fixed order.

    Raises:
        LineamentError: there is no such folder, or no picture in it.
    """
    return files_below(root, _is_wanted, "picture", EXTENSIONS)


def _is_wanted(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS or _looks_like_a_picture(path)


def _looks_like_a_picture(path: Path) -> bool:
    try:
        with open(path, "rb") as stream:
            return sniff(stream.read(16)) in KINDS
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
