"""Versions of a set of training shards: what is new, gone and taken down, and how far views and sharpness drifted.

A version is remembered as a small table of its samples (id, source, yaw, blur) under ``data/history/<hash>.parquet``,
where the hash is that of the shards; ``data/history/<name>.json`` says which version was there before the present one.
Drift is the total variation distance of two histograms: the share of samples that would have to move to another bin.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ops.curate import takedown
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.store import tables
from ops.store.reader import ShardDataset

SHARDS = "data/shards"
RAW, LABELS = Path("data/raw"), Path("data/labels")
HISTORY = Path("data/history")
METRICS = Path("metrics/changes")
SUMMARY = "dataset.json"

VIEW_EDGES = tuple(range(-180, 181, 30))  # degrees of yaw; unpublished: our choice
BLUR_EDGES = tuple(range(0, 15))  # log2 of the variance of the Laplacian; unpublished: our choice
SCHEMA = pa.schema([("id", pa.string()), ("source", pa.string()), ("yaw", pa.float32()), ("blur", pa.float32())])


class Profile(Params):
    """A version in a few numbers, kept with every model that was trained on it.

    Attributes:
        hash: of the shards. samples: how many. views, blurs: counts by bin of yaw and of log2 sharpness.
    """

    hash: str
    samples: int
    views: tuple[int, ...]
    blurs: tuple[int, ...]


@dataclass(frozen=True)
class Changes:
    """From one version to the next; the drifts are in [0, 1], 0 where there is nothing to compare with."""

    before: str | None
    after: str
    samples_before: int
    samples: int
    new: int
    gone: int
    taken_down: int
    new_by_source: dict[str, int]
    view_drift: float
    blur_drift: float

    @property
    def gain(self) -> float:
        """Per cent by which the accepted samples grew."""
        return gain(self.samples_before, self.samples)

    def record(self) -> dict[str, Any]:
        """As plain numbers, for a metrics file."""
        return {**vars(self), "gain_percent": round(self.gain, 3)}

    def sentence(self) -> str:
        """In words."""
        if self.before is None:
            return f"{self.samples} samples; the first version that is known here"
        return (
            f"{self.samples} samples ({self.gain:+.1f} %): {self.new} new, {self.gone} gone, {self.taken_down} of them "
            f"taken down; drift of views {self.view_drift:.3f}, of sharpness {self.blur_drift:.3f}"
        )


def shards_hash(folder: Path) -> str:
    """The hash of the shards of a folder, as its dataset.json says.

    Raises:
        LineamentError: there is none.
    """
    try:
        return str(json.loads((folder / SUMMARY).read_text())["hash"])
    except (OSError, ValueError, KeyError):
        raise LineamentError(f"{folder}: no readable {SUMMARY}. `dvc repro` of the shards makes it.") from None


def read_version(root: Path, folder: Path) -> pa.Table:
    """The table of the present version of a folder of shards; made, and remembered, where it is not yet."""
    file = root / HISTORY / f"{shards_hash(root / folder)}.parquet"
    if not file.is_file():
        with publish(file) as temporary:
            pq.write_table(_table(root, root / folder), temporary, compression="zstd")
    return pq.read_table(file)


def known_ids(root: Path, version: str) -> set[str] | None:
    """The samples of a version by its hash; None where it is not remembered here."""
    file = root / HISTORY / f"{version}.parquet"
    return set(pq.read_table(file, columns=["id"]).column("id").to_pylist()) if file.is_file() else None


def profile(root: Path, folder: Path) -> Profile:
    """The present version of a folder of shards in a few numbers."""
    table = read_version(root, folder)
    views, blurs = _histograms(table)
    return Profile(hash=shards_hash(root / folder), samples=len(table), views=views, blurs=blurs)


def changes(root: Path, folder: Path) -> Changes:
    """The step from the version before to the present one; the first call after new shards moves the mark on.

    The result is written to ``metrics/changes/<name>.json`` as well.
    """
    present = shards_hash(root / folder)
    mark = root / HISTORY / f"{folder.name}.json"
    versions: dict[str, Any] = json.loads(mark.read_text()) if mark.is_file() else {"before": None, "present": None}
    if versions["present"] != present:
        versions = {"before": versions["present"], "present": present}
        with publish(mark) as temporary:
            temporary.write_text(json.dumps(versions) + "\n")
    after = read_version(root, folder)
    file = root / HISTORY / f"{versions['before']}.parquet"
    before = pq.read_table(file) if file.is_file() else None
    found = compare(before, after, taken_down(root), versions["before"], present)
    with publish(root / METRICS / f"{folder.name}.json") as temporary:
        temporary.write_text(json.dumps(found.record(), indent=2, sort_keys=True) + "\n")
    return found


def compare(
    before: pa.Table | None, after: pa.Table, taken: set[str], name_before: str | None = None, name_after: str = ""
) -> Changes:
    """What differs between two tables of samples.

    Args:
        before: None where no earlier version is known.
        taken: ids on the takedown list.
    """
    old = set(before.column("id").to_pylist()) if before is not None else set()
    ids = after.column("id").to_pylist()
    fresh = after.filter(pa.array([key not in old for key in ids], pa.bool_()))
    gone = old.difference(ids)
    sources = pc.value_counts(fresh.column("source")).to_pylist()
    drifts = (0.0, 0.0)
    if before is not None:
        pairs = zip(_histograms(before), _histograms(after))
        drifts = tuple(round(drift(a, b), 6) for a, b in pairs)  # type: ignore[assignment]
    return Changes(
        before=name_before if before is not None else None,
        after=name_after,
        samples_before=len(old),
        samples=len(ids),
        new=len(fresh),
        gone=len(gone),
        taken_down=len(gone & taken),
        new_by_source={str(entry["values"]): entry["counts"] for entry in sources},
        view_drift=drifts[0],
        blur_drift=drifts[1],
    )


def drift(before: tuple[int, ...], after: tuple[int, ...]) -> float:
    """Total variation distance of two histograms, in [0, 1]; 0 where one of them is empty."""
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if not a.sum() or not b.sum():
        return 0.0
    return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)


def gain(before: int, after: int) -> float:
    """Per cent by which a count grew."""
    return 100.0 * (after - before) / before if before else (100.0 if after else 0.0)


def taken_down(root: Path) -> set[str]:
    """The ids that the takedown list names, addresses by way of the crawls' tables; none where there is no list.

    Raises:
        LineamentError: the list is wrong, or cannot be read.
    """
    taken = takedown.read(root / takedown.LIST)
    found = set(taken.ids)
    for crawled in sorted((root / RAW).glob(f"*/{tables.CRAWL}")):
        found |= takedown.addressed(crawled, taken.urls)
    return found


def _table(root: Path, folder: Path) -> pa.Table:
    """The samples of a folder of shards. Blur is that of the whole picture, from the first label table."""
    shards = ShardDataset(folder).shards if any(folder.glob("*.tar")) else []  # a set of clips may be empty
    keys = [(shard, key) for shard in shards for key in shard.keys]
    labels = [json.loads(shard.read(key, "json")) for shard, key in keys]
    sharpness: dict[str, float] = {}
    for file in sorted((root / LABELS).glob("*/screen.parquet")):
        table = tables.read(file)
        if "laplacian" in table.column_names:
            sharpness.update(zip(table.column("id").to_pylist(), table.column("laplacian").to_pylist()))
    columns = {
        "id": [key for _, key in keys],
        "source": [str(label.get("source")) for label in labels],
        "yaw": [label.get("yaw") for label in labels],
        "blur": [sharpness.get(key.split("-")[0]) for _, key in keys],
    }
    return pa.table(columns, schema=SCHEMA)


def _histograms(table: pa.Table) -> tuple[tuple[int, ...], tuple[int, ...]]:
    yaw = [value for value in table.column("yaw").to_pylist() if value is not None]
    blur = [math.log2(max(value, 1e-9)) for value in table.column("blur").to_pylist() if value is not None]
    wrapped = (np.asarray(yaw, np.float64) + 180) % 360 - 180
    clipped = np.clip(np.asarray(blur, np.float64), BLUR_EDGES[0], BLUR_EDGES[-1])
    return (
        tuple(np.histogram(wrapped, VIEW_EDGES)[0].tolist()),
        tuple(np.histogram(clipped, BLUR_EDGES)[0].tolist()),
    )
