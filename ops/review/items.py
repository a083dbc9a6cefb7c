"""What there is to review: every picture with a camera, the most doubtful first, and how it is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch

from models import camera as geometry
from ops.crawl.raw import TABLE
from ops.curate.camera import angles
from ops.curate.crop import crop_quad, to_crop
from ops.curate.review import Decision, turned
from ops.curate.sheets import draw_points
from ops.runtime.errors import LineamentError, PictureError
from ops.store import pictures
from ops.store.parsing import coloured
from ops.store.tables import picture_of
from ops.store.tar import Shard
from ops.trace import LABELS, RAW, rows_of

# what makes a label doubtful: columns of the label tables that are larger for worse labels
DOUBTS = {
    "heads": ("flip_error", "disagreement"),
    "camera": ("residual",),
    "parse": ("disagreement",),
    "fit_face": ("residual",),
}
SIDE = 320
AXIS = 0.45  # world units
AXES = ((255, 80, 80), (80, 220, 80), (90, 140, 255))  # the subject's left red, up green, to the front blue


@dataclass(frozen=True)
class Item:
    """One picture to look at.

    Attributes:
        id, source: of the sample.
        table: the one its camera is of: ``heads`` or ``camera``.
        quad: (4, 2) of the crop in the upright picture.
        camera: 25 values.
        angles: yaw, pitch, roll of the camera in degrees.
        reason: why the table rejected it; None when it was kept.
        scores: the doubts by table and column.
        doubt: in [0, 1]: the highest rank that one of its scores has among all pictures.
    """

    id: str
    source: str
    table: str
    quad: np.ndarray
    camera: list[float]
    angles: tuple[float, float, float]
    reason: str | None
    scores: dict[str, float] = field(default_factory=dict)
    doubt: float = 0.0

    def record(self, decision: Decision | None) -> dict[str, Any]:
        """As the page wants it."""
        said = vars(decision) if decision is not None else None
        scores = {name: round(value, 2) for name, value in self.scores.items()}
        return {
            "id": self.id, "source": self.source, "reason": self.reason, "doubt": round(self.doubt, 3),
            "scores": scores, "angles": [round(v, 1) for v in self.angles], "decision": said,
        }  # fmt: skip


def collect(root: Path, source: str | None = None) -> list[Item]:
    """All pictures with a camera, the most doubtful first.

    Raises:
        LineamentError: no such source, or nothing has been labelled yet.
    """
    folders = sorted(path for path in (root / LABELS).glob("*") if path.is_dir())
    if source is not None:
        folders = [path for path in folders if path.name == source]
        if not folders:
            raise LineamentError(f"{root / LABELS / source}: no such source has labels.")
    items = [item for folder in folders for item in _items(folder)]
    if not items:
        raise LineamentError(f"{root / LABELS}: no picture has a camera yet. Run `dvc repro` first.")
    ranks = _ranks([item.scores for item in items])
    ranked = [Item(**{**vars(item), "doubt": rank}) for item, rank in zip(items, ranks)]
    return sorted(ranked, key=lambda item: (-item.doubt, item.id))


def _items(folder: Path) -> list[Item]:
    scores: dict[str, dict[str, float]] = {}
    for table, columns in DOUBTS.items():
        path = folder / f"{table}.parquet"
        names = pq.read_schema(path).names if path.is_file() else []
        for column in (c for c in columns if c in names):
            rows = pq.read_table(path, columns=["id", column])
            for key, value in zip(rows.column("id").to_pylist(), rows.column(column).to_pylist()):
                if value is not None and np.isfinite(value):
                    scores.setdefault(key, {})[f"{table} {column.replace('_', ' ')}"] = float(value)
    found: dict[str, Item] = {}
    for table in ("heads", "camera"):
        for row in _cameras(folder, table):
            if row["id"] not in found:
                seen = angles(np.array(row["camera"][:16], np.float64).reshape(4, 4))
                quad = np.array(row["quad"], np.float64).reshape(4, 2)
                mine = scores.get(row["id"], {})
                found[row["id"]] = Item(row["id"], folder.name, table, quad, row["camera"], seen, row["reason"], mine)
    return list(found.values())


def _cameras(folder: Path, table: str) -> Iterable[dict[str, Any]]:
    path = folder / f"{table}.parquet"
    if not path.is_file():
        return
    names = pq.read_schema(path).names
    wanted = ["id", "camera", "reason"]
    quads: dict[str, Any] = {}
    if "quad" not in names:
        aligned = pq.read_table(folder / "align.parquet", columns=["id", "quad"])
        quads = dict(zip(aligned.column("id").to_pylist(), aligned.column("quad").to_pylist()))
    for row in pq.read_table(path, columns=[*wanted, *(["quad"] if "quad" in names else [])]).to_pylist():
        quad = row.get("quad") or quads.get(row["id"])
        if row["camera"] is not None and quad is not None:
            yield {**row, "quad": quad}


def _ranks(scores: list[dict[str, float]]) -> list[float]:
    """The highest rank in [0, 1] of each item's scores among all items with that score."""
    ranks = np.zeros(len(scores))
    for name in sorted({name for each in scores for name in each}):
        places = np.array([i for i, each in enumerate(scores) if name in each])
        values = np.array([scores[i][name] for i in places])
        below = np.searchsorted(np.sort(values), values) / max(1, len(values) - 1)
        ranks[places] = np.maximum(ranks[places], below)
    return ranks.tolist()


