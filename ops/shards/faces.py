"""Stage ``shards_faces``: near-front face crops with their cameras and masks, as WebDataset training shards.

The join of everything that labelling found: for each sample that the last labelling step kept, the crop is cut from
the original bytes once more, at the training resolution. ``fit`` in its record holds the parametric face behind it, or
null where the fit found none that can be trusted.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ops.crawl.sources import load_sources
from ops.curate.anonymise import AnonymiseParams
from ops.curate.sheets import contact_sheet
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.shardwork import Piece, digest, run_pieces
from ops.runtime.stage import Stage, stage
from ops.shards.crops import CODE, cut_square, read_picture, read_provenance
from ops.store import pictures, tables
from ops.store.reader import ShardDataset
from ops.store.tar import Shard, ShardWriter, TarWriter, shard_paths

SHOWN = 40
FIT = ("identity", "expression", "camera", "residual")  # of a fitted face, in the frame of its head


class FaceShardsParams(Params):
    resolution: int = Field(256, ge=16, description="side of the crops in pixels")  # paper (a) Sec. 4: CelebA-HQ 256
    per_shard: int = Field(256, ge=1, description="samples a shard")  # unpublished: our choice
    quality: int = Field(95, ge=1, le=100, description="of the JPEG crops")  # unpublished: our choice
    max_yaw: float = Field(90.0, description="degrees; faces turned further are left out")  # SphereHead App. 0.B
    anonymise: AnonymiseParams = AnonymiseParams()
    min_samples: int = Field(1, ge=1, description="fewer are an error")  # unpublished: our choice


@stage("shards_faces", FaceShardsParams)
def main(s: Stage[FaceShardsParams], raw: Path, labels: Path, out: Path) -> None:
    """Join crops, cameras and masks of all declared sources into training shards."""
    taken: set[str] = set()
    pieces: list[Piece] = []
    lost: dict[str, int] = {"turned_too_far": 0, "in_another_source": 0}
    for source in load_sources(s.params_file):
        pieces += _pieces_of(source, raw / source, labels / source, s.params, taken, lost)
    parts = run_pieces(s, pieces, partial(_crop_shard, s.params), code=CODE, suffix=".tar")
    with publish(out, folder=True) as folder:
        with ShardWriter(folder, s.params.per_shard) as writer:
            for part in parts:
                for key, fields in Shard(part).samples():
                    writer.add(key, fields)
        count = len(taken)
        if count < s.params.min_samples:
            raise LineamentError(
                f"only {count} faces are left, where shards_faces.min_samples asks for {s.params.min_samples}. "
                "`lineament status` shows at which step the others fell."
            )
        summary = {"samples": count, "resolution": s.params.resolution, "hash": ShardDataset(folder).hash}
        (folder / "dataset.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    s.metrics(
        {
            "in": count + sum(lost.values()),
            "kept": count,
            "fitted": sum(row["fit"] is not None for piece in pieces for row in piece.payload[3]),
            "rejected": sum(lost.values()),
            "reasons": lost,
        }
    )
    s.preview(_sheet(out))


def _pieces_of(
    source: str, raw: Path, labels: Path, params: FaceShardsParams, taken: set[str], lost: dict[str, int]
) -> list[Piece]:
    """One piece a raw shard: the rows to crop, with everything known of them."""
    final = {row["id"]: row for row in tables.kept(tables.read(labels / "segment.parquet")).to_pylist()}
    quads = {row["id"]: row["quad"] for row in tables.read(labels / "align.parquet").to_pylist()}
    cameras = {row["id"]: row for row in tables.read(labels / "camera.parquet").to_pylist()}
    fits = fits_of(labels)
    samples = tables.by_picture(final)
    pieces = []
    for path in shard_paths(raw):
        shard = Shard(path)
        rows = []
        for key in (key for picture in shard.keys for key in samples.get(picture, ())):
            if abs(cameras[key]["yaw"]) > params.max_yaw:
                lost["turned_too_far"] += 1
                continue
            if key in taken:
                lost["in_another_source"] += 1
                continue
            taken.add(key)
            label = cameras[key]
            found = {k: label[k] for k in ("camera", "yaw", "pitch", "roll")}
            rows.append({"id": key, "quad": quads[key], "fit": fits.get(key), **found})
        masks = labels / "masks" / path.name
        if rows:
            identity = digest(source, shard.sha256, Shard(masks).sha256, rows)
            pieces.append(Piece(f"{source}-{path.stem}", identity, (source, path, masks, rows)))
    return pieces


def fits_of(labels: Path) -> dict[str, dict[str, Any]]:
    """The fitted faces of a source that were kept, by sample; none where the source has no table of fits."""
    path = labels / "fit_face.parquet"
    if not path.is_file():
        return {}
    return {row["id"]: {k: row[k] for k in FIT} for row in tables.kept(tables.read(path)).to_pylist()}


def _crop_shard(params: FaceShardsParams, payload: tuple[str, Path, Path, list[dict[str, Any]]], out: Path) -> None:
    source, path, masks_path, rows = payload
    shard, masks = Shard(path), Shard(masks_path)
    size = params.resolution
    with TarWriter(out) as writer:
        for row in rows:
            key = row["id"]
            crop = cut_square(read_picture(shard, key), row, size, params.anonymise)
            mask = pictures.resize(pictures.decode_grey(masks.read(key, "png")), size)
            provenance = read_provenance(shard, key)
            label = {
                "camera": row["camera"],
                "yaw": row["yaw"],
                "pitch": row["pitch"],
                "roll": row["roll"],
                "fit": row["fit"],
                "source": source,
                "licence": provenance["licence"],
                "duplicates": 1,
            }
            writer.add(
                key,
                {
                    "jpg": pictures.encode_jpeg(crop, params.quality),
                    "mask.png": pictures.encode_png(mask),
                    "json": json.dumps(label, sort_keys=True).encode(),
                },
            )


def _sheet(folder: Path) -> np.ndarray:
    """Some of the crops, evenly chosen from all shards, with their yaw."""
    data = ShardDataset(folder)
    images, captions = [], []
    for number in np.linspace(0, len(data) - 1, min(SHOWN, len(data))).astype(int):
        fields = data.read(int(number))
        images.append(pictures.decode(fields["jpg"]))
        captions.append(f"{json.loads(fields['json'])['yaw']:+.0f}")
    return contact_sheet(images, captions)


if __name__ == "__main__":
    raise SystemExit(main())
