"""Stage ``shards_clips``: frames of one face in motion with what was tracked of it, as training shards.

A sample is a run of frames of one shot, so that one read gives all of it: the members ``<clip>-NNNN.f0000.jpg``,
``.f0001.jpg`` … and ``<clip>-NNNN.json``, whose lists have an entry a frame. Only frames that were kept and whose fit
converged are there; ``frames`` has their numbers in the clip, so gaps are seen. The square is one for a whole shot: the
head moves in it, and the cameras say how.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from models import camera as geometry
from ops.crawl.raw import RawPicture
from ops.crawl.sources import load_sources
from ops.curate import takedown
from ops.curate.anonymise import AnonymiseParams
from ops.curate.sheets import contact_sheet
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.shardwork import Piece, digest, run_pieces
from ops.runtime.stage import Stage, stage
from ops.shards.crops import CODE, cut_square
from ops.store import pictures
from ops.store.clips import EXTENSIONS, decode_clip, frame_rate
from ops.store.inorder import InOrder
from ops.store.reader import ShardDataset
from ops.store.seen import Seen
from ops.store.tar import Shard, ShardWriter, TarWriter, shard_paths

SHOWN, STRIP = 4, 8  # samples of the preview, and frames of each
_TRACKED = ("camera", "expression", "pose", "residual")  # of every frame


class ClipShardsParams(Params):
    resolution: int = Field(512, ge=16, description="side of the crops in pixels")  # paper (d): VFHQ at 512
    per_shard: int = Field(16, ge=1, description="samples a shard")  # unpublished: our choice
    min_frames: int = Field(8, ge=1, description="of a sample; shorter runs are left out")  # unpublished: our choice
    max_frames: int = Field(256, ge=1, description="of a sample; longer shots make several")  # unpublished: our choice
    quality: int = Field(95, ge=1, le=100, description="of the JPEG crops")  # unpublished: our choice
    anonymise: AnonymiseParams = AnonymiseParams()


@stage("shards_clips", ClipShardsParams)
def main(s: Stage[ClipShardsParams], raw: Path, labels: Path, out: Path) -> None:
    """Cut each tracked face out of the clips of all declared sources; where there are none, the set is empty."""
    p, lost = s.params, Counter[str]()

    def pieces() -> Iterator[Piece]:
        taken, known = takedown.read(), Seen()
        for source in load_sources(s.params_file):
            yield from _pieces_of(source, raw / source, labels / source, p, taken, known, lost)

    code = [*CODE, "ops.store.clips"]
    parts = run_pieces(s, pieces(), partial(_cut_clip, p), code=code, suffix=".tar", unit="clip")
    count = frames = 0
    with publish(out, folder=True) as folder:
        with ShardWriter(folder, p.per_shard) as writer:
            for part in parts:
                for key, fields in Shard(part).samples():
                    writer.add(key, fields)
                    count, frames = count + 1, frames + len(fields) - 1
        summary = {
            "samples": count,
            "frames": frames,
            "resolution": p.resolution,
            "hash": ShardDataset(folder).hash if count else digest("no sample"),
        }
        (folder / "dataset.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    clips = len(parts) + lost.total()
    s.log(f"{count} runs of {frames} frames from {len(parts)} of {clips} clips" if clips else "no source has clips")
    reasons = dict(sorted(lost.items()))
    s.metrics({"in": clips, "kept": len(parts), "rejected": lost.total(), "reasons": reasons})
    s.metrics({"samples": count, "frames": frames})
    s.preview(_sheet(out, count))


def runs_of(rows: list[dict[str, Any]], params: ClipShardsParams) -> list[list[dict[str, Any]]]:
    """The usable frames of a clip in runs of one shot, none too short or too long."""
    good = [row for row in rows if row["kept"] and row["converged"]]
    runs = []
    for _, group in groupby(sorted(good, key=lambda row: (row["shot"], row["frame"])), key=lambda row: row["shot"]):
        shot = list(group)
        runs += [shot[start : start + params.max_frames] for start in range(0, len(shot), params.max_frames)]
    return [run for run in runs if len(run) >= params.min_frames]


def _pieces_of(
    source: str,
    raw: Path,
    labels: Path,
    params: ClipShardsParams,
    taken: takedown.Takedown,
    known: Seen,
    lost: Counter[str],
) -> Iterator[Piece]:
    """One piece a clip that has something to cut; of the others, why not."""
    frames = InOrder(labels / "clips.parquet", by="clip")
    for path in shard_paths(raw) if frames else ():
        shard = Shard(path)
        for key in shard.keys:
            name = next((field for field in shard.fields(key) if field in EXTENSIONS), None)
            if name is None:
                continue
            said = json.loads(shard.read(key, "json"))
            tracked = frames.take([key]).to_pylist()
            runs = runs_of(tracked, params)
            reason = taken.names(key, RawPicture(said.get("name", ""), None, said))
            reason = reason or ("in_another_source" if key in known else None)
            if reason is None and not runs:
                failed = Counter(row["reason"] for row in tracked if row["reason"])
                reason = failed.most_common(1)[0][0] if failed else "short_run"
            if reason is not None:
                lost[reason] += 1
                continue
            known.add(key)
            about = {"source": source, "licence": said.get("licence"), "person": said.get("identity")}
            yield Piece(f"{source}-{key}", digest(about, key, runs), (path, key, name, about, runs))
    frames.end()


def _cut_clip(params: ClipShardsParams, payload: tuple[Path, str, str, dict[str, Any], list[Any]], out: Path) -> None:
    path, key, name, about, runs = payload
    data = Shard(path).read(key, name)
    place = {row["frame"]: (number, row) for number, run in enumerate(runs) for row in run}
    crops: list[list[bytes]] = [[] for _ in runs]
    for frame, image in enumerate(decode_clip(data)):
        if frame in place:
            number, row = place[frame]
            crop = cut_square(image, {**row, "id": key}, params.resolution, params.anonymise)
            crops[number].append(pictures.encode_jpeg(crop, params.quality))
    with TarWriter(out) as writer:
        for number, (run, images) in enumerate(zip(runs, crops, strict=True)):
            if len(run) != len(images):
                raise LineamentError(f"{path}: clip {key} has fewer frames than its labels. Run track_clips again.")
            label = {
                **about,
                "clip": key,
                "shot": run[0]["shot"],
                "fps": frame_rate(data),
                "yaw": _yaw([row["camera"] for row in run]),
                "identity": run[0]["identity"],
                "frames": [row["frame"] for row in run],
                **{field: [row[field] for row in run] for field in _TRACKED},
            }
            fields = {f"f{index:04d}.jpg": image for index, image in enumerate(images)}
            fields["json"] = json.dumps(label, sort_keys=True).encode()
            writer.add(f"{key}-{number:04d}", fields)


def _yaw(cameras: list[list[float]]) -> float:
    """The middle azimuth of a run, degrees: it says where the run stands among views."""
    poses = geometry.unpack_label(torch.tensor(cameras, dtype=torch.float64))[0]
    return round(float(torch.rad2deg(geometry.spherical_angles(poses)[0].median())), 3)


def _sheet(folder: Path, count: int) -> np.ndarray:
    """Frames of some samples, a sample a row."""
    if not count:
        return contact_sheet([np.full((64, 64, 3), 250, np.uint8)], ["no clips"])
    data = ShardDataset(folder)
    images, captions = [], []
    for number in np.linspace(0, count - 1, min(SHOWN, count)).astype(int).tolist():
        fields = data.read(number)
        label = json.loads(fields["json"])
        for index in np.linspace(0, len(label["frames"]) - 1, STRIP).astype(int).tolist():
            images.append(pictures.decode(fields[f"f{index:04d}.jpg"]))
            captions.append(f"{label['frames'][index]}: {label['residual'][index]:.1f} %")
    return contact_sheet(images, captions, STRIP, tile=148)


if __name__ == "__main__":
    raise SystemExit(main())
