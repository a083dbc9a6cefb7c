"""What the filters of the labelling do: how much each stage takes away, and whether it took the right pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ops.evaluate import intervals
from ops.store import tables

BEHIND = 90.0  # degrees of azimuth from which a picture shows no whole face
FACE = 17  # of the 68 landmarks, brows, nose, eyes and mouth begin here
_FACE_PATH = ("detect", "landmarks", "camera")


@dataclass(frozen=True)
class Filter:
    """A reason that pictures fall for, and those of the studio's pictures that it is there for.

    Attributes:
        name: of the filter.
        stages: that reject for one of ``reasons``, in their order.
        reasons: what they say.
        kinds: of pictures that should fall.
        backs: whether pictures should fall too that show nothing of brows, eyes, nose and mouth. Those seen from
            further round than ``spared`` that show a little of it may fall or stay: either is right.
        spared: degrees of azimuth.
    """

    name: str
    stages: tuple[str, ...]
    reasons: tuple[str, ...]
    kinds: tuple[str, ...]
    backs: bool = False
    spared: float = BEHIND


FILTERS = (
    Filter("truncated", ("screen",), ("truncated", "undecodable", "not_a_picture", "empty"), ("truncated",)),
    Filter("too_small", ("screen",), ("too_small",), ("tiny",)),
    Filter("blurred", ("screen",), ("blurred",), ("blurred",)),
    Filter("no_face", ("detect",), ("no_face",), ("no_person",), backs=True),
    Filter("several_faces", ("detect",), ("several_faces",), ("several",)),
    # The decision between front and back: the detector takes some backs of heads for faces, which fall later.
    Filter(
        "not_frontal",
        _FACE_PATH,
        ("no_face", "low_landmark_score", "camera_not_found", "turned_too_far"),
        ("no_person",),
        backs=True,
        spared=60.0,  # CameraParams.max_yaw
    ),
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
        paths = [path for path in (labels / f"{name}.parquet" for name in one.stages) if path.is_file()]
        if not paths:
            continue
        looked, taken = set(), set()
        for row in (row for path in paths for row in tables.read(path).to_pylist()):
            if row["id"] in kinds:
                looked.add(row["id"])
                taken |= {row["id"]} if row["reason"] in one.reasons else set()
        meant = {key for key in looked if _meant(one, kinds[key])}
        right = sum(key in meant or _spared(one, kinds[key]) for key in taken)
        what = [*one.kinds, *(["nothing of the face is seen"] if one.backs else [])]
        found.append(_verdict(one.stages[-1], one.name, what, right, len(taken), len(taken & meant), len(meant)))
    if (labels / "screen.parquet").is_file():
        found.append(_duplicates(tables.read(labels / "screen.parquet").to_pylist(), kinds))
    return found


def _verdict(
    stage: str, reason: str, kinds: list[str], right: int, taken: int, found: int, meant: int
) -> dict[str, Any]:
    precision, recall = intervals.share(right, taken), intervals.share(found, meant)
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
    return _verdict("screen", "near_duplicate", ["the same shot again"], right, len(taken), right, repeated)


def _meant(one: Filter, truth: dict[str, Any]) -> bool:
    """Whether a picture should fall."""
    return truth["kind"] in one.kinds or (one.backs and _shows_nothing(truth))


def _spared(one: Filter, truth: dict[str, Any]) -> bool:
    """Whether it makes no difference that a picture fell."""
    return one.backs and truth.get("azimuth") is not None and abs(truth["azimuth"]) > one.spared


def _shows_nothing(truth: dict[str, Any]) -> bool:
    """Whether a person is there of whose face nothing can be seen."""
    visible = truth.get("landmarks68_visible") or []
    return bool(visible) and not any(visible[FACE:])


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
