"""One-to-one verification: scores of genuine and impostor pairs to a ROC curve, its area and the equal error rate.

A score is a similarity: larger means "the same". Nothing here knows where scores come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from ops.runtime.errors import LineamentError


@dataclass(frozen=True)
class Roc:
    """A ROC curve, from the strictest threshold (+inf, nothing accepted) to the most lenient one.

    Attributes:
        thresholds: (P,) falling; a pair is accepted when its score is no less.
        false_accept: (P,) share of the impostor pairs accepted, rising from 0 to 1.
        true_accept: (P,) share of the genuine pairs accepted, rising from 0 to 1.
    """

    thresholds: np.ndarray
    false_accept: np.ndarray
    true_accept: np.ndarray


@dataclass(frozen=True)
class Area:
    """Area under a ROC curve.

    Attributes:
        value: in [0, 1]; 0.5 is chance.
        se: standard error.
        low, high: confidence interval, cut to [0, 1].
    """

    value: float
    se: float
    low: float
    high: float


def roc(genuine: np.ndarray, impostor: np.ndarray) -> Roc:
    """The empirical ROC curve; equal scores become one step, points on a straight piece are left out.

    Args:
        genuine: (G,) scores of pairs that are the same.
        impostor: (I,) scores of pairs that are not.

    Raises:
        LineamentError: a side is empty or a score is not finite.
    """
    genuine, impostor = _checked(genuine, impostor)
    thresholds, index = np.unique(np.concatenate([genuine, impostor]), return_inverse=True)
    count = len(thresholds)
    accepted_true = np.bincount(index[: len(genuine)], minlength=count)[::-1].cumsum()
    accepted_false = np.bincount(index[len(genuine) :], minlength=count)[::-1].cumsum()
    x = np.concatenate([[0], accepted_false])
    y = np.concatenate([[0], accepted_true])
    corner = np.ones(len(x), bool)
    corner[1:-1] = np.diff(x)[:-1] * np.diff(y)[1:] != np.diff(x)[1:] * np.diff(y)[:-1]
    return Roc(
        np.concatenate([[np.inf], thresholds[::-1]])[corner],
        x[corner] / len(impostor),
        y[corner] / len(genuine),
    )


def delong(genuine: np.ndarray, impostor: np.ndarray, confidence: float = 0.95) -> Area:
    """Area under the ROC curve with DeLong's interval, the pairs taken as independent.

    The area is the Mann-Whitney statistic: the probability that a genuine pair scores higher than an impostor pair,
    ties counting one half. Its variance is that of the placements (DeLong et al. 1988), found through midranks in
    O(n log n) (Sun and Xu 2014).

    Args:
        genuine, impostor: scores, (G,) and (I,).
        confidence: of the two-sided interval.

    Raises:
        LineamentError: a side is empty or a score is not finite.
    """
    placed_genuine, placed_impostor = placements(genuine, impostor)
    variance = _variance_of_mean(placed_genuine) + _variance_of_mean(placed_impostor)
    return _area(float(placed_genuine.mean()), variance, confidence)


def placements(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each genuine pair the share of impostors below it, for each impostor the share of genuine pairs above it.

    Ties count one half; both means are the area under the curve.
    """
    genuine, impostor = _checked(genuine, impostor)
    ranks = rankdata(np.concatenate([genuine, impostor]))
    below = (ranks[: len(genuine)] - rankdata(genuine)) / len(impostor)
    above = 1 - (ranks[len(genuine) :] - rankdata(impostor)) / len(genuine)
    return below, above


def by_object(scores: np.ndarray, confidence: float = 0.95) -> Area:
    """Area under the ROC curve of all pairs of N objects, with an interval that takes the *object* as the unit.

    Each object is in one genuine and 2 (N - 1) impostor pairs, so the pairs are not independent and DeLong's interval
    is too narrow. Here every object is left out in turn (jackknife), which follows all that its pairs share.

    Args:
        scores: (N, N) similarities of picture A of object i with picture B of object j; the diagonal is genuine.
        confidence: of the two-sided interval.

    Raises:
        LineamentError: fewer than 3 objects, not square, or a score is not finite.
    """
    n = len(scores)
    if scores.ndim != 2 or scores.shape[1] != n or n < 3:
        raise LineamentError(f"verification needs a square matrix of at least 3 objects, not {scores.shape}.")
    genuine, impostor = pairs(scores)
    below, above = placements(genuine, impostor)
    wins = np.zeros((n, n))  # how many genuine pairs beat impostor (i, j)
    wins[~np.eye(n, dtype=bool)] = above * n
    # What goes when object k goes: its genuine pair against all, all against its impostors, less what counts twice.
    # The diagonal is counted as well; it adds the same to every object, which a variance does not see.
    own = (_beats(genuine[:, None], scores) + _beats(genuine[:, None], scores.T)).sum(1)
    total = wins.sum()
    lost = below * len(impostor) + wins.sum(0) + wins.sum(1) - own
    left = (total - lost) / ((n - 1) * (n - 1) * (n - 2))
    variance = (n - 1) / n * float(((left - left.mean()) ** 2).sum())
    return _area(total / (n * len(impostor)), variance, confidence)


def pairs(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Genuine (N,) and impostor (N (N - 1),) scores of a matrix of all pairs of N objects: diagonal and the rest."""
    diagonal = np.eye(len(scores), dtype=bool)
    return scores[diagonal], scores[~diagonal]


def equal_error_rate(curve: Roc) -> float:
    """Where false accepts equal false rejects, by linear interpolation along the curve."""
    gap = curve.false_accept - (1 - curve.true_accept)
    after = int(np.argmax(gap >= 0))
    if after == 0 or gap[after] == 0:
        return float(curve.false_accept[after])
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(curve.false_accept[after - 1] + share * np.diff(curve.false_accept)[after - 1])


def _beats(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a > b) + 0.5 * (a == b)


def _variance_of_mean(values: np.ndarray) -> float:
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0


def _area(value: float, variance: float, confidence: float) -> Area:
    se = float(np.sqrt(max(variance, 0.0)))
    half = float(norm.ppf(0.5 + confidence / 2)) * se
    return Area(value, se, max(value - half, 0.0), min(value + half, 1.0))


def _checked(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    genuine, impostor = np.asarray(genuine, np.float64).ravel(), np.asarray(impostor, np.float64).ravel()
    if not len(genuine) or not len(impostor):
        raise LineamentError(
            f"verification needs pairs of both kinds; there are {len(genuine)} genuine and {len(impostor)} impostor."
        )
    if not (np.isfinite(genuine).all() and np.isfinite(impostor).all()):
        raise LineamentError("verification scores must be finite; an embedding is NaN or infinite.")
    return genuine, impostor
