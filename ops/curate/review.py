"""What people decided by looking: ``data/review.csv``, which git tracks, applied by the labelling stages.

A row a picture: ``reject`` it, ``accept`` its pose whatever the limits say, or correct its ``pose`` (yaw, pitch, roll
in degrees). The stage ``screen`` applies rejections, so that everything follows; the stages that label cameras apply
the rest. `lineament review` writes the list.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish
from ops.store import tables

if TYPE_CHECKING:
    import torch

LIST = Path("data/review.csv")
COLUMNS = ("id", "decision", "yaw", "pitch", "roll", "note", "date")
DECISIONS = ("accept", "reject", "pose")
REASON = "rejected_by_hand"


@dataclass(frozen=True)
class Decision:
    """What was decided of one picture; the angles, in degrees, belong to ``pose``. Without a roll it stays as it is:
    face and head are cut out by squares that lean differently."""

    decision: str
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float | None = None
    note: str = ""


def read(path: Path = LIST) -> dict[str, Decision]:
    """The decisions by sample id; none where there is no list. The last one on a picture holds.

    Raises:
        LineamentError: an unknown decision, an id that is none, or angles that are none.
    """
    if not path.is_file():
        return {}
    found = {}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    except (UnicodeError, csv.Error) as error:
        raise LineamentError(f"{path}: cannot be read ({error}).") from None
    for number, row in enumerate(rows, start=2):
        key, what = (row.get("id") or "").strip(), (row.get("decision") or "").strip()
        if not re.fullmatch(r"[0-9a-f]{16}(-h\d+)?", key):
            raise LineamentError(f"{path}, row {number}: '{key}' is no sample id.")
        try:
            yaw, pitch = (float(row.get(name) or 0.0) for name in ("yaw", "pitch"))
            roll = float(row["roll"]) if row.get("roll") else None
        except ValueError:
            yaw, pitch, roll = math.nan, math.nan, None
        found[key] = Decision(what, yaw, pitch, roll, row.get("note") or "")
        check(found[key], f"{path}, row {number}")
    return found


def check(one: Decision, where: str) -> None:
    """Raise LineamentError unless a decision is one."""
    if one.decision not in DECISIONS:
        raise LineamentError(f"{where}: the decision should be one of {', '.join(DECISIONS)} (found '{one.decision}').")
    if not all(math.isfinite(angle) and abs(angle) <= 180 for angle in (one.yaw, one.pitch, one.roll or 0.0)):
        raise LineamentError(f"{where}: yaw, pitch and roll should be degrees.")


def write(decisions: dict[str, Decision], path: Path = LIST) -> None:
    """All decisions, sorted by id, so that git shows what changed."""
    today = datetime.now(UTC).date().isoformat()
    dates = {}
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            dates = {row["id"]: row.get("date") or today for row in csv.DictReader(file)}
    before = read(path)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for key, one in sorted(decisions.items()):
        angles = ["" if v is None or one.decision != "pose" else f"{v:g}" for v in (one.yaw, one.pitch, one.roll)]
        date = dates.get(key, today) if before.get(key) == one else today
        writer.writerow([key, one.decision, *angles, one.note, date])
    with publish(path) as temporary:
        temporary.write_text(stream.getvalue(), encoding="utf-8")


def reject(table: pa.Table, decisions: dict[str, Decision]) -> pa.Table:
    """The table with the pictures rejected that people rejected."""
    keys = {key for key, one in decisions.items() if one.decision == "reject"}
    return tables.reject(table, np.array([key in keys for key in table.column("id").to_pylist()], bool), REASON)


def _columns(one: Decision) -> dict[str, Any]:
    return {"yaw": one.yaw, "pitch": one.pitch} | ({} if one.roll is None else {"roll": one.roll})


def apply(
    table: pa.Table, decisions: dict[str, Decision], columns: Callable[[Decision], dict[str, Any]] = _columns
) -> pa.Table:
    """A table of cameras with the decisions applied.

    An accepted row with a camera stays, whatever limit it broke; a corrected pose replaces the camera and stays.

    Args:
        table: with the column ``camera``.
        decisions: see read.
        columns: what else a corrected pose changes in its row.
    """
    if not decisions:
        return table
    rows = table.to_pylist()
    for row in rows:
        one = decisions.get(row["id"])
        if one is None or row["camera"] is None:
            continue
        if one.decision == "reject":
            row.update(kept=False, reason=row["reason"] or REASON)
            continue
        row.update(kept=True, reason=None)
        if one.decision == "pose":
            row.update(columns(one), camera=turned(row["camera"], one).tolist())
    return pa.Table.from_pylist(rows, schema=table.schema)


def turned(camera: list[float], one: Decision) -> torch.Tensor:
    """(25,) label with the decided angles; the head stays where it is in the picture, and as far away."""
    import torch  # few lists correct a pose, and torch takes long to load

    from models.camera import pack_label, pose_on_sphere, unpack_label
    from ops.curate.camera import angles  # that stage applies these decisions, so it imports this module

    pose, intrinsics = unpack_label(torch.tensor(camera, dtype=torch.float64))
    head = -pose[:3, :3].T @ pose[:3, 3]  # the world's origin as the camera sees it
    degrees = (one.yaw, one.pitch, angles(pose.numpy())[2] if one.roll is None else one.roll)
    yaw, pitch, roll = (torch.tensor(math.radians(v), dtype=torch.float64) for v in degrees)
    new = pose_on_sphere(yaw, pitch, roll=roll)
    new[:3, 3] = -new[:3, :3] @ head
    return pack_label(new, intrinsics)
