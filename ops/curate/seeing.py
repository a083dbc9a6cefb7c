"""What the network of ``train_headpose`` sees of the heads of a shard: the part of the stage ``heads`` that looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ops.curate.crop import square_quad
from ops.curate.labelling import Sample, keep, reject
from ops.perception.headpose import Head, look_together
from ops.perception.trained import headpose
from ops.perception.yolo import head_boxes, square_of_box
from ops.runtime.weights import require
from ops.store.tables import head_id, picture_of

if TYPE_CHECKING:
    from ops.curate.heads import HeadsParams

FACE_TO_WINDOW = 2.5  # BlazeFace's box holds the face alone; unpublished: our choice
TOGETHER = 16  # heads that are looked at together: faster than one by one
MOST_PIXELS = 2**25  # of the pictures in memory at once, some 100 MB


@dataclass(frozen=True)
class _Asked:
    """A head to look at: its picture, the window of the first look, how many heads count, and whether there is any."""

    sample: Sample
    image: np.ndarray
    start: np.ndarray | None
    heads: int
    there: bool = True


def heads_of(samples: Iterator[Sample], params: HeadsParams, network: Path) -> Iterable[dict[str, Any]]:
    """One row a head, as the network sees it: those of the stage ``detect``, or all that the user's boxes are about."""
    for some in _together(_asked(samples, params)):
        there = [(one.image, one.start) for one in some if one.there]
        found = iter(look_together(there, headpose(network)) if there else [])
        for one in some:
            if one.there:
                yield _row(one, next(found), params)
            else:
                yield reject(one.sample, "no_head", faces=one.heads)


def _together(asked: Iterable[_Asked]) -> Iterator[list[_Asked]]:
    """Groups of at most TOGETHER heads, smaller where pictures are large."""
    some: list[_Asked] = []
    pixels = 0
    for one in asked:
        size = one.image.shape[0] * one.image.shape[1]
        if some and (len(some) == TOGETHER or pixels + size > MOST_PIXELS):
            yield some
            some, pixels = [], 0
        some.append(one)
        pixels += size
    if some:
        yield some


def _asked(samples: Iterator[Sample], params: HeadsParams) -> Iterator[_Asked]:
    for key, some in groupby(samples, key=lambda sample: picture_of(sample.id)):
        heads = list(some)
        image = heads[0].decode()
        if params.boxes == "yolo":
            boxes = [box for box, _ in head_boxes(image, require("yolo_head"))]
            for sample, box, count in _boxed(key, heads, boxes, params):
                start = None if box is None else square_quad(*square_of_box(box))
                yield _Asked(sample, image, start, count, there=box is not None)
            continue
        for sample in heads:
            row, start = sample.row, None
            if row["faces"]:
                low, high = _corners(row)
                start = square_quad((low + high) / 2, float((high - low).max()) * FACE_TO_WINDOW)
            yield _Asked(sample, image, start, row["faces"])


def _boxed(
    key: str, heads: list[Sample], boxes: list[np.ndarray], params: HeadsParams
) -> Iterator[tuple[Sample, np.ndarray | None, int]]:
    """Samples with the boxes that are theirs and the number of heads that count; None where there is none.

    A face takes the largest box about its middle. Of a picture with one sample the largest box is that sample's. What
    boxes are left are heads without a face, and get new numbers, if all are wanted.
    """
    areas = [float(np.prod(box[2:] - box[:2])) for box in boxes]
    left = [box for box, area in zip(boxes, areas) if area >= params.several_share * areas[0]]
    count = len(left)
    for sample in heads:
        box = next((box for box in left if len(heads) == 1 or _inside(sample.row, box)), None)
        left = [other for other in left if other is not box]
        yield sample, box, count
    if params.several == "all":
        for number, box in enumerate(left, start=len(heads) + 1):
            yield replace(heads[0], id=head_id(key, number)), box, count


def _corners(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row["x0"], row["y0"]]), np.array([row["x1"], row["y1"]])


def _inside(row: dict[str, Any], box: np.ndarray) -> bool:
    middle = np.mean(_corners(row), axis=0)
    return bool((box[:2] <= middle).all() and (middle <= box[2:]).all())


def _row(one: _Asked, head: Head, params: HeadsParams) -> dict[str, Any]:
    if params.angles == "whenet":
        from ops.perception.whenet import turned_head  # the user's: not loaded where it is not asked for

        head = turned_head(one.image, head, require("whenet"))
    x, y = head.centre.tolist()
    return keep(
        one.sample,
        seen_x=x,
        seen_y=y,
        seen_side=head.side,
        seen_roll=head.roll,
        seen_yaw=head.azimuth,
        seen_pitch=head.elevation,
        presence=head.presence,
        flip_error=head.flip_error,
        faces=one.heads,
        width=one.sample.row["width"],
        height=one.sample.row["height"],
        box=[*(head.centre - head.side / 2), *(head.centre + head.side / 2)],
    )
