"""State that neither git nor DVC keeps, as one file: the event log of Dagster, remembered data versions, lists.

What a project is made of, and who keeps it: code, dvc.yaml, dvc.lock, params.yaml, metrics, the registry and its
pointers are git's; pictures, labels, shards, checkpoints and champions are DVC's (`dvc push`); the rest is here.
"""

from __future__ import annotations

import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish

PLACES = (
    "dvc.lock",
    "params.yaml",
    "data/registry.json",
    "data/takedown.csv",
    "data/history",
    "data/champions",
    "metrics",
)
HOME = "dagster"  # the folder of the archive that stands for DAGSTER_HOME
SQLITE = b"SQLite format 3\0"


def back_up(root: Path, home: Path, file: Path) -> list[str]:
    """Write the archive; may be done while everything runs.

    Args:
        home: Dagster's instance, DAGSTER_HOME.

    Returns:
        the names in it.
    """
    with (
        publish(file) as temporary,
        tarfile.open(temporary, "w:gz") as archive,
        tempfile.TemporaryDirectory() as scratch,
    ):
        for path in _files(root):
            archive.add(path, path.relative_to(root))
        for path in sorted(
            p for p in home.rglob("*") if p.is_file() and not p.name.endswith(("-wal", "-shm", "-journal"))
        ):
            name = f"{HOME}/{path.relative_to(home)}"
            archive.add(_snapshot(path, Path(scratch)) if _is_sqlite(path) else path, name)
        return archive.getnames()


def restore(file: Path, root: Path, home: Path) -> list[str]:
    """Put an archive's files back. Nothing may run meanwhile; DVC's data come by `dvc pull` and `dvc checkout`.

    Raises:
        LineamentError: it is no such archive, or there is an event log already.
    """
    if any(home.glob("**/*.db")):
        raise LineamentError(f"{home}: there is an event log already. Stop Dagster and move that folder away first.")
    try:
        with tarfile.open(file, "r:gz") as archive:
            names = archive.getnames()
            for member in archive.getmembers():
                inner = member.name.removeprefix(f"{HOME}/")
                place = home if inner != member.name else root
                member.name = inner
                archive.extract(member, place, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise LineamentError(f"{file}: cannot be restored: {error}") from None
    return names


def _files(root: Path) -> Iterator[Path]:
    for place in PLACES:
        path = root / place
        if path.is_file():
            yield path
        elif path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.is_file())
            pointers = [p for p in found if p.suffix == ".dvc" or p.name == ".gitignore"]
            yield from pointers if place == "data/champions" else found


def _is_sqlite(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(len(SQLITE)) == SQLITE


def _snapshot(path: Path, scratch: Path) -> Path:
    """A consistent copy of a database that others may be writing to."""
    copy = scratch / "copy.db"
    copy.unlink(missing_ok=True)
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    return copy
