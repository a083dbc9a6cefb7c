"""WebDataset shards: tar files whose bytes depend on their content alone, with a side-car index for random access.

A sample is a key and its fields: the members ``<key>.<field>``, adjacent in the tar. Beside ``NNNNNN.tar`` lies
``NNNNNN.index.parquet`` with key, field, offset and size of every member, and the tar's own size and sha256 in its
metadata, so that reading a sample is one ``pread`` and a damaged shard is noticed before it is used. The tars are
plain WebDataset: ``webdataset.WebDataset`` and ``tar xf`` read them as they are.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish

PROVENANCE = "json"  # the field of a raw sample that says where it came from
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_FIELD = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_SCHEMA = pa.schema([("key", pa.string()), ("field", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])


def index_path(tar: Path) -> Path:
    """Where the index of a tar lies."""
    return tar.with_suffix(".index.parquet")


def shard_paths(folder: Path) -> list[Path]:
    """The tars of a folder, in order.

    Raises:
        LineamentError: the folder is missing, or holds no shard.
    """
    if not folder.is_dir():
        raise LineamentError(f"{folder}: no such folder. Run the stage that makes it first (dvc repro).")
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise LineamentError(f"{folder}: there is no shard (*.tar) in it.")
    return paths


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class TarWriter:
    """Writes one shard and its index; a context manager. Both appear under their names only when whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[tuple[str, str, int, int]] = []
        self._seen: set[str] = set()

    def __enter__(self) -> TarWriter:
        self._publisher = publish(self.path)
        self._temporary = self._publisher.__enter__()
        self._file = open(self._temporary, "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        return self

    def add(self, key: str, fields: Mapping[str, bytes]) -> None:
        """Append a sample.

        Raises:
            LineamentError: the key or a field's name has characters that WebDataset would split, or the key is there
                already.
        """
        if not _KEY.fullmatch(key):
            raise LineamentError(f"{self.path}: '{key}' cannot be a sample's key: only letters, digits, _ and -.")
        if key in self._seen:
            raise LineamentError(f"{self.path}: the sample {key} is added twice.")
        self._seen.add(key)
        for field, data in fields.items():
            if not _FIELD.fullmatch(field):
                raise LineamentError(f"{self.path}: '{field}' cannot be a field's name.")
            member = tarfile.TarInfo(f"{key}.{field}")
            member.size = len(data)
            member.mode = 0o644
            member.mtime = 0
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            self._tar.addfile(member, io.BytesIO(data))
            offset = self._tar.offset - (len(data) + 511) // 512 * 512
            self._rows.append((key, field, offset, len(data)))

    def __len__(self) -> int:
        return len(self._seen)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()
        self._file.close()
        if kind is None:
            index = _index_table(self._rows, self._temporary.stat().st_size, file_sha256(self._temporary))
            with publish(index_path(self.path)) as temporary:
                pq.write_table(index, temporary)
        self._publisher.__exit__(kind, error, trace)


class ShardWriter:
    """Writes samples into numbered shards of at most ``per_shard`` samples; a context manager."""

    def __init__(self, folder: Path, per_shard: int = 256, first: int = 0) -> None:
        self.folder = folder
        self.per_shard = per_shard
        self.paths: list[Path] = []
        self._next = first
        self._open: TarWriter | None = None

    def __enter__(self) -> ShardWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, key: str, fields: Mapping[str, bytes]) -> None:
        """Append a sample, opening a new shard when the last one is full."""
        if self._open is not None and len(self._open) >= self.per_shard:
            self._close()
        if self._open is None:
            path = self.folder / f"{self._next:06d}.tar"
            self._next += 1
            self.paths.append(path)
            self._open = TarWriter(path).__enter__()
        self._open.add(key, fields)

    def _close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.__exit__(kind, error, trace)
            self._open = None


