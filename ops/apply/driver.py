"""What moves an avatar: face units and cameras, frame after frame, from a clip or from a table of coefficients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models import camera
from models.parametric.person import EXPRESSION
from ops.apply.reenact_portrait import drive
from ops.crawl.video import EXTENSIONS as VIDEOS
from ops.fit.clips import TrackClipsParams, track
from ops.runtime.errors import LineamentError, PictureError
from ops.store.clips import frame_rate

RATE = 25.0  # frames a second of coefficients that do not say theirs
KINDS = f"a video ({', '.join(sorted(VIDEOS))}), or a .json or .parquet of coefficients"


@dataclass(frozen=True)
class Driver:
    """A motion.

    Attributes:
        expressions: (F, 52) face units in [0, 1].
        cameras: (F, 25) in the head's frame: how head and camera stand to each other; None if it does not say.
        rate: frames a second.
        frames: numbers of the frames in the clip; None for coefficients.
    """

    expressions: np.ndarray
    cameras: np.ndarray | None
    rate: float
    frames: list[int] | None = None

    def __len__(self) -> int:
        return len(self.expressions)


def read_driver(path: Path, weights: Path) -> Driver:
    """The motion of a clip, tracked now, or of a file of coefficients.

    A ``.json`` holds ``{"expression": [[52 units], …], "camera": [[25 values], …], "fps": 25}`` as the clip shards do,
    or a list of ``{"expression": …, "camera": …}``; a ``.parquet`` has these columns, as ``clips.parquet`` has.
    Cameras may be missing.

    Raises:
        LineamentError: no such file, nothing that can drive, or coefficients of another model; says which frame.
    """
    if not path.is_file():
        raise LineamentError(f"{path}: no such file; a driver is {KINDS}.")
    ending = path.suffix.lower()
    if ending in VIDEOS:
        return _of_clip(path, weights)
    if ending == ".json":
        return _of_json(path)
    if ending == ".parquet":
        return _of_table(path)
    raise LineamentError(f"{path}: a driver is {KINDS}.")


def _of_clip(path: Path, weights: Path) -> Driver:
    data = path.read_bytes()
    try:
        rate = frame_rate(data)
    except PictureError as error:
        raise LineamentError(f"{path}: not a video that can be read ({error}).") from None
    rows = drive(track(data, path.stem, TrackClipsParams.model_validate({}), weights), path)
    return _driver(path, rows, rate, [row["frame"] for row in rows])


def _of_json(path: Path) -> Driver:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, list):
            return _driver(path, content, RATE)
        names = [name for name in ("expression", "camera") if content.get(name) is not None]
        rows = [dict(zip(names, values)) for values in zip(*(content[name] for name in names), strict=True)]
        return _driver(path, rows, float(content.get("fps", RATE)))
    except (ValueError, TypeError, AttributeError) as error:
        raise LineamentError(f"{path}: not a file of coefficients ({error}); see `lineament reenact -h`.") from None


def _of_table(path: Path) -> Driver:
    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise LineamentError(f"{path}: not a parquet file ({error}).") from None
    rows = [row for row in rows if row.get("kept", True)]
    clips = list(dict.fromkeys(row.get("clip") for row in rows))
    if len(clips) > 1:
        print(f"mind: {path} holds {len(clips)} clips; the first, {clips[0]}, drives")
        rows = [row for row in rows if row.get("clip") == clips[0]]
    return _driver(path, sorted(rows, key=lambda row: row.get("frame") or 0), RATE)


def _driver(path: Path, rows: Sequence[dict[str, Any]], rate: float, frames: list[int] | None = None) -> Driver:
    """Rows with ``expression`` and perhaps ``camera``, checked."""
    if not rows:
        raise LineamentError(f"{path}: no frame in it can drive an avatar.")
    expressions = np.stack([_values(path, n, row, "expression", EXPRESSION) for n, row in enumerate(rows)])
    cameras = None
    if all(row.get("camera") is not None for row in rows):
        cameras = np.stack([_values(path, n, row, "camera", camera.LABEL_SIZE) for n, row in enumerate(rows)])
    outside = int(((expressions < 0) | (expressions > 1)).any(1).sum())
    if outside:
        print(f"mind: {outside} frames of {path} have face units beyond 0 to 1; they are brought back to that range")
    return Driver(expressions.clip(0, 1), cameras, rate, frames)


def _values(path: Path, number: int, row: dict[str, Any], name: str, size: int) -> np.ndarray:
    found = row.get(name) if isinstance(row, dict) else None
    try:
        values = np.array(found, np.float32)
    except (TypeError, ValueError):
        values = np.zeros(0, np.float32)
    if values.shape != (size,) or not np.isfinite(values).all():
        what = "none" if found is None else "values that are not finite" if values.shape == (size,) else "others"
        raise LineamentError(f"{path}: frame {number} needs {size} finite values of {name}; it has {what}.")
    return values
