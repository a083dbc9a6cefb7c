"""Stage ``shards_heads``: heads from all sides with camera, mask, parsing and duplication, as training shards.

People whose number falls below a share are held out, in the folder ``held_out``: what decides is the hash of the
identity where the source knows it, and of the sample where it does not, so that a person never changes sides when
pictures are added.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
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
from ops.store.inorder import InOrder
from ops.store.parsing import coloured
from ops.store.reader import ShardDataset
from ops.store.tar import Shard, ShardWriter, TarWriter, shard_paths

HELD_OUT = "held_out"
SHOWN = 24
_LABELS = ("camera", "yaw", "pitch", "roll", "view", "method")


class HeadShardsParams(Params):
    resolution: int = Field(512, ge=16, description="side of the crops in pixels")  # SphereHead Sec. 5.1
    per_shard: int = Field(256, ge=1, description="samples a shard")  # unpublished: our choice
    quality: int = Field(95, ge=1, le=100, description="of the JPEG crops")  # unpublished: our choice
    held_out: float = Field(0.02, ge=0, lt=1, description="share of people kept out of training")  # our choice
    anonymise: AnonymiseParams = AnonymiseParams()
    min_samples: int = Field(1, ge=1, description="fewer for training are an error")  # unpublished: our choice


def is_held_out(identity: str | None, key: str, share: float) -> bool:
    """Whether a sample is kept out of training: by its person if known, else by its picture, and by nothing else."""
    name = f"person {identity}" if identity is not None else f"sample {tables.picture_of(key)}"
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return number < share * 2**64


@stage("shards_heads", HeadShardsParams)
def main(s: Stage[HeadShardsParams], raw: Path, labels: Path, balance: Path, out: Path) -> None:
    """Join crops, cameras, masks and parsings of heads from all sides into training shards."""
    p = s.params
    sources = {source: shard_paths(raw / source) for source in load_sources(s.params_file)}
    pieces = (piece for source, paths in sources.items() for piece in _pieces_of(source, paths, labels, balance))
    total = sum(map(len, sources.values()))
    parts = run_pieces(s, pieces, partial(_crop_shard, p), code=CODE, suffix=".tar", total=total)
    views: Counter[str] = Counter()
    kept_out = 0
    with publish(out, folder=True) as folder:
        with ShardWriter(folder, p.per_shard) as train, ShardWriter(folder / HELD_OUT, p.per_shard) as held_out:
            for part in parts:
                for key, fields in Shard(part).samples():
                    label = json.loads(fields["json"])
                    if is_held_out(label["identity"], key, p.held_out):
                        held_out.add(key, fields)
                        kept_out += 1
                    else:
                        train.add(key, fields)
                        views[label["view"]] += 1
        count = views.total()
        if count < p.min_samples:
            raise LineamentError(
                f"only {count} heads are left for training, where shards_heads.min_samples asks for {p.min_samples}. "
                "`lineament status` shows at which step the others fell."
            )
        summary = {
            "samples": count,
            "resolution": p.resolution,
            "hash": ShardDataset(folder).hash,
            "views": dict(sorted(views.items())),
            "held_out": {"samples": kept_out, "hash": ShardDataset(folder / HELD_OUT).hash if kept_out else None},
        }
        (folder / "dataset.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    s.metrics({"in": count + kept_out, "kept": count, "held_out": kept_out, "views": dict(sorted(views.items()))})
    s.preview(_sheet(out))


def _pieces_of(source: str, paths: list[Path], labels: Path, balance: Path) -> Iterator[Piece]:
    """One piece a raw shard: the rows to crop, with everything known of them."""
    balanced = InOrder(balance, ["source", "duplicates"], kept=True, only=("source", source))
    heads = InOrder(labels / source / "heads.parquet", ["quad", *_LABELS])
    for path in paths:
        shard, rows = Shard(path), []
        known = heads.rows(shard.keys)
        for key, row in balanced.rows(shard.keys).items():
            if key not in known:
                raise LineamentError(f"{labels / source}: has no head for {key}. Run the stages before this one again.")
            label = {name: known[key][name] for name in _LABELS}
            rows.append({"id": key, "quad": known[key]["quad"], "duplicates": row["duplicates"], **label})
        if rows:
            parsings = labels / source / "parsing" / path.name
            identity = digest(source, shard.sha256, Shard(parsings).sha256, rows)
            yield Piece(f"{source}-{path.stem}", identity, (source, path, parsings, rows))
    balanced.end()
    heads.end()


def _crop_shard(params: HeadShardsParams, payload: tuple[str, Path, Path, list[dict[str, Any]]], out: Path) -> None:
    source, path, parsings_path, rows = payload
    shard, parsings = Shard(path), Shard(parsings_path)
    size = params.resolution
    with TarWriter(out) as writer:
        for row in rows:
            key = row["id"]
            crop = cut_square(read_picture(shard, key), row, size, params.anonymise)
            mask = pictures.resize(pictures.decode_grey(parsings.read(key, "mask.png")), size)
            classes = pictures.decode_grey(parsings.read(key, "png"))
            classes = cv2.resize(classes, (size, size), interpolation=cv2.INTER_NEAREST)
            provenance = read_provenance(shard, key)
            label = {
                **{name: row[name] for name in (*_LABELS, "duplicates")},
                "source": source,
                "licence": provenance["licence"],
                "identity": provenance.get("identity"),
            }
            writer.add(
                key,
                {
                    "jpg": pictures.encode_jpeg(crop, params.quality),
                    "mask.png": pictures.encode_png(mask),
                    "parsing.png": pictures.encode_png(classes),
                    "json": json.dumps(label, sort_keys=True).encode(),
                },
            )


def _sheet(folder: Path) -> np.ndarray:
    """Some of the crops, evenly chosen from all shards and ordered by azimuth, each with its parsing."""
    data = ShardDataset(folder)
    chosen = [data.read(int(n)) for n in np.linspace(0, len(data) - 1, min(SHOWN, len(data))).astype(int)]
    images, captions = [], []
    for fields in sorted(chosen, key=lambda fields: json.loads(fields["json"])["yaw"]):
        label = json.loads(fields["json"])
        images += [pictures.decode(fields["jpg"]), coloured(pictures.decode_grey(fields["parsing.png"]))]
        captions += [f"{label['yaw']:+.0f} {label['view']}", f"x {label['duplicates']}"]
    return contact_sheet(images, captions)


if __name__ == "__main__":
    raise SystemExit(main())
