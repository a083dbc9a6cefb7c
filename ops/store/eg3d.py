"""EG3D-style data sets: a zip (or folder) of pictures with ``dataset.json``, and PanoHead's masks in ``NAME_seg.zip``.

``dataset.json`` holds ``{"labels": [[name, [25 values]], ...]}``; EG3D, PanoHead and SphereHead read pictures in the
order of their names, and masks by the same names. Reading trusts nothing: plain members of the archive only, each
once, none outside, none that unpacks to more than it should.
"""

from __future__ import annotations

import json
import lzma
import math
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ops.runtime.errors import LineamentError

LABELS = "dataset.json"
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
MAX_MEMBER = 512 * 2**20  # unpublished: our choice; a larger picture or list is taken for a bomb
MAX_LIST = 4 * 2**30  # unpublished: our choice; dataset.json of a few million labels
_DAMAGE = (
    OSError, EOFError, ValueError, RuntimeError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error,
    lzma.LZMAError,
)  # fmt: skip
_LINK = 0o120000  # the type bits of a symbolic link in a zip member's mode


def seg_path(path: Path) -> Path:
    """Where the masks of a data set lie: ``NAME_seg.zip`` beside ``NAME.zip``, ``NAME_seg`` beside a folder."""
    return path.with_name(f"{path.stem}_seg{path.suffix}")


class Members(ABC):
    """The plain files of a zip or a folder, by name, with their sizes."""

    sizes: dict[str, int]

    @staticmethod
    def open(path: Path) -> Members:
        """A zip, or a folder.

        Raises:
            LineamentError: there is none, it is no zip, or a member is unsafe.
        """
        if not path.exists():
            raise LineamentError(f"{path}: no such zip or folder.")
        return _Folder(path) if path.is_dir() else _Zip(path)

    @abstractmethod
    def read(self, name: str, limit: int) -> bytes:
        """A member's bytes; LineamentError when there is none, it is damaged, or has more than ``limit`` bytes."""


class _Zip(Members):
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
            members = self._zip.infolist()
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise LineamentError(f"{path}: not a readable zip ({error}).") from None
        self.sizes = {}
        for member in members:
            if member.is_dir():
                continue
            name = member.filename
            parts = PurePosixPath(name).parts
            if member.external_attr >> 16 & 0o170000 == _LINK:
                raise LineamentError(f"{path}: refuses the member '{name}': it is a link.")
            if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
                raise LineamentError(f"{path}: refuses the member '{name}': its path leaves the archive.")
            if name in self.sizes:
                raise LineamentError(f"{path}: the member '{name}' comes twice.")
            if member.flag_bits & 0x1:
                raise LineamentError(f"{path}: the member '{name}' is encrypted.")
            self.sizes[name] = member.file_size

    def read(self, name: str, limit: int) -> bytes:
        if name not in self.sizes:
            raise LineamentError(f"{self.path}: has no member '{name}'.")
        try:
            with self._zip.open(name) as stream:
                data = stream.read(limit + 1)
        except _DAMAGE as error:
            raise LineamentError(f"{self.path}: the member '{name}' cannot be read ({error}).") from None
        if len(data) > limit:
            raise LineamentError(f"{self.path}: the member '{name}' unpacks to more than {limit} bytes.")
        return data


class _Folder(Members):
    def __init__(self, path: Path) -> None:
        self.path = path
        found = sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
        self.sizes = {p.relative_to(path).as_posix(): p.stat().st_size for p in found}

    def read(self, name: str, limit: int) -> bytes:
        if self.sizes.get(name, limit + 1) > limit:
            raise LineamentError(f"{self.path / name}: no such file, or larger than {limit} bytes.")
        return (self.path / name).read_bytes()


class Archive:
    """An EG3D-style data set, read.

    Attributes:
        names: of the pictures, sorted, as EG3D numbers them.
        labels: 25 values by picture name; empty without ``dataset.json``.
        extra: what else ``dataset.json`` holds.
        files: all members.

    Raises:
        LineamentError: not readable, an unsafe member, no picture, or a broken ``dataset.json``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = Members.open(path)
        self.names = sorted(n for n in self.files.sizes if PurePosixPath(n).suffix.lower() in EXTENSIONS)
        if not self.names:
            raise LineamentError(f"{path}: there is no picture in it.")
        self.labels: dict[str, list[float]] = {}
        self.extra: dict[str, Any] = {}
        if LABELS in self.files.sizes:
            self._read_labels()
        seg = seg_path(path)
        self._seg = Members.open(seg) if seg.exists() else None
        self._masks = {str(PurePosixPath(n).with_suffix("")): n for n in (self._seg.sizes if self._seg else ())}

    def _read_labels(self) -> None:
        where = f"{self.path}: {LABELS}"
        try:
            content = json.loads(self.files.read(LABELS, MAX_LIST))
        except (ValueError, RecursionError) as error:
            raise LineamentError(f"{where} is not valid JSON ({error}).") from None
        if not isinstance(content, dict) or "labels" not in content:
            raise LineamentError(f'{where} has no "labels".')
        entries = content.pop("labels")
        self.extra = content
        if entries is None:
            return
        if not isinstance(entries, list):
            raise LineamentError(f'{where}: "labels" should be a list of [name, 25 values].')
        for number, entry in enumerate(entries):
            if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
                raise LineamentError(f"{where}: entry {number} should be [name, 25 values].")
            name, values = entry[0].replace("\\", "/"), entry[1]
            if not isinstance(values, list) or len(values) != 25 or not all(map(_is_number, values)):
                raise LineamentError(f"{where}: the label of '{name}' should be 25 finite numbers.")
            if name in self.labels:
                raise LineamentError(f"{where}: '{name}' has two labels.")
            self.labels[name] = values
        if missing := [name for name in self.names if name not in self.labels]:
            raise LineamentError(f"{where}: {len(missing)} pictures have no label, e.g. '{missing[0]}'.")

    def __len__(self) -> int:
        return len(self.names)

    def read(self, name: str) -> bytes:
        """The bytes of a picture."""
        return self.files.read(name, MAX_MEMBER)

    def mask(self, name: str) -> bytes | None:
        """The bytes of a picture's mask; None where there is none."""
        found = self._masks.get(str(PurePosixPath(name).with_suffix("")))
        return self._seg.read(found, MAX_MEMBER) if self._seg is not None and found is not None else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@contextmanager
def write_zip(path: Path) -> Iterator[Callable[[str, bytes], None]]:
    """A zip that stores its members as they are; gives what adds one. Equal members give equal bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        def add(name: str, data: bytes) -> None:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o100644 << 16
            info.create_system = 3
            archive.writestr(info, data)

        yield add


def labels_json(labels: Mapping[str, list[float]], extra: Mapping[str, Any]) -> bytes:
    """``dataset.json`` as bytes."""
    return json.dumps({"labels": [[name, values] for name, values in labels.items()], **extra}).encode()
