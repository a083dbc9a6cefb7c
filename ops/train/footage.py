"""Tracked clips in training: sequences of frames of one person, drawn by number, with codes and cameras.

Nothing is remembered from step to step: what is drawn depends on the random numbers given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ops.runtime.errors import LineamentError
from ops.runtime.shardwork import digest
from ops.store.pictures import decode
from ops.store.reader import ShardDataset

CACHE = 4096  # decoded frames kept; unpublished: our choice


class Motion(NamedTuple):
    """N people in T poses: identity (N, 80), expression (N, T, 52), camera (N, T, 25) in the head's frame."""

    identity: Tensor
    expression: Tensor
    camera: Tensor


class Take(NamedTuple):
    """Frames (N, T, 3, R, R) in [-1, 1] of N people, and how they move."""

    image: Tensor
    motion: Motion


class Footage:
    """The runs of frames in a folder of clip shards.

    Args:
        folder: of the stage ``shards_clips``; it may hold none.
        resolution: side of the pictures handed out.
        chosen: numbers of the runs; all if None.

    Raises:
        LineamentError: no such folder, a damaged record, or frames smaller than asked for.
    """

    def __init__(self, folder: Path, resolution: int, chosen: Sequence[int] | None = None) -> None:
        if not (folder / "dataset.json").is_file():
            raise LineamentError(f"{folder}: no clip shards here. Run `dvc repro shards_clips`.")
        summary = json.loads((folder / "dataset.json").read_text())
        self.folder, self.resolution, self.hash = folder, resolution, digest(summary["hash"], chosen)
        self.data = ShardDataset(folder) if summary["samples"] else None
        self.numbers = list(range(len(self.data)) if chosen is None else chosen) if self.data is not None else []
        self.labels = [self._label(number) for number in self.numbers]
        if self.numbers and summary["resolution"] < resolution:
            raise LineamentError(
                f"{folder}: clips of {summary['resolution']} pixels, where training wants {resolution}. "
                "Set shards_clips.resolution to at least that."
            )
        self._frame = lru_cache(maxsize=CACHE)(self._decode)

    def __len__(self) -> int:
        return len(self.numbers)

    def split(self, share: float) -> tuple[Footage, Footage]:
        """Those to train on and the last ones, held out: a share of at least one of two."""
        count = max(1, round(share * len(self))) if len(self) > 1 and share else 0
        middle = len(self) - count
        return tuple(
            Footage(self.folder, self.resolution, part) for part in (self.numbers[:middle], self.numbers[middle:])
        )  # type: ignore[return-value]

    def motion(self, which: Sequence[int], frames: Sequence[Sequence[int]]) -> Motion:
        """Codes and cameras of frames (by place in their run) of runs (by place in this footage)."""
        identity = [self.labels[n]["identity"] for n in which]
        parts = [
            [[self.labels[n][name][t] for t in ts] for n, ts in zip(which, frames)] for name in ("expression", "camera")
        ]
        return Motion(torch.tensor(identity), *(torch.tensor(part) for part in parts))

    def take(self, which: Sequence[int], frames: Sequence[Sequence[int]]) -> Take:
        """Frames with their motion, see :meth:`motion`."""
        pixels = np.stack([np.stack([self._frame(n, t) for t in ts]) for n, ts in zip(which, frames)])
        return Take(torch.from_numpy(pixels).permute(0, 1, 4, 2, 3) / 127.5 - 1, self.motion(which, frames))

    def choose(self, count: int, length: int, random: torch.Generator) -> tuple[list[int], list[list[int]]]:
        """Runs, and frames of each in any order, none twice while there are enough."""
        which = torch.randint(len(self), (count,), generator=random, device=random.device).tolist()
        frames = []
        for n in which:
            order = torch.randperm(len(self.labels[n]["camera"]), generator=random, device=random.device).tolist()
            frames.append((order * -(-length // len(order)))[:length])
        return which, frames

    def _label(self, number: int) -> dict[str, Any]:
        assert self.data is not None
        shard, key = self.data.place(number)
        label = json.loads(shard.read(key, "json"))
        missing = [name for name in ("identity", "expression", "camera") if name not in label]
        if missing:
            raise LineamentError(f"{shard.path}: clip {key} has no {missing[0]}: it was not tracked. Run track_clips.")
        return label

    def _decode(self, place: int, frame: int) -> np.ndarray:
        assert self.data is not None
        shard, key = self.data.place(self.numbers[place])
        image = decode(shard.read(key, f"f{frame:04d}.jpg"))
        if image.shape[0] == self.resolution:
            return image
        return cv2.resize(image, (self.resolution, self.resolution), interpolation=cv2.INTER_AREA)
