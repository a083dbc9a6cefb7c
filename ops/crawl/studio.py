"""The ``studio`` source: rendered people, with the ground truth put where no labelling step looks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ops.crawl.raw import RawPicture, sample_id
from ops.crawl.sources import StudioSource
from ops.runtime.publish import publish
from ops.runtime.shardwork import Piece, digest, run_pieces
from ops.runtime.stage import Stage
from ops.store.pictures import encode_png
from ops.store.tar import Shard, ShardWriter, TarWriter
from ops.studio.crawl import StudioPicture, picture_count, render_pictures
from ops.studio.params import StudioParams

PER_PIECE = 48  # pictures rendered at a time by one process
DEPTH_UNIT = 1e-4  # world units a step of the 16-bit depth pictures; 0 is background


def code() -> list[str]:
    """The modules that the studio's pictures depend on."""
    return [f"ops.studio.{path.stem}" for path in sorted(Path(__file__).parent.parent.glob("studio/*.py"))]


def pictures(s: Stage[Any], source: StudioSource) -> Iterator[RawPicture]:
    """Every picture of the studio, rendered in parallel and handed on in order.

    Rendered pieces are kept in the work area until the source's parameters or the studio's code change.
    """
    total = picture_count(source.studio)
    pieces = [
        Piece(f"{first:07d}", digest(first, source.studio.model_dump(mode="json")), (source.studio, first, total))
        for first in range(0, total, PER_PIECE)
    ]
    for path in run_pieces(s, pieces, partial(_render), code=code(), suffix=".tar", unit="piece"):
        for key, fields in Shard(path).samples():
            provenance = {**json.loads(fields["provenance.json"]), "licence": source.licence}
            truth = {field: data for field, data in fields.items() if field.startswith("truth.")}
            yield RawPicture(key, fields["picture"], provenance, truth=truth)


def _render(payload: tuple[StudioParams, int, int], out: Path) -> None:
    params, first, total = payload
    with TarWriter(out) as writer:
        for picture in render_pictures(params, range(first, min(first + PER_PIECE, total))):
            writer.add(picture.name.replace(".", "_"), _fields(picture))


def _fields(picture: StudioPicture) -> dict[str, bytes]:
    """A rendered picture as the fields of a sample: its bytes, provenance, and truth as JSON and pictures."""
    values: dict[str, Any] = {}
    images: dict[str, bytes] = {}
    for name, value in picture.truth.items():
        if not isinstance(value, np.ndarray):
            values[name] = value
        elif value.dtype == np.uint8 and value.ndim == 2:
            images[f"truth.{name}.png"] = encode_png(value)
        elif name == "depth":
            steps = np.where(np.isfinite(value), value / DEPTH_UNIT, 0)
            images["truth.depth.png"] = encode_png(np.clip(steps, 0, 65535).astype(np.uint16))
        else:
            values[name] = value.astype(float).ravel().tolist()
    return {
        "picture": picture.data,
        "provenance.json": json.dumps({"name": picture.name, **picture.provenance}, sort_keys=True).encode(),
        "truth.json": json.dumps(values, sort_keys=True).encode(),
        **images,
    }


def write_truth(pictures: Iterable[RawPicture], folder: Path, per_shard: int) -> Iterator[RawPicture]:
    """Pass the pictures on, and write what is known of them to ``folder`` (truth.parquet and picture tars).

    Sources without truth leave an empty table, so that the folder is always there.
    """
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    with publish(folder, folder=True) as temporary:
        with ShardWriter(temporary, per_shard) as writer:
            for picture in pictures:
                yield picture
                if picture.truth is None or picture.data is None:
                    continue
                key = sample_id(picture.data)
                if key in seen:
                    continue
                seen.add(key)
                rows.append({"id": key, "name": picture.name, **json.loads(picture.truth["truth.json"])})
                images = {f.removeprefix("truth."): d for f, d in picture.truth.items() if f.endswith(".png")}
                if images:
                    writer.add(key, images)
        table = pa.Table.from_pylist(rows) if rows else pa.table({"id": pa.array([], pa.string())})
        pq.write_table(table, temporary / "truth.parquet", compression="zstd")
