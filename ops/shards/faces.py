"""Stage ``shards_faces``: near-front face crops with their cameras and masks, as WebDataset training shards.

The join of everything that labelling found: for each sample that the last labelling step kept, the crop is cut from
the original bytes once more, at the training resolution. ``fit`` in its record holds the parametric face behind it, or
null where the fit found none that can be trusted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
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
from ops.store import pictures
from ops.store.inorder import InOrder
from ops.store.reader import ShardDataset
from ops.store.seen import Seen
from ops.store.tar import Shard, ShardWriter, TarWriter, shard_paths

SHOWN = 40
FIT = ("identity", "expression", "camera", "residual")  # of a fitted face, in the frame of its head
_CAMERA = ("camera", "yaw", "pitch", "roll")


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
    told: Counter[str] = Counter()
    lost = Counter(dict.fromkeys(("turned_too_far", "in_another_source"), 0))
    sources = {source: shard_paths(raw / source) for source in load_sources(s.params_file)}

    def pieces() -> Iterator[Piece]:
        taken = Seen()
        for source, paths in sources.items():
            yield from _pieces_of(source, paths, labels / source, s.params, taken, told, lost)

    total = sum(map(len, sources.values()))
    parts = run_pieces(s, pieces(), partial(_crop_shard, s.params), code=CODE, suffix=".tar", total=total)
    with publish(out, folder=True) as folder:
        with ShardWriter(folder, s.params.per_shard) as writer:
            for part in parts:
                for key, fields in Shard(part).samples():
                    writer.add(key, fields)
        count = told["kept"]
        if count < s.params.min_samples:
            raise LineamentError(
                f"only {count} faces are left, where shards_faces.min_samples asks for {s.params.min_samples}. "
                "`lineament status` shows at which step the others fell."
            )
        summary = {"samples": count, "resolution": s.params.resolution, "hash": ShardDataset(folder).hash}
        (folder / "dataset.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    s.metrics({"in": count + lost.total(), "kept": count, "fitted": told["fitted"]})
    s.metrics({"rejected": lost.total(), "reasons": dict(lost)})
    s.preview(_sheet(out))


def _pieces_of(
    source: str,
    paths: list[Path],
    labels: Path,
    params: FaceShardsParams,
    taken: Seen,
    told: Counter[str],
    lost: Counter[str],
) -> Iterator[Piece]:
    """One piece a raw shard: the rows to crop, with everything known of them."""
    final = InOrder(labels / "segment.parquet", [], kept=True)
    quads = InOrder(labels / "align.parquet", ["quad"])
    cameras = InOrder(labels / "camera.parquet", _CAMERA)
    labelled = (final, quads, cameras, fits_of(labels))
    for path in paths:
        shard, rows = Shard(path), []
        found, squares, views, faces = (table.rows(shard.keys) if table else {} for table in labelled)
        for key in found:
            label = views[key]
            if abs(label["yaw"]) > params.max_yaw:
                lost["turned_too_far"] += 1
                continue
            if key in taken:
                lost["in_another_source"] += 1
                continue
            taken.add(key)
            fit = {name: faces[key][name] for name in FIT} if key in faces else None
            rows.append({"id": key, "quad": squares[key]["quad"], "fit": fit, **{k: label[k] for k in _CAMERA}})
        masks = labels / "masks" / path.name
        if rows:
            told.update(kept=len(rows), fitted=sum(row["fit"] is not None for row in rows))
            identity = digest(source, shard.sha256, Shard(masks).sha256, rows)
            yield Piece(f"{source}-{path.stem}", identity, (source, path, masks, rows))
    for table in labelled:
        if table:
            table.end()


def fits_of(labels: Path) -> InOrder | None:
    """The fitted faces of a source that were kept; None where the source has no table of fits."""
    path = labels / "fit_face.parquet"
    return InOrder(path, FIT, kept=True) if path.is_file() else None


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
