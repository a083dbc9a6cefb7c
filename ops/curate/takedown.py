"""The takedown list: pictures that must be in nothing that is made from now on.

``data/takedown.csv``, which git tracks, names a picture a row, by as much as is known of it: sample id, sha256, URL,
perceptual hash. With a picture go all its heads; the id of one of them names the picture. The stage ``screen`` rejects
whatever matches, and near-duplicates of it, so that everything downstream follows at the next run; crawls do not store
it again.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish
from ops.store import tables

if TYPE_CHECKING:
    from ops.crawl.raw import RawPicture

LIST = Path("data/takedown.csv")
COLUMNS = ("id", "sha256", "url", "phash", "reason", "date")
REASON = "taken_down"
_FORMS = {"id": r"[0-9a-f]{16}", "sha256": r"[0-9a-f]{64}", "phash": r"[0-9a-f]{16}"}


@dataclass(frozen=True)
class Takedown:
    """What the list names."""

    ids: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def names(self, key: str, picture: RawPicture) -> str | None:
        """The reason why a picture must not be stored, if it is named."""
        known = {picture.name, picture.provenance.get("url")}
        return REASON if key in self.ids or known & self.urls else None


def read(path: Path = LIST) -> Takedown:
    """The list; nothing is named where there is none.

    Raises:
        LineamentError: a row names nothing, or something that is no id, sha256 or hash.
    """
    ids, urls, hashes = set(), set(), set()
    for number, row in enumerate(rows(path), start=2):
        values = {name: (row.get(name) or "").strip() for name in COLUMNS}
        for name, form in _FORMS.items():
            values[name] = tables.picture_of(values[name].lower())
            if values[name] and not re.fullmatch(form, values[name]):
                raise LineamentError(f"{path}, row {number}: '{values[name]}' is no {name}.")
        if not any(values[name] for name in ("id", "sha256", "url", "phash")):
            raise LineamentError(f"{path}, row {number}: names no picture: give an id, sha256, url or phash.")
        ids |= {key for key in (values["id"], values["sha256"][:16]) if key}
        urls |= {values["url"]} - {""}
        hashes |= {int(values["phash"], 16)} if values["phash"] else set()
    return Takedown(frozenset(ids), frozenset(urls), np.array(sorted(hashes), np.uint64))


def rows(path: Path = LIST) -> list[dict[str, str]]:
    """The list as it stands, a mapping a row."""
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(line for line in io.StringIO(text, newline="") if not line.startswith("#"))
        found = list(reader)
    except (UnicodeError, csv.Error) as error:
        raise LineamentError(f"{path}: cannot be read ({error}).") from None
    if reader.fieldnames is not None and not {"id", "sha256", "url", "phash"} & set(reader.fieldnames):
        raise LineamentError(f"{path}: has none of the columns id, sha256, url, phash.")
    return found


def add(more: Iterable[dict[str, str]], path: Path = LIST) -> int:
    """Append rows that name pictures not named yet; return how many.

    Args:
        more: columns of ``COLUMNS``; the date is filled in.
        path: the list.
    """
    existing = rows(path)
    known = {tuple(row.get(name) or "" for name in COLUMNS[:4]) for row in existing}
    fresh = []
    for row in more:
        names = tuple(row.get(name, "") for name in COLUMNS[:4])
        if names not in known:
            known.add(names)
            fresh.append({"date": datetime.now(UTC).date().isoformat(), **row})
    if fresh:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(existing + fresh)
        with publish(path) as temporary:
            temporary.write_text(stream.getvalue(), encoding="utf-8")
    return len(fresh)


def near(hashes: np.ndarray, named: np.ndarray, bits: int) -> np.ndarray:
    """(N,) bool: which of the perceptual hashes differ from a named one in at most ``bits`` bits."""
    found = np.zeros(len(hashes), bool)
    for one in named:
        found |= np.bitwise_count(hashes ^ one) <= bits
    return found


def addressed(crawled: Path, urls: Collection[str]) -> set[str]:
    """The ids of what was fetched from these addresses, or stored under these names, as a source's crawl table has it;
    none where there is no table."""
    if not urls or not crawled.is_file():
        return set()
    columns = [name for name in ("name", "url") if name in pq.read_schema(crawled).names]
    conditions = [[(name, "in", list(urls))] for name in columns]
    return set(pq.read_table(crawled, columns=["id"], filters=conditions or None).column("id").to_pylist())


def marker(parts: Iterable[pa.Table], taken: Takedown, crawled: Path, bits: int) -> Callable[[pa.Table], pa.Table]:
    """What rejects all that the list names: by id, by address, and by likeness to any of these.

    Args:
        parts: tables of the stage screen: id, phash, kept, reason.
        taken: the list.
        crawled: the source's crawl table, which knows addresses.
        bits: perceptual hashes that differ in no more are alike.
    """
    if not (taken.ids or taken.urls or len(taken.hashes)):
        return lambda part: part
    named = pa.array(sorted(taken.ids | addressed(crawled, taken.urls)), pa.string())
    hashes = [taken.hashes]
    for part in parts:
        which = pc.is_in(part.column("id"), value_set=named)
        hashes.append(part.column("phash").filter(which).drop_null().to_numpy().astype(np.uint64))
    alike = np.unique(np.concatenate(hashes))

    def mark(part: pa.Table) -> pa.Table:
        which = pc.is_in(part.column("id"), value_set=named).to_numpy(zero_copy_only=False)
        known = part.column("phash").is_valid().to_numpy()
        found = near(part.column("phash").fill_null(0).to_numpy().astype(np.uint64), alike, bits)
        return tables.reject(part, which | (found & known), REASON)

    return mark