class Shard:
    """Random access to one shard through its index, which is looked through at once, and kept from when it is needed.

    Raises:
        LineamentError: the tar is missing, shorter or longer than its index says, or is no tar at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        table = _read_index(path)
        self._count = pc.count_distinct(table.column("key")).as_py()
        metadata = table.schema.metadata or {}
        self.sha256 = metadata[b"sha256"].decode()
        self._file: int | None = None

    @cached_property
    def _rows(self) -> dict[str, dict[str, tuple[int, int]]]:
        table = _read_index(self.path)
        rows: dict[str, dict[str, tuple[int, int]]] = {}
        columns = (table.column(name).to_pylist() for name in ("key", "field", "offset", "size"))
        for key, field, offset, size in zip(*columns):
            rows.setdefault(key, {})[field] = (offset, size)
        return rows

    @cached_property
    def keys(self) -> list[str]:
        """The samples' names, in the tar's order."""
        return list(self._rows)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def fields(self, key: str) -> list[str]:
        """The names of a sample's fields, in the tar's order."""
        return list(self._sample(key))

    def original_field(self, key: str) -> str:
        """The field of a raw sample that holds its original bytes; the other one, ``json``, says where it came from."""
        return next(field for field in self._sample(key) if field != PROVENANCE)

    def read(self, key: str, field: str) -> bytes:
        """The bytes of one field of one sample."""
        sample = self._sample(key)
        if field not in sample:
            raise LineamentError(f"{self.path}: sample {key} has no '{field}', only {', '.join(sample)}.")
        return self._read(key, *sample[field])

    def sample(self, key: str) -> dict[str, bytes]:
        """All fields of one sample."""
        return {field: self._read(key, *place) for field, place in self._sample(key).items()}

    def samples(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """All samples in the tar's order."""
        for key in self.keys:
            yield key, self.sample(key)

    def verify(self) -> None:
        """Read the whole tar and compare it with the recorded sha256.

        Raises:
            LineamentError: the bytes are not those that were written.
        """
        if file_sha256(self.path) != self.sha256:
            raise LineamentError(f"{self.path}: the content is damaged (sha256 differs). {_REMEDY}")

    def close(self) -> None:
        """Give the file handle back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self.close()

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_count": self._count, "sha256": self.sha256, "_file": None}

    def _sample(self, key: str) -> dict[str, tuple[int, int]]:
        try:
            return self._rows[key]
        except KeyError:
            raise LineamentError(f"{self.path}: there is no sample {key} in it.") from None

    def _read(self, key: str, offset: int, size: int) -> bytes:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        data = os.pread(self._file, size, offset)
        if len(data) != size:
            raise LineamentError(f"{self.path}: sample {key} is cut short. {_REMEDY}")
        return data


_REMEDY = "Restore it with `dvc checkout`, or delete its folder and run `dvc repro`."


def _index_table(rows: list[tuple[str, str, int, int]], size: int, sha256: str) -> pa.Table:
    table = pa.table([pa.array(column) for column in zip(*rows)] or [[]] * 4, schema=_SCHEMA)
    return table.replace_schema_metadata({"size": str(size), "sha256": sha256})


def _read_index(path: Path) -> pa.Table:
    if not path.is_file():
        raise LineamentError(f"{path}: the shard is missing. {_REMEDY}")
    index = index_path(path)
    if not index.is_file():
        return build_index(path)
    try:
        table = pq.read_table(index)
        metadata = table.schema.metadata or {}
        expected, _ = int(metadata[b"size"]), metadata[b"sha256"].decode()
        table = table.select(_SCHEMA.names).cast(_SCHEMA).replace_schema_metadata(metadata)
        table.validate(full=True)  # names that are no text
        offset, sizes = (table.column(name).to_numpy() for name in ("offset", "size"))
        if any(column.null_count for column in table.columns) or not _inside(offset, sizes, expected):
            raise ValueError("it names places outside the tar")
    except (OSError, pa.ArrowException, KeyError, ValueError, MemoryError, OverflowError) as error:
        raise LineamentError(f"{index}: the index cannot be read ({error}). Delete it; it is made anew.") from None
    actual = path.stat().st_size
    if actual != expected:
        raise LineamentError(f"{path}: {actual} bytes, where {expected} were written. {_REMEDY}")
    return table


def _inside(offset: np.ndarray, size: np.ndarray, end: int) -> bool:
    return bool(((offset >= 0) & (size >= 0) & (offset <= end) & (size <= end - offset)).all())


def build_index(path: Path) -> pa.Table:
    """The index of a tar that has none, from its headers; regular files only.

    Raises:
        LineamentError: no tar, cut short, a member that is a link or whose path leaves the folder, a key that comes
            twice or whose members are not adjacent.
    """
    rows: list[tuple[str, str, int, int]] = []
    closed: set[str] = set()
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                name = member.name.removeprefix("./")
                if not member.isreg() or name.startswith("/") or ".." in name.split("/"):
                    raise LineamentError(f"{path}: refuses the member '{member.name}': only plain files are read.")
                folder, _, base = name.rpartition("/")
                stem, _, field = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if key in closed or any(r[0] == key and r[1] == field for r in rows[-16:]):
                    raise LineamentError(f"{path}: the sample {key} comes twice, or its members are not adjacent.")
                if rows and rows[-1][0] != key:
                    closed.add(rows[-1][0])
                if member.offset_data + member.size > size:
                    raise LineamentError(f"{path}: cut short within {name}. {_REMEDY}")
                rows.append((key, field, member.offset_data, member.size))
    except tarfile.TarError as error:
        raise LineamentError(f"{path}: not a readable tar ({error}). {_REMEDY}") from None
    return _index_table(rows, size, file_sha256(path))
