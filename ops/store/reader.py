"""Training shards, read by number: exact epochs, a shuffle by seed and epoch, resumable anywhere.

``ShardDataset`` numbers the samples of all shards of a folder. ``EpochSampler`` says in which order a rank's worker
reads them; its position is two numbers, (epoch, position), so a run resumes at the very next sample.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ops.runtime.errors import LineamentError
from ops.store.tar import Shard, shard_paths


class ShardDataset:
    """The samples of a folder of shards, by number.

    Raises:
        LineamentError: no shards, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = [Shard(path) for path in shard_paths(folder)]
        self._ends = np.cumsum([len(shard) for shard in self.shards]).tolist()
        if not len(self):
            raise LineamentError(f"{folder}: the shards hold no sample.")

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def hash(self) -> str:
        """The hash of all shards' content; equal data, equal hash."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()

    def place(self, number: int) -> tuple[Shard, str]:
        """The shard and key of a sample.

        Raises:
            IndexError: the number is not in [0, len).
        """
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        which = bisect.bisect_right(self._ends, number)
        shard = self.shards[which]
        return shard, shard.keys[number - (self._ends[which] - len(shard))]

    def key(self, number: int) -> str:
        """The id of a sample."""
        return self.place(number)[1]

    def read(self, number: int) -> dict[str, bytes]:
        """All fields of a sample."""
        shard, key = self.place(number)
        return shard.sample(key)


@dataclass(frozen=True)
class Position:
    """How far reading has come: ``index`` samples of the epoch have been taken by all ranks together."""

    epoch: int = 0
    index: int = 0


class EpochSampler:
    """The order of reading: each epoch visits every sample once, in an order that seed and epoch determine.

    The global order does not depend on the number of ranks: rank r of w takes every w-th sample from the r-th on. A
    last incomplete round is left out, so that all ranks take equally many samples.

    Args:
        size: number of samples.
        seed: of the shuffle; None reads in the stored order.
        rank: this process, of ``world``.
        world: number of processes.
        start: where to go on.

    Raises:
        LineamentError: there are fewer samples than processes, or the position lies outside the epoch.
    """

    def __init__(
        self, size: int, seed: int | None = 0, rank: int = 0, world: int = 1, start: Position | None = None
    ) -> None:
        if not 0 <= rank < world:
            raise LineamentError(f"rank {rank} does not exist among {world} processes.")
        if size < world:
            raise LineamentError(f"{size} samples cannot be shared among {world} processes: use fewer.")
        self.size, self.seed, self.rank, self.world = size, seed, rank, world
        self.position = start or Position()
        if not 0 <= self.position.index <= self.per_epoch * world:
            raise LineamentError(f"position {self.position} lies outside an epoch of {size} samples.")

    @property
    def per_epoch(self) -> int:
        """Samples a process takes in an epoch."""
        return self.size // self.world

    def order(self, epoch: int) -> np.ndarray:
        """The samples of an epoch in reading order, of all processes."""
        if self.seed is None:
            return np.arange(self.size)
        return np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(self.size)

    def __iter__(self) -> Iterator[int]:
        """Sample numbers without end; ``position`` says after each where to resume."""
        while True:
            order = self.order(self.position.epoch)
            for index in range(self.position.index, self.per_epoch * self.world, self.world):
                self.position = replace(self.position, index=index + self.world)
                yield int(order[index + self.rank])
            self.position = Position(self.position.epoch + 1, 0)
