"""Stage ``screen``: which raw pictures can be used at all: decodable, large, sharp, and seen once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from ops.crawl.raw import TABLE as CRAWLED
from ops.curate import review, takedown
from ops.curate.duplicates import originals, perceptual_hash
from ops.curate.labelling import Sample, finish, keep, label_shards, reject
from ops.runtime.errors import PictureError
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store import clips, tables

SCHEMA = tables.schema(
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("format", pa.string()),
    pa.field("svd_ratio", pa.float32()),
    pa.field("laplacian", pa.float32()),
    pa.field("phash", pa.uint64()),
    pa.field("duplicate_of", pa.string()),
)
LARGEST = 10  # SphereHead App. 0.B: the ten largest singular values


class ScreenParams(Params):
    min_side: int = Field(512, ge=1, description="shorter side in pixels")  # SphereHead App. 0.B
    max_svd_ratio: float = Field(0.75, description="share of the 10 largest singular values")  # SphereHead App. 0.B
    min_laplacian: float = Field(50.0, description="variance of the Laplacian")  # WildHead.DatProc
    svd_side: int = Field(
        512, ge=32, description="larger pictures are shrunk for the blur measures"
    )  # WildHead.DatProc
    duplicate_bits: int = Field(
        4, ge=0, le=16, description="pHashes that differ less repeat"
    )  # unpublished: our choice


def svd_ratio(grey: np.ndarray) -> float:
    """Share of the ten largest singular values in the sum of all: near 1 for a blurred picture.

    The singular values are the roots of the eigenvalues of the smaller Gram matrix, which takes a quarter of the time
    of a singular value decomposition; in double precision they agree to 1e-6.

    Args:
        grey: (H, W) uint8.
    """
    matrix = grey.astype(np.float64)
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    values = np.linalg.eigvalsh(matrix @ matrix.T)
    singular = np.sqrt(np.maximum(values, 0))
    total = singular.sum()
    return float(singular[-LARGEST:].sum() / total) if total > 0 else 1.0


def measure(image: np.ndarray, side: int) -> dict[str, float | int]:
    """Blur measures and the perceptual hash of a picture.

    Args:
        image: (H, W, 3) uint8 RGB.
        side: larger pictures are shrunk to this longer side first.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = side / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return {
        "svd_ratio": svd_ratio(grey),
        "laplacian": float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        "phash": perceptual_hash(grey),
    }


def screen(samples: Iterator[Sample], params: ScreenParams) -> Iterable[dict[str, object]]:
    """Look at each picture by itself."""
    for sample in samples:
        if sample.extension in clips.EXTENSIONS:
            yield reject(sample, "clip", format=sample.extension)  # track_clips labels those
            continue
        try:
            image = sample.decode()
        except PictureError as error:
            yield reject(sample, error.reason, format=sample.extension)
            continue
        height, width = image.shape[:2]
        columns = {"width": width, "height": height, "format": sample.extension}
        if min(width, height) < params.min_side:
            yield reject(sample, "too_small", **columns)
            continue
        measures = measure(image, params.svd_side)
        blurred = measures["svd_ratio"] > params.max_svd_ratio or measures["laplacian"] < params.min_laplacian
        yield reject(sample, "blurred", **columns, **measures) if blurred else keep(sample, **columns, **measures)


def mark_duplicates(parts: Iterable[pa.Table], bits: int) -> Iterator[pa.Table]:
    """Reject kept pictures that repeat another one of any part: the largest stays; of equal ones, the first.

    Args:
        parts: tables of SCHEMA, gone through three times, so no iterator; of a picture some dozen bytes stay in memory.
        bits: perceptual hashes that differ in no more are alike.
    """
    none = (np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int64))
    found, count = [none], 0
    for part in parts:
        places = np.flatnonzero(part.column("kept").to_numpy())
        columns = part.select(["width", "height", "phash"]).take(pa.array(places))
        width, height, hashes = (column.to_numpy() for column in columns.columns)
        found.append((places + count, hashes.astype(np.uint64), width.astype(np.int64) * height))
        count += len(part)
    places, hashes, areas = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.argsort(-areas, kind="stable")
    repeats = originals(hashes[order], bits)
    again = np.flatnonzero(repeats >= 0)
    of = np.stack([places[order[again]], places[order[repeats[again]]]])  # a repetition, and what it repeats
    of = of[:, np.argsort(of[0])]
    wanted, which = np.unique(of[1], return_inverse=True)
    names, first = [pa.array([], pa.string())], 0
    for part in parts:
        inside = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, first + len(part))]
        names.append(part.column("id").take(pa.array(inside - first)).combine_chunks())
        first += len(part)
    ids = pa.concat_arrays(names)
    first = 0
    for part in parts:
        low, high = np.searchsorted(of[0], (first, first + len(part)))
        falls = np.zeros(len(part), bool)
        falls[of[0, low:high] - first] = True
        number = np.full(len(part), -1)
        number[falls] = which[low:high]
        column = ids.take(pa.array(number, mask=~falls))
        part = part.set_column(part.schema.get_field_index("duplicate_of"), SCHEMA.field("duplicate_of"), column)
        yield tables.reject(part, falls, "near_duplicate")
        first += len(part)


@stage("screen", ScreenParams)
def main(s: Stage[ScreenParams], raw: Path, out: Path) -> None:
    """Say which raw pictures can be used: decodable, large, sharp, and seen once."""
    labelled = label_shards(s, raw, None, screen, SCHEMA, code=["ops.store.pictures", "ops.curate.duplicates"])
    bits = s.params.duplicate_bits
    decisions = review.read()
    labelled = labelled.map(takedown.marker(labelled, takedown.read(), raw / CRAWLED, bits))
    labelled = labelled.map(lambda part: review.reject(part, decisions))
    finish(
        s,
        mark_duplicates(labelled, bits),
        raw,
        out,
        lambda image, row: image,
        lambda row: f"{row['width']}x{row['height']}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
