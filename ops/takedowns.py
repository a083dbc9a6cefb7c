"""`lineament takedown`: what to put on the list, what that reaches, and which checkpoints saw it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ops.crawl.raw import TABLE
from ops.curate import takedown
from ops.curate.screen import ScreenParams, measure
from ops.runtime.errors import LineamentError
from ops.runtime.params import load_params
from ops.store.pictures import decode, picture_problem
from ops.store.tar import file_sha256
from ops.trace import LABELS, RAW, held, ids_of, remember, rows_of, seen_by

_WHAT_NOW = (
    "`dvc repro` takes it out of everything downstream; commit the list.",
    "The original bytes stay in data/raw, whose shards never change. To be rid of them too, delete data/raw/SOURCE and "
    "run `dvc repro crawl@SOURCE`: what the list names by id, sha256 or address is not stored again.",
)


def add_command(root: Path, words: list[str], reason: str = "") -> str:
    """Put pictures on the list; say what that reaches.

    Raises:
        LineamentError: a word names nothing.
    """
    rows = [row for word in words for row in named(root, word)]
    remember(root)  # who saw what must stay known when the shards are made anew
    fresh = takedown.add(({**row, "reason": reason} for row in rows), root / takedown.LIST)
    lines = [f"{fresh} new on {takedown.LIST}, which git tracks.", *_reach(root, rows)]
    return "\n".join([*lines, *_WHAT_NOW])


def list_command(root: Path) -> str:
    """What is on the list, and the checkpoints that saw it."""
    rows = takedown.rows(root / takedown.LIST)
    if not rows:
        return f"nothing is on {takedown.LIST}"
    lines = [
        f"{row.get('date') or '':10}  {row.get('id') or row.get('sha256') or row.get('url') or row.get('phash')}  "
        f"{row.get('reason') or ''}".rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *_reach(root, rows)])


def _reach(root: Path, rows: list[dict[str, str]]) -> list[str]:
    bits = load_params(ScreenParams, "screen", root / "params.yaml").duplicate_bits
    keys = alike(root, rows, bits)
    lines = [f"{len(keys)} samples here: {', '.join(keys[:8])}{' …' if len(keys) > 8 else ''}" if keys else
             "No sample here is it, or looks like it."]  # fmt: skip
    seen: dict[tuple[str, str], int] = {}
    for place in seen_by(root, keys):
        seen[place.kind, place.where] = seen.get((place.kind, place.where), 0) + 1
    lines += [f"{kind} {where} was trained on {count} of them" for (kind, where), count in sorted(seen.items())]
    lines += [f"{where} still holds {count} of them: run `dvc repro`" for where, count in held(root, keys).items()]
    if keys and not seen:
        lines.append("No checkpoint that is known here was trained on it.")
    return lines


def named(root: Path, what: str) -> list[dict[str, str]]:
    """Rows for the takedown list: everything known of what an id, sha256, address, name or picture names."""
    file = Path(what).expanduser()
    rows: list[dict[str, str]] = []
    if file.is_file():
        rows.append(_row_of_file(root, file))
    try:
        keys = ids_of(root, what)
    except LineamentError:
        if not what.startswith(("http://", "https://")):
            raise
        return [{"url": what}]  # not here yet: a crawl will not bring it
    for key in keys:
        row = {"id": key} | ({"sha256": what.lower()} if re.fullmatch(r"[0-9a-fA-F]{64}", what) else {})
        for path in sorted((root / RAW).glob(f"*/{TABLE}")):
            for found in rows_of(path, key):
                row |= {"url": found["url"]} if found.get("url") else {}
        for path in sorted((root / LABELS).glob("*/screen.parquet")):
            for found in rows_of(path, key, ["id", "phash"]):
                row |= {"phash": f"{found['phash']:016x}"} if found["phash"] is not None else {}
        rows = [{**rows[0], **row}] if rows else [*rows, row]
    return rows


def _row_of_file(root: Path, file: Path) -> dict[str, str]:
    row = {"sha256": file_sha256(file)}
    data = file.read_bytes()
    if picture_problem(data) is None:
        side = load_params(ScreenParams, "screen", root / "params.yaml").svd_side
        row["phash"] = f"{measure(decode(data), side)['phash']:016x}"
    return row


def alike(root: Path, rows: list[dict[str, str]], bits: int) -> list[str]:
    """The samples that takedown rows name by id or by likeness, near-duplicates of them included."""
    crawled = sorted((root / RAW).glob(f"*/{TABLE}"))
    ids = {row.get("id") or (row.get("sha256") or "")[:16] for row in rows} - {""}
    found = {key for key in ids if any(rows_of(path, key) for path in crawled)}
    hashes = np.array([int(row["phash"], 16) for row in rows if row.get("phash")], np.uint64)
    for path in sorted((root / LABELS).glob("*/screen.parquet")):
        table = pq.read_table(path, columns=["id", "phash"]).drop_null()
        which = takedown.near(table.column("phash").to_numpy(), hashes, bits)
        found |= set(table.column("id").filter(pa.array(which)).to_pylist())
    return sorted(found)