def draw(root: Path, item: Item, decision: Decision | None = None) -> np.ndarray:
    """The crop with its landmarks, its mask or parsing, and the head's axes as the camera sees them.

    Returns:
        (320, 320, 3) uint8.

    Raises:
        PictureError: the picture cannot be decoded.
    """
    picture = picture_of(item.id)
    row = next(iter(rows_of(root / RAW / item.source / TABLE, picture)), None)
    if row is None or row["shard"] is None:
        raise PictureError("gone", f"{item.id} is in no raw shard of {item.source}")
    shard = Shard(root / RAW / item.source / f"{row['shard']}.tar")
    crop = crop_quad(pictures.decode(shard.read(picture, shard.original_field(picture))), item.quad, SIDE)
    crop = _with_mask(crop, root / LABELS / item.source, item, f"{row['shard']}.tar")
    points = root / LABELS / item.source / "landmarks.parquet"
    for found in rows_of(points, item.id, ["id", "points"]) if points.is_file() else ():
        if found["points"] is not None:
            places = to_crop(np.array(found["points"]).reshape(-1, 3)[:, :2], item.quad)
            crop = draw_points(crop, places[::4] * SIDE)
    camera = turned(item.camera, decision) if decision is not None and decision.decision == "pose" else item.camera
    return _with_axes(crop, torch.as_tensor(camera, dtype=torch.float64))


def _with_mask(crop: np.ndarray, labels: Path, item: Item, shard: str) -> np.ndarray:
    folder = labels / ("parsing" if item.table == "heads" else "masks")
    if not (folder / shard).is_file() or item.id not in (tar := Shard(folder / shard)):
        return crop
    grey = pictures.decode_grey(tar.read(item.id, "png"))
    if folder.name == "parsing":
        classes = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
        return np.rint(0.65 * crop + 0.35 * coloured(classes)).astype(np.uint8)
    mask = (pictures.resize(grey, SIDE) > 127).astype(np.uint8)
    edges, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return cv2.drawContours(crop.copy(), edges, -1, (255, 200, 0), 1, cv2.LINE_AA)


def _with_axes(crop: np.ndarray, camera: torch.Tensor) -> np.ndarray:
    ends = torch.cat([torch.zeros(1, 3), AXIS * torch.eye(3)]).double()
    uv, _ = geometry.project(camera[None], ends[None])
    places = np.rint(uv[0].numpy() * SIDE).clip(-9999, 9999).astype(int)
    canvas = crop.copy()
    for place, colour in zip(places[1:], AXES):
        cv2.arrowedLine(canvas, tuple(places[0].tolist()), tuple(place.tolist()), colour, 2, cv2.LINE_AA, tipLength=0.2)
    return canvas
