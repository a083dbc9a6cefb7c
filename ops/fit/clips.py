"""Stage ``track_clips``: the face in each frame of each clip, one identity a shot, smooth in expression and motion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field

from ops.curate.camera import CROP_FOCAL, solve_camera
from ops.curate.crop import crop_quad, to_crop
from ops.curate.detect import DetectParams
from ops.curate.sheets import contact_sheet
from ops.fit.face import CODE_MODULES, FIELDS, FitParams, columns_of, why_not
from ops.fit.footage import Frame, shots, square, watch
from ops.fit.overlay import overlay
from ops.fit.reading import reading
from ops.fit.sequence import Smoothness, fit_shot
from ops.fit.solver import fit
from ops.fit.target import target
from ops.runtime.errors import PictureError
from ops.runtime.shardwork import Piece, digest, run_pieces
from ops.runtime.stage import Stage, stage
from ops.store import tables
from ops.store.clips import EXTENSIONS, decode_clip, frame_rate
from ops.store.tar import Shard, file_sha256, shard_paths

SCHEMA = tables.schema(
    pa.field("clip", pa.string()),
    *(pa.field(name, pa.int32()) for name in ("frame", "shot", "faces")),
    *(pa.field(name, pa.float32()) for name in ("time", "score")),
    *(pa.field(name, pa.list_(pa.float32())) for name in ("points", "quad")),
    *FIELDS,
)
EMPTY: dict[str, Any] = dict.fromkeys(SCHEMA.names)
RATE = 25.0  # frames a second that the smoothness is given for
SHOWN, STRIP = 4, 8  # clips of the preview, and frames of each


class TrackClipsParams(FitParams):
    """How clips are watched and smoothed; all unpublished: our choice."""

    detect: DetectParams = DetectParams.model_validate({})
    min_score: float = Field(0.5, ge=0, le=1, description="of a frame's landmarks")
    cut: float = Field(0.12, gt=0, description="mean change of the thumbnail, of the range, that is a cut")
    max_gap: int = Field(12, ge=0, description="frames without a face that a shot may bridge")
    min_frames: int = Field(8, ge=1, description="of a shot; shorter ones are not kept")
    change_expression: float = Field(0.06, gt=0, description="standard deviation of a unit's change in 1/25 s")
    change_rotation: float = Field(0.025, gt=0, description="radians in 1/25 s")
    change_translation: float = Field(0.02, gt=0, description="world units in 1/25 s")
    alike: float = Field(0.3, ge=0, le=1, description="correlation of the landmark errors of two frames")

    @property
    def smoothness(self) -> Smoothness:
        """As the solver wants it."""
        return Smoothness(self.change_expression, self.change_rotation, self.change_translation, self.alike)


def track(data: bytes, clip: str, params: TrackClipsParams, weights: Path) -> list[dict[str, Any]]:
    """A row a frame; of a file that is no clip, one row that says so."""
    try:
        rate = frame_rate(data)
        frames = list(watch(decode_clip(data), weights, params.detect, params.min_score, params.cut))
    except PictureError as error:
        return [{**EMPTY, "id": clip, "clip": clip, "kept": False, "reason": error.reason}]
    rows: dict[int, dict[str, Any]] = {}
    for frame in frames:
        rows[frame.number] = {
            **EMPTY,
            "id": f"{clip}-{frame.number:06d}",
            "clip": clip,
            "frame": frame.number,
            "time": frame.number / rate,
            "faces": frame.faces,
            "score": frame.score,
            "points": None if frame.points is None else frame.points.ravel().tolist(),
            "kept": False,
            "reason": frame.reason,
        }
    for number, shot in enumerate(shots(frames, params.max_gap)):
        quad = square(shot)
        short = len(shot) < params.min_frames
        for frame, columns in zip(shot, fit_frames(shot, quad, rate, params), strict=True):
            reason = "short_shot" if short else why_not(columns, params)
            found = {**columns, "quad": quad.ravel().tolist(), "shot": number, "kept": reason is None, "reason": reason}
            rows[frame.number].update(found)
    return list(rows.values())


def fit_frames(shot: Sequence[Frame], quad: np.ndarray, rate: float, params: TrackClipsParams) -> list[dict[str, Any]]:
    """The columns of each frame of a shot."""
    goal = target()
    observed, motions = [], []
    for frame in shot:
        assert frame.points is not None
        points = to_crop(frame.points[:, :2].astype(np.float64), quad)
        observed.append(points)
        motions.append(np.linalg.inv(solve_camera(points)[0]))
    seen = torch.from_numpy(np.stack(observed))
    start = torch.from_numpy(np.stack(motions))
    weights = goal.weights.expand(len(shot), -1)
    prior = reading().prior(np.stack([frame.points for frame in shot if frame.points is not None]))
    alone = fit(
        goal.face,
        seen,
        start[:, :3, :3],
        start[:, :3, 3],
        CROP_FOCAL,
        params.terms,
        weights=weights,
        prior=prior,
        rounds=1,
    )
    gaps = torch.tensor(np.diff([frame.number for frame in shot]) * RATE / rate)
    together = fit_shot(
        goal.face,
        seen,
        alone.state,
        gaps,
        CROP_FOCAL,
        params.terms,
        params.smoothness,
        weights=weights,
        prior=prior,
        max_steps=params.max_steps,
    )
    return columns_of(together, CROP_FOCAL)


def clips_in(shard: Shard) -> Iterator[tuple[str, str]]:
    """Key and field of each clip of a raw shard."""
    for key in shard.keys:
        for name in shard.fields(key):
            if name in EXTENSIONS:
                yield key, name


def _track_clip(weights: Path, payload: tuple[Path, str, str, TrackClipsParams], out: Path) -> None:
    path, key, name, params = payload
    rows = track(Shard(path).read(key, name), key, params, weights)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), out)


@stage("track_clips", TrackClipsParams)
def main(s: Stage[TrackClipsParams], raw: Path, weights: Path, out: Path) -> None:
    """Follow the face through each clip: one identity a shot, smooth expression and motion."""
    networks = sorted(file_sha256(path) for path in weights.iterdir())
    pieces = [
        Piece(key, digest(key, networks), (path, key, name, s.params))
        for path in shard_paths(raw)
        for key, name in clips_in(Shard(path))
    ]
    code = ["ops.fit.face", "ops.fit.footage", "ops.fit.sequence", "ops.curate.align", "ops.store.clips", *CODE_MODULES]
    parts = run_pieces(s, pieces, partial(_track_clip, weights), code=code, suffix=".parquet", unit="clip")
    table = pa.concat_tables([SCHEMA.empty_table(), *(pq.read_table(part, schema=SCHEMA) for part in parts)])
    tables.write(out, table, s.name)
    counts = tables.counts(table)
    s.log(
        f"{len(pieces)} clips; {counts['kept']} of {counts['in']} frames kept; {counts['reasons'] or 'none rejected'}"
    )
    s.metrics({**counts, "clips": len(pieces)})
    kept = tables.kept(table)
    if len(kept):
        s.metrics({"median_residual": round(float(np.median(kept.column("residual").to_numpy())), 3)})
    s.preview(_sheet([piece.payload for piece in pieces][:SHOWN], table))


def _sheet(clips: Sequence[tuple[Path, str, str, TrackClipsParams]], table: pa.Table) -> np.ndarray:
    """Frames of some clips, the fitted head over them; where there is none, the reason."""
    images, captions = [], []
    rows = {row["id"]: row for row in table.to_pylist()}
    for path, key, name, _ in clips:
        known = [row for row in rows.values() if row["clip"] == key]
        wanted = {known[i]["frame"] for i in np.linspace(0, len(known) - 1, STRIP).astype(int)}
        try:
            frames = [image for n, image in enumerate(decode_clip(Shard(path).read(key, name))) if n in wanted]
        except PictureError:
            frames = []
        found = [rows[f"{key}-{n:06d}"] for n in sorted(wanted - {None})]
        strip = [(draw(image, row), row["reason"] or f"{row['residual']:.1f} %") for image, row in zip(frames, found)]
        blank = np.full((64, 64, 3), 160, np.uint8)
        strip += [(blank, known[0]["reason"] or "")] * (STRIP - len(strip))
        images += [image for image, _ in strip]
        captions += [caption for _, caption in strip]
    return contact_sheet(images or [np.full((64, 64, 3), 250, np.uint8)], captions or ["no clips"], STRIP, tile=148)


def draw(image: np.ndarray, row: dict[str, Any], size: int = 160) -> np.ndarray:
    """A frame's square with the fitted head over it; the whole frame where none was fitted."""
    if row["quad"] is None:
        return cv2.resize(image, (size, round(size * image.shape[0] / image.shape[1])), interpolation=cv2.INTER_AREA)
    crop = crop_quad(image, np.array(row["quad"], np.float64).reshape(4, 2), size)
    return overlay(crop, target().model, row["identity"], row["expression"], row["camera"])


if __name__ == "__main__":
    raise SystemExit(main())
