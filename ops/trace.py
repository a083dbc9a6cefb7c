"""Where a sample is: its raw shard, what each table says of it, the training shards and checkpoints that hold it.

Tables are scanned for one id, not read; which checkpoints saw it follows from the hash of the data that each was
trained on and the remembered versions of the shards (ops.data_versions).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ops import registry
from ops.crawl.raw import TABLE, sample_id
from ops.data_versions import HISTORY, SHARDS, SUMMARY, read_version
from ops.runtime.errors import LineamentError
from ops.store.tar import Shard, shard_paths

RAW, LABELS, CHECKPOINTS = Path("data/raw"), Path("data/labels"), Path("data/checkpoints")


@dataclass(frozen=True)
class Place:
    """One thing that holds or speaks of a sample.

    Attributes:
        id: of the sample.
        kind: ``raw``, ``label``, ``shards``, ``checkpoint`` or ``model``.
        where: path, or a model's name and version.
        says: in words.
    """

    id: str
    kind: str
    where: str
    says: str


def ids_of(root: Path, what: str) -> list[str]:
    """The samples that an id, a sha256, a file or an address names.

    Raises:
        LineamentError: nothing here is called that.
    """
    word = what.strip()
    if re.fullmatch(r"[0-9a-fA-F]{16}([0-9a-fA-F]{48})?(-h?\d+)?", word):
        return [word.lower()[:16]]
    if Path(what).expanduser().is_file():
        return [sample_id(Path(what).expanduser().read_bytes())]
    found: dict[str, None] = {}
    for path in sorted((root / RAW).glob(f"*/{TABLE}")):
        columns = [name for name in ("name", "url") if name in pq.read_schema(path).names]
        for name in columns:
            rows = _scan(path, name, lambda values: pc.equal(values, what), ["id"])
            found |= dict.fromkeys(str(row["id"]).split("-")[0] for row in rows)
    if not found:
        raise LineamentError(f"'{what}' is no id, sha256 or file, and no sample has this address or name.")
    return list(found)


def trace(root: Path, key: str) -> list[Place]:
    """Everything that holds or speaks of a sample."""
    return [*_raw(root, key), *_labels(root, key), *_shards(root, key), *seen_by(root, [key])]


def _raw(root: Path, key: str) -> Iterator[Place]:
    for path in sorted((root / RAW).glob(f"*/{TABLE}")):
        for row in rows_of(path, key):
            if row["kept"]:
                shard = path.parent / f"{row['shard']}.tar"
                said = json.loads(Shard(shard).read(row["id"], "json")) if shard.is_file() else {}
                words = [f"{name} {said[name]}" for name in ("url", "page", "licence", "time") if said.get(name)]
                where = str(shard.relative_to(root))
                yield Place(key, "raw", where, ", ".join([f"{row['name']}, {row['bytes']} bytes", *words]))
            else:
                yield Place(key, "raw", str(path.relative_to(root)), f"{row['name']}: not kept, {row['reason']}")


def _labels(root: Path, key: str) -> Iterator[Place]:
    paths = sorted((root / LABELS).glob("*/*.parquet"), key=lambda path: (path.parent, path.stat().st_mtime, path))
    for path in paths:
        names = pq.read_schema(path).names
        if "id" not in names:
            continue
        rows = rows_of(path, key, [name for name in ("id", "kept", "reason") if name in names])
        kept = [row for row in rows if row.get("kept", True)]
        if rows:
            more = f" ({len(rows)} rows)" if len(rows) > 1 else ""
            says = f"kept{more}" if kept else f"rejected: {rows[0]['reason']}"
            yield Place(key, "label", str(path.relative_to(root)), says)


def _shards(root: Path, key: str) -> Iterator[Place]:
    for folder in _folders(root):
        where = str(folder.relative_to(root))
        for name in _shards_with(root, folder, key):
            yield Place(key, "shards", f"{where}/{name}.tar", "a training sample")


def _folders(root: Path) -> list[Path]:
    """The folders of training shards, those of held-out samples too."""
    return sorted({path.parent for path in (root / SHARDS).glob("**/*.tar")})


def held(root: Path, keys: Iterable[str]) -> dict[str, int]:
    """How many of some samples each folder of training shards holds now; those that hold none are left out."""
    wanted, found = pa.array(sorted(set(keys)), pa.string()), {}
    for folder in _folders(root) if len(wanted) else ():
        indices = [str(path.with_suffix(".index.parquet")) for path in shard_paths(folder)]
        samples = ds.dataset(indices, format="parquet").to_table(columns=["key"]).column("key")
        there = pc.is_in(wanted, value_set=pc.replace_substring_regex(samples, "-.*$", "").unique())
        if pc.any(there).as_py():
            found[str(folder.relative_to(root))] = pc.sum(there).as_py()
    return found


def _shards_with(root: Path, folder: Path, key: str) -> list[str]:
    """The names of the tars of a folder that hold a sample."""
    version = _remembered(root, folder)
    paths = shard_paths(folder)
    if version is not None:
        ids = pq.read_table(version, columns=["id"]).column("id")
        numbers = pc.indices_nonzero(_is(ids, key)).to_pylist()
        if not numbers:
            return []
        size = max(1, len(Shard(paths[0])))  # every shard but the last has as many
        named = [paths[number // size] for number in numbers if number // size < len(paths)]
        if len(named) == len(numbers) and all(_holds(path, key) for path in named):
            return list(dict.fromkeys(path.stem for path in named))
    indices = [str(path.with_suffix(".index.parquet")) for path in paths]
    table = ds.dataset(indices, format="parquet").to_table(
        columns=["key", "__filename"], filter=_is(ds.field("key"), key)
    )
    return sorted({Path(name).name.split(".")[0] for name in table.column("__filename").to_pylist()})


def _holds(path: Path, key: str) -> bool:
    return any(one == key or one.startswith(f"{key}-") for one in Shard(path).keys)


def _remembered(root: Path, folder: Path) -> Path | None:
    try:
        version = json.loads((folder / SUMMARY).read_text())["hash"]
    except (OSError, ValueError, KeyError):
        return None
    path = root / HISTORY / f"{version}.parquet"
    return path if path.is_file() else None


def remember(root: Path) -> None:
    """Remember the present versions of all training shards, so that it stays known who saw what."""
    for folder in sorted((root / SHARDS).glob("*")):
        if (folder / SUMMARY).is_file():
            read_version(root, folder.relative_to(root))


def seen_by(root: Path, keys: Iterable[str]) -> list[Place]:
    """The checkpoints, and versions of registered models, that were trained on samples."""
    remember(root)  # the shards of now are a version too, be it that nobody has asked before
    trained: dict[str, list[tuple[str, str]]] = {}
    for path in sorted((root / CHECKPOINTS).glob("**/config.json")):
        try:
            version = json.loads(path.read_text()).get("data")
        except (OSError, ValueError, AttributeError):
            continue  # `lineament check` names damaged checkpoints
        trained.setdefault(str(version), []).append(("checkpoint", str(path.parent.relative_to(root))))
    for name, model in registry.read(root).models.items():
        for one in model.versions:
            trained.setdefault(str(one.data), []).append(("model", f"{name} v{one.number}"))
    found = []
    for version, holders in trained.items():
        path = root / HISTORY / f"{version}.parquet"
        if not path.is_file():
            continue
        ids = pq.read_table(path, columns=["id"]).column("id")
        for key in keys:
            if pc.any(_is(ids, key)).as_py():
                found += [Place(key, kind, where, f"trained on data {version[:12]}") for kind, where in holders]
    return found


def rows_of(path: Path, key: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """A table's rows of one sample."""
    return _scan(path, "id", lambda ids: _is(ids, key), columns)


def _scan(
    path: Path, name: str, wanted: Callable[[pa.ChunkedArray], Any], columns: list[str] | None
) -> list[dict[str, Any]]:
    """The rows whose value in a column is wanted; the other columns are read only where there are some."""
    found: list[dict[str, Any]] = []
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            hits = pc.indices_nonzero(wanted(file.read_row_group(group, [name]).column(0)))
            if len(hits):
                found += file.read_row_group(group, columns).take(hits).to_pylist()
    return found


def _is(ids: Any, key: str) -> Any:
    """Whether ids are a sample's own, or of a frame or run of frames of it."""
    starts = pc.starts_with(ids, f"{key}-")
    return (ids == key) | starts if isinstance(ids, pc.Expression) else pc.or_(pc.equal(ids, key), starts)
