"""When is a difference more than noise?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05  # of one comparison; unpublished: our choice
TAIL = 1 / 3  # share of a curve at its end that is compared; unpublished: our choice
BLOCKS = 6  # parts of the tail, whose means are taken as independent; unpublished: our choice


@dataclass(frozen=True)
class Difference:
    """Two values of one thing.

    Attributes:
        name: of the thing.
        a, b: the two values.
        p: how probable a difference at least as large is without any; None where that cannot be said.
        how: by what it was judged, in words.
    """

    name: str
    a: float
    b: float
    p: float | None
    how: str


def significant(differences: Sequence[Difference], level: float = LEVEL) -> set[str]:
    """Names of those that are more than noise, with Holm's correction for judging so many at once."""
    judged = sorted((d for d in differences if d.p is not None), key=lambda d: float(d.p or 0.0))
    found: set[str] = set()
    for rank, difference in enumerate(judged):
        assert difference.p is not None
        if difference.p > level / (len(judged) - rank):
            break
        found.add(difference.name)
    return found


def from_intervals(name: str, a: tuple[float, float, float], b: tuple[float, float, float]) -> Difference:
    """Two values with 95 % intervals (value, low, high), taken as normal and independent."""
    width = math.hypot(a[2] - a[1], b[2] - b[1]) / (2 * 1.96)
    if width == 0:
        p = 1.0 if a[0] == b[0] else 0.0
    else:
        p = float(2 * stats.norm.sf(abs(a[0] - b[0]) / width))
    return Difference(name, a[0], b[0], p, "95 % intervals")


def from_curves(name: str, a: np.ndarray, b: np.ndarray) -> Difference:
    """The ends of two training curves: means of blocks (which hang together less than points do), by Welch's test."""
    one, other = _blocks(a), _blocks(b)
    if one is None or other is None:
        return Difference(name, _last(a), _last(b), None, "too few points to judge")
    if not np.ptp(one) and not np.ptp(other):
        return Difference(name, float(one.mean()), float(other.mean()), float(one[0] == other[0]), "constant")
    p = float(stats.ttest_ind(one, other, equal_var=False).pvalue)
    return Difference(name, float(one.mean()), float(other.mean()), p, "the last third of the curve, Welch's test")


def from_samples(name: str, a: np.ndarray, b: np.ndarray) -> Difference:
    """Two samples of a distribution, by the Kolmogorov-Smirnov test; the values shown are medians."""
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if not len(a) or not len(b):
        return Difference(name, float("nan"), float("nan"), None, "one side has no value")
    p = float(stats.ks_2samp(a, b).pvalue)
    return Difference(name, float(np.median(a)), float(np.median(b)), p, "Kolmogorov-Smirnov test; medians shown")


def _blocks(values: np.ndarray) -> np.ndarray | None:
    values = values[np.isfinite(values)]
    tail = values[-math.ceil(len(values) * TAIL) :] if len(values) else values
    if len(tail) < 2 * BLOCKS:
        return None
    return np.array([part.mean() for part in np.array_split(tail, BLOCKS)])


def _last(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values[-1]) if len(values) else float("nan")
