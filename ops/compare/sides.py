"""What can be compared: a published checkpoint, a set of training shards, a result of ``lineament evaluate``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ops.runtime.errors import LineamentError
from ops.store.reader import ShardDataset
from ops.train.curves import read_curves
from ops.train.export import read_config

Kind = Literal["checkpoint", "shards", "result"]
NUMBERS = ("yaw", "pitch", "roll")  # of a sample's record


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        path: where it lies.
        kind: what it is.
        facts: what it says of itself: name to a short text.
        settings: parameters by dotted name.
        curves: name to values over training.
        images: pictures seen at the curves' points.
        samples: ids of the data set, empty for others.
        numbers: name to a value of every sample.
        measured: row and metric to (value, low, high), None where there is no interval.
        pictures: caption to file.
    """

    path: Path
    kind: Kind
    facts: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    images: np.ndarray = field(default_factory=lambda: np.zeros(0))
    samples: frozenset[str] = frozenset()
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    measured: dict[str, tuple[float, float | None, float | None]] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)


def read_side(path: Path) -> Side:
    """What lies at a path.

    Raises:
        LineamentError: nothing that can be compared; says what can.
    """
    if (path / "config.json").is_file():
        return _checkpoint(path)
    if (path / "dataset.json").is_file():
        return _shards(path)
    if path.is_file() and path.suffix == ".json":
        return _result(path)
    raise LineamentError(
        f"{path}: nothing to compare. Give two checkpoints (data/checkpoints/SYSTEM/VARIANT), two data versions "
        "(data/shards/NAME), or two results of `lineament evaluate … --out FILE.json`."
    )


def _checkpoint(path: Path) -> Side:
    record = read_config(path)
    curves = read_curves(path / "curves.csv") if (path / "curves.csv").is_file() else {}
    images = curves.pop("images", np.zeros(0))
    curves.pop("step", None)
    names = ("system", "variant", "step", "images", "data", "revision", "torch")
    facts = {name: str(record.get(name, "–"))[:16] for name in names}
    facts["parameters"] = ", ".join(f"{k} {v:,}" for k, v in record.get("parameters", {}).items())
    pictures = {name: path / f"{name}.png" for name in ("grid", "snapshots") if (path / f"{name}.png").is_file()}
    settings = flatten(record.get("params", {}))
    return Side(path, "checkpoint", facts, settings, curves, images, pictures=pictures)


def _shards(path: Path) -> Side:
    dataset = ShardDataset(path)
    values: dict[str, list[float]] = {name: [] for name in NUMBERS}
    ids: list[str] = []
    sources: dict[str, int] = {}
    for shard in dataset.shards:
        for key in shard.keys:
            record = json.loads(shard.read(key, "json"))
            ids.append(key)
            source = str(record.get("source", "–"))
            sources[source] = sources.get(source, 0) + 1
            for name in NUMBERS:
                if isinstance(record.get(name), int | float):
                    values[name].append(float(record[name]))
    facts = {"samples": f"{len(ids):,}", "hash": dataset.hash[:16]}
    facts["sources"] = ", ".join(f"{name} {count:,}" for name, count in sorted(sources.items()))
    numbers = {name: np.array(found) for name, found in values.items() if found}
    return Side(path, "shards", facts, samples=frozenset(ids), numbers=numbers)


def _result(path: Path) -> Side:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        protocol = result["protocol"]
        measured = {
            f"{row}: {metric}": (number["value"], number["low"], number["high"])
            for row, values in result["rows"].items()
            for metric, number in values.items()
            if number["value"] is not None
        }
        facts = {"protocol": protocol["name"], "rules": protocol["hash"][:16], "backbone": result["backbone"]}
        facts |= {"samples": f"{result['samples']:,}"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LineamentError(f"{path}: no result of `lineament evaluate … --out` ({error!r}).") from None
    return Side(path, "result", facts, measured=measured)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
