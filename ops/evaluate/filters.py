"""What the filters of the labelling do: how much each stage takes away, and whether it took the right pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ops.evaluate import intervals
from ops.store import tables

BEHIND = 90.0  # degrees of azimuth from which a picture shows no face


@dataclass(frozen=True)
class Filter:
    """A reason of a stage, and the kinds of the studio's pictures that it is there for."""

    stage: str
    reasons: tuple[str, ...]
    kinds: tuple[str, ...]
    backs: bool = False  # whether views from behind are meant too


FILTERS = (
    Filter("screen", ("truncated", "undecodable", "not_a_picture", "empty"), ("truncated",)),
    Filter("screen", ("too_small",), ("tiny",)),
    Filter("screen", ("blurred",), ("blurred",)),
    Filter("detect", ("no_face",), ("no_person",), backs=True),
    Filter("detect", ("several_faces",), ("several",)),
)


def read_kinds(truth: Path) -> dict[str, dict[str, Any]]:
    """Kind and azimuth of each picture by id."""
    path = truth / "truth.parquet"
    rows = pq.read_table(path).to_pylist() if path.is_file() else []
    return {row["id"]: row for row in rows if row.get("kind")}


def judge(labels: Path, kinds: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Precision and recall of every filter, each with its count and Wilson's interval."""
    found = []
    for one in FILTERS:
        path = labels / f"{one.stage}.parquet"
        if not path.is_file():
            continue
        rows = [row for row in tables.read(path).to_pylist() if row["id"] in kinds]
        taken = [row for row in rows if row["reason"] in one.reasons]
        meant = {row["id"] for row in rows if _meant(one, kinds[row["id"]])}
        right = sum(row["id"] in meant for row in taken)
        what = [*one.kinds, *(["seen from behind"] if one.backs else [])]
        found.append(_verdict(one.stage, one.reasons[0], what, right, len(taken), len(meant)))
    if (labels / "screen.parquet").is_file():
        found.append(_duplicates(tables.read(labels / "screen.parquet").to_pylist(), kinds))
    return found


def _verdict(stage: str, reason: str, kinds: list[str], right: int, taken: int, meant: int) -> dict[str, Any]:
    precision, recall = intervals.share(right, taken), intervals.share(right, meant)
    return {"stage": stage, "reason": reason, "kinds": kinds, "precision": precision, "recall": recall}


def _duplicates(rows: list[dict[str, Any]], kinds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Pictures of one person by one camera repeat one another, whatever else was done to them: all but one should go,
    and any of them may stay."""
    shots: dict[str, tuple[Any, ...]] = {}
    for row in rows:
        truth = kinds.get(row["id"], {})
        if row["reason"] in (None, "near_duplicate") and truth.get("camera") is not None:
            shots[row["id"]] = (truth["identity"], *truth["camera"])
    taken = [row for row in rows if row["reason"] == "near_duplicate" and row["id"] in shots]
    right = sum(shots[row["id"]] == shots.get(row["duplicate_of"]) for row in taken)
    repeated = len(shots) - len(set(shots.values()))
    return _verdict("screen", "near_duplicate", ["the same shot again"], right, len(taken), repeated)


def _meant(one: Filter, truth: dict[str, Any]) -> bool:
    behind = one.backs and truth.get("azimuth") is not None and abs(truth["azimuth"]) > BEHIND
    return truth["kind"] in one.kinds or behind


def losses(labels: Path, stages: tuple[str, ...]) -> list[dict[str, Any]]:
    """What each stage that has run took in, and the share that it lost for each reason."""
    found = []
    for stage in stages:
        path = labels / f"{stage}.parquet"
        if not path.is_file():
            continue
        counts: dict[str, Any] = tables.counts(tables.read(path))
        reasons = {reason: intervals.share(number, counts["in"]) for reason, number in counts["reasons"].items()}
        lost = intervals.share(counts["rejected"], counts["in"])
        found.append({"stage": stage, "in": counts["in"], "lost": lost, "reasons": reasons})
    return found
