"""Raw shards: original bytes untouched, provenance beside them, never changed once written.

A refresh adds shards and leaves the old ones as they are. ``crawl.parquet`` in the same folder has a row for every
picture that was ever offered, the rejected ones too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ops.runtime.publish import publish
from ops.store import tables
from ops.store.pictures import sniff
from ops.store.tar import Shard, ShardWriter, index_path

TABLE = "crawl.parquet"
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
) -> tuple[pa.Table, int]:
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
        the crawl table and the number of new samples.
    """
    old = earlier(raw, settings)
    rows: list[dict[str, Any]] = old.to_pylist() if old is not None else []
    seen = {row["id"] for row in rows if row["kept"]}
    known = {(row["name"], row["id"].split("-")[0]) for row in rows}
    failed = {row["name"]: row for row in rows if not row["kept"] and not row["bytes"]}
    offered: dict[str, int] = {}
    for row in rows:
        base = row["id"].split("-")[0]
        offered[base] = offered.get(base, 0) + 1
    before = len(seen)
    with publish(raw, folder=True) as folder:
        first = _link_shards(raw, folder) if old is not None else 0
        with ShardWriter(folder, per_shard, first) as writer:
            for picture in pictures:
                key = sample_id(picture.data) if picture.data is not None else sample_id(picture.name.encode())
                mended = failed.pop(picture.name, None)
                if mended is not None:  # it could not be had the last time: this answer takes the place of that one
                    mended["superseded"] = True
                elif (picture.name, key) in known:
                    continue
                known.add((picture.name, key))
                reason = picture.problem or unwanted(key, picture) or ("exact_duplicate" if key in seen else None)
                number = offered[key] = offered.get(key, 0) + 1
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
                    seen.add(key)
                    writer.add(key, _fields(source, picture, picture.data))
                    row["shard"] = writer.paths[-1].stem
                rows.append(row)
        table = pa.Table.from_pylist([row for row in rows if "superseded" not in row], schema=SCHEMA)
        tables.check(table, raw / TABLE)
        metadata = {"stage": "crawl", "settings": settings}
        pq.write_table(
            table.replace_schema_metadata(metadata),
            folder / TABLE,
            compression="zstd",
            row_group_size=tables.ROW_GROUP,
        )
        also(folder)
    return table, len(seen) - before


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


def earlier(raw: Path, settings: str) -> pa.Table | None:
    """The table of what was offered before under the same settings; None where nothing of it can be kept."""
    path = raw / TABLE
    if not path.is_file():
        return None
    table = tables.read(path)
    return table if (table.schema.metadata or {}).get(b"settings") == settings.encode() else None


def _link_shards(raw: Path, folder: Path) -> int:
    """Bring the old shards along without copying; return the number of the next one."""
    paths = sorted(raw.glob("*.tar"))
    for path in paths:
        Shard(path).close()  # a damaged shard is an error here, not a silent loss
        os.link(path, folder / path.name)
        os.link(index_path(path), folder / index_path(path).name)
    return int(paths[-1].stem) + 1 if paths else 0
