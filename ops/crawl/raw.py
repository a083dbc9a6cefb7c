"""Raw shards: original bytes untouched, provenance beside them, never changed once written.

A refresh adds shards and leaves the old ones as they are. ``crawl.parquet`` in the same folder has a row for every
picture that was ever offered, the rejected ones too.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ops.runtime.publish import publish
from ops.store import tables
from ops.store.pictures import sniff
from ops.store.seen import Seen, number_of
from ops.store.spool import Spool
from ops.store.tar import Shard, ShardWriter, index_path

TABLE = tables.CRAWL
SCHEMA = tables.schema(
    pa.field("name", pa.string()),
    pa.field("bytes", pa.int64()),
    pa.field("shard", pa.string()),
    pa.field("url", pa.string()),
    pa.field("licence", pa.string()),
)


@dataclass(frozen=True)
class RawPicture:
    """A picture as a source offers it.

    Attributes:
        name: what the source calls it: a path within the folder, an address.
        data: the original bytes; None when they could not be had.
        provenance: url, page, licence, time, identity (of the person); what is unknown is left out.
        problem: the reason why ``data`` is None.
        truth: what is known of it for certain, for evaluation alone; see ops.studio.
        official: fields that lie beside the picture in its shard: masks, landmarks and cameras of a data set's owner.
    """

    name: str
    data: bytes | None
    provenance: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    truth: Any = None
    official: dict[str, bytes] = field(default_factory=dict)


def sample_id(data: bytes) -> str:
    """The id of a sample: the first 16 hex digits of the sha256 of its bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def add_pictures(
    raw: Path,
    source: str,
    settings: str,
    pictures: Iterable[RawPicture],
    per_shard: int,
    also: Callable[[Path], object] = lambda folder: None,
    unwanted: Callable[[str, RawPicture], str | None] = lambda key, picture: None,
) -> tuple[dict[str, Any], int]:
    """Bring a source's pictures into its raw folder: what is there stays, what is new gets new shards.

    Args:
        raw: the source's folder; published anew as a whole, its old shards linked.
        source: the source's name, for the provenance.
        settings: hash of the source's declaration; shards made under another one are not kept.
        pictures: all that the source offers.
        per_shard: samples a shard.
        also: called with the folder before it is published, to write what else belongs there.
        unwanted: given a new picture and its id, the reason why it must not be stored, if there is one.

    Returns:
        the counts of the crawl table (see tables.counts) and the number of new samples.
    """
    before = earlier(raw, settings)
    known = _Known(before)
    new = 0
    with publish(raw, folder=True) as folder:
        first = _link_shards(raw, folder) if before is not None else 0
        rows = Spool(folder / ".rows", SCHEMA)
        with ShardWriter(folder, per_shard, first) as writer:
            for picture in pictures:
                key = sample_id(picture.data) if picture.data is not None else sample_id(picture.name.encode())
                if not known.is_news(picture.name, key):
                    continue
                reason = picture.problem or unwanted(key, picture) or ("exact_duplicate" if key in known.kept else None)
                number = known.times(key) + 1
                known.add(picture.name, key, reason is None)
                row = {
                    "id": key if reason is None else f"{key}-{number}",
                    "name": picture.name,
                    "bytes": len(picture.data or b""),
                    "shard": None,
                    "url": picture.provenance.get("url"),
                    "licence": picture.provenance.get("licence"),
                    "kept": reason is None,
                    "reason": reason,
                }
                if reason is None and picture.data is not None:
                    writer.add(key, _fields(source, picture, picture.data))
                    row["shard"] = writer.paths[-1].stem
                    new += 1
                rows.add(row)
        table = itertools.chain([SCHEMA.empty_table()], known.standing(), rows.tables())
        tables.write(folder / TABLE, table, "crawl", {"settings": settings})
        shutil.rmtree(folder / ".rows")
        also(folder)
    return tables.counts(tables.parts(raw / TABLE, tables.NAMES)), new


class _Known:
    """What earlier crawls of a source, and this one, were offered: some dozen bytes an offer.

    Attributes:
        kept: ids of the samples.
    """

    def __init__(self, table: Path | None) -> None:
        self.kept, self._offers, self._answers = Seen(), Seen(), Seen()
        self._table = table
        failed: list[np.ndarray] = [np.empty(0, np.uint64)]  # the names of what could not be had, as numbers, and rows
        places: list[np.ndarray] = [np.empty(0, np.int64)]
        count = 0
        for part in self._parts():
            for row in part.select(["id", "name", "kept"]).to_pylist():
                self.add(row["name"], row["id"].split("-")[0], row["kept"])
            lost = np.flatnonzero(~part.column("kept").to_numpy() & (part.column("bytes").to_numpy() == 0))
            names = part.column("name").take(pa.array(lost)).to_pylist()
            failed.append(np.fromiter(map(number_of, names), np.uint64, len(names)))
            places.append(lost + count)
            count += len(part)
        order = np.argsort(np.concatenate(failed), kind="stable")
        self._failed, self._places = np.concatenate(failed)[order], np.concatenate(places)[order]
        self._superseded = np.zeros(count, bool)

    def add(self, name: str, key: str, kept: bool) -> None:
        """An offer with the answer it got."""
        self._offers.add(key)
        self._answers.add(f"{key} {name}")
        if kept:
            self.kept.add(key)

    def times(self, key: str) -> int:
        """How often a sample was offered."""
        return self._offers.count(key)

    def is_news(self, name: str, key: str) -> bool:
        """Whether an offer is another than before. What could not be had the last time always is: this answer takes the
        place of that one."""
        last = int(np.searchsorted(self._failed, np.uint64(number_of(name)), "right")) - 1
        if last >= 0 and self._failed[last] == number_of(name) and not self._superseded[self._places[last]]:
            self._superseded[self._places[last]] = True
            return True
        return f"{key} {name}" not in self._answers

    def standing(self) -> Iterator[pa.Table]:
        """The rows of earlier crawls whose place no new one took."""
        first = 0
        for part in self._parts():
            yield part.filter(pa.array(~self._superseded[first : first + len(part)]))
            first += len(part)

    def _parts(self) -> Iterator[pa.Table]:
        for part in tables.parts(self._table) if self._table is not None else ():
            for one in SCHEMA:  # which an older version may have been without
                if one.name not in part.column_names:
                    part = part.append_column(one, pa.nulls(len(part), one.type))
            yield part.select(SCHEMA.names).cast(SCHEMA)


def _fields(source: str, picture: RawPicture, data: bytes) -> dict[str, bytes]:
    provenance = {
        "source": source,
        "name": picture.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "url": None,
        "page": None,
        "licence": None,
        "time": None,
        **picture.provenance,
    }
    return {sniff(data): data, "json": json.dumps(provenance, sort_keys=True).encode(), **picture.official}


def earlier(raw: Path, settings: str) -> Path | None:
    """The table of what was offered before under the same settings; None where nothing of it can be kept."""
    path = raw / TABLE
    if not path.is_file():
        return None
    return path if tables.metadata(path).get("settings") == settings else None


def _link_shards(raw: Path, folder: Path) -> int:
    """Bring the old shards along without copying; return the number of the next one."""
    paths = sorted(raw.glob("*.tar"))
    for path in paths:
        Shard(path).close()  # a damaged shard is an error here, not a silent loss
        os.link(path, folder / path.name)
        os.link(index_path(path), folder / index_path(path).name)
    return int(paths[-1].stem) + 1 if paths else 0
