"""The ``studio`` source: rendered people, with the ground truth put where no labelling step looks."""

from __future__ import annotations

import itertools
import json
import shutil
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
from ops.store.seen import Seen
from ops.store.spool import Spool
from ops.store.tar import Shard, ShardWriter, TarWriter
from ops.studio.crawl import StudioPicture, picture_count, render_pictures
from ops.studio.params import StudioParams

PART = 2_048  # rows of truth, some kilobytes each, that are put down at a time
PER_PIECE = 48  # pictures rendered at a time by one process
PER_PIECE_WHOLE = 6  # full bodies at a time
DEPTH_UNIT = 1e-4  # world units a step of the 16-bit depth pictures; 0 is background


def code() -> list[str]:
    """The modules that the studio's pictures depend on."""
    return [f"ops.studio.{path.stem}" for path in sorted(Path(__file__).parent.parent.glob("studio/*.py"))]


def pictures(s: Stage[Any], source: StudioSource) -> Iterator[RawPicture]:
    """Every picture of the studio, rendered in parallel and handed on in order.

    Rendered pieces are kept in the work area until the source's parameters or the studio's code change.
    """
    settings = source.studio.model_dump(mode="json")
    pieces = [
        Piece(f"{first:07d}", digest(first, settings), (source.studio, first, last))
        for first, last in _ranges(source.studio)
    ]
    for path in run_pieces(s, pieces, partial(_render), code=code(), suffix=".tar", unit="piece"):
        for key, fields in Shard(path).samples():
            provenance = {**json.loads(fields["provenance.json"]), "licence": source.licence}
            truth = {field: data for field, data in fields.items() if field.startswith("truth.")}
            yield RawPicture(key, fields["picture"], provenance, truth=truth)


def _ranges(params: StudioParams) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) number of each piece: some dozens of pictures, one clip, or some full bodies."""
    total = picture_count(params)
    whole = total - params.full_body
    still = whole - params.clips
    for start, stop, step in ((0, still, PER_PIECE), (still, whole, 1), (whole, total, PER_PIECE_WHOLE)):
        for first in range(start, stop, step):
            yield first, min(first + step, stop)


def _render(payload: tuple[StudioParams, int, int], out: Path) -> None:
    params, first, last = payload
    with TarWriter(out) as writer:
        for picture in render_pictures(params, range(first, last)):
            writer.add(picture.name.replace(".", "_"), _fields(picture))


def _fields(picture: StudioPicture) -> dict[str, bytes]:
    """A rendered picture as the fields of a sample: its bytes, provenance, and truth as JSON and pictures."""
    images: dict[str, bytes] = {}
    numbers: dict[str, Any] = {}
    for name, value in picture.truth.items():
        if name == "depth" and value is not None:
            steps = np.where(np.isfinite(value), value / DEPTH_UNIT, 0)
            images["truth.depth.png"] = encode_png(np.clip(steps, 0, 65535).astype(np.uint16))
        elif name == "uv" and value is not None:
            steps = np.where(np.isfinite(value), 1 + np.clip(value, 0, 1) * 65534, 0).round().astype(np.uint16)
            images["truth.uv.png"] = encode_png(np.dstack([steps, np.zeros_like(steps[..., :1])]))
        elif isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 2:
            images[f"truth.{name}.png"] = encode_png(value)
        else:
            numbers[name] = value
    frames = numbers.pop("frames", None)
    if frames is not None:
        images["truth.frames.json"] = _json(frames)
    return {
        "picture": picture.data,
        "provenance.json": _json({"name": picture.name, **picture.provenance}),
        "truth.json": _json(numbers),
        **images,
    }


def _json(values: Any) -> bytes:
    """JSON of plain values and arrays, which become flat lists."""
    return json.dumps(values, sort_keys=True, default=lambda array: array.ravel().tolist()).encode()


def write_truth(pictures: Iterable[RawPicture], folder: Path, per_shard: int) -> Iterator[RawPicture]:
    """Pass the pictures on, and write what is known of them to ``folder``.

    ``truth.parquet`` has a row a picture or clip, ``clips.parquet`` a row for each frame of each clip (id, identity,
    frame and the columns of ops.studio.truth.NUMBERS, lists flat), the tars hold masks, parsing, depth (16 bits, steps
    of DEPTH_UNIT) and, where asked for, uv (16 bits: 0 for none, then 0 to 1 from 1 to 65535). Sources without truth
    leave empty tables, so that they are always there.
    """
    seen = Seen()
    with publish(folder, folder=True) as temporary:
        rows, frames = (Spool(temporary / name, size=PART) for name in (".rows", ".frames"))
        with ShardWriter(temporary, per_shard) as writer:
            for picture in pictures:
                yield picture
                if picture.truth is None or picture.data is None:
                    continue
                key = sample_id(picture.data)
                if key in seen:
                    continue
                seen.add(key)
                row = {"id": key, "name": picture.name, **json.loads(picture.truth["truth.json"])}
                rows.add(row)
                for number, frame in enumerate(json.loads(picture.truth.get("truth.frames.json", b"[]"))):
                    frames.add({"id": key, "identity": row["identity"], "frame": number, **frame})
                images = {f.removeprefix("truth."): d for f, d in picture.truth.items() if f.endswith(".png")}
                if images:
                    writer.add(key, images)
        for name, spool in (("truth", rows), ("clips", frames)):
            parts = spool.tables()
            first = next(parts, pa.table({"id": pa.array([], pa.string())}))
            with pq.ParquetWriter(temporary / f"{name}.parquet", _single(first).schema, compression="zstd") as out:
                for part in itertools.chain([first], parts):
                    out.write_table(_single(part))
        for name in (".rows", ".frames"):
            shutil.rmtree(temporary / name)


def _single(table: pa.Table) -> pa.Table:
    """The table with lists in single precision, which is what the studio computes in."""
    doubles = pa.list_(pa.float64())
    fields = [field.with_type(pa.list_(pa.float32())) if field.type == doubles else field for field in table.schema]
    return table.cast(pa.schema(fields))
