"""What was met before, in eight bytes each, however long its name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

import numpy as np

FRESH = 65_536  # texts that wait before they are sorted in; unpublished: our choice


def number_of(text: str) -> int:
    """64 bits of a text's hash: any two of a million texts agree by chance once in 30 million times."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


class Seen:
    """A bag of texts: how often each was added. Sorted arrays whose sizes at least double, so adding stays cheap."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []
        self._fresh: Counter[int] = Counter()
        self._waiting = 0

    def add(self, text: str) -> None:
        """Once more."""
        self._fresh[number_of(text)] += 1
        self._waiting += 1
        if self._waiting >= FRESH:
            self._sort_in()

    def update(self, texts: Iterable[str]) -> None:
        """Each once more."""
        for text in texts:
            self.add(text)

    def count(self, text: str) -> int:
        """How often it was added."""
        number = number_of(text)
        return self._fresh[number] + sum(_count(run, number) for run in self._runs)

    def __contains__(self, text: str) -> bool:
        return self.count(text) > 0

    @property
    def repeats(self) -> bool:
        """Whether anything was added more than once."""
        self._sort_in(whole=True)
        return any(bool((run[1:] == run[:-1]).any()) for run in self._runs)

    def _sort_in(self, whole: bool = False) -> None:
        if self._fresh:
            self._runs.append(np.sort(np.fromiter(self._fresh.elements(), np.uint64, self._waiting)))
            self._fresh, self._waiting = Counter(), 0
        while len(self._runs) > 1 and (whole or len(self._runs[-2]) < 2 * len(self._runs[-1])):
            last, before = self._runs.pop(), self._runs.pop()
            merged = np.concatenate([before, last])
            merged.sort(kind="stable")  # in place; of two sorted runs no more than a merge
            self._runs.append(merged)


def _count(run: np.ndarray, number: int) -> int:
    first, last = (np.searchsorted(run, np.uint64(number), side) for side in ("left", "right"))
    return int(last - first)
