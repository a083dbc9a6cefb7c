"""95 % intervals of means, shares, correlations and ratios of sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

DRAWS = 1000  # of the bootstrap; unpublished: our choice
Z = float(stats.norm.ppf(0.975))


def mean(values: np.ndarray, groups: np.ndarray | None = None) -> dict[str, Any]:
    """Mean, median, 90th percentile and count, with a bootstrap interval of the mean.

    Args:
        values: (N,); those that are not finite do not count.
        groups: (N,) integers: pictures of one person are drawn together, since they err alike; none: one by one.
    """
    finite = np.isfinite(values)
    values = np.asarray(values, np.float64)[finite]
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)[finite]
    if not len(values):
        return {"n": 0, "mean": None, "interval": None, "median": None, "p90": None}
    return {
        "n": len(values),
        "mean": _short(values.mean()),
        "interval": _ratio_interval(values[:, None], np.ones((len(values), 1)), groups)[0],
        "median": _short(np.median(values)),
        "p90": _short(np.quantile(values, 0.9)),
    }


def of_estimate(estimate: Mapping[str, Any]) -> list[float] | None:
    """95 % of a distance, by its standard error; None where it has none."""
    if estimate["value"] is None or estimate.get("se") is None:
        return None
    return [float(f"{estimate['value'] + sign * 1.96 * estimate['se']:.6g}") for sign in (-1, 1)]


def ratios(above: np.ndarray, below: np.ndarray, groups: np.ndarray) -> list[dict[str, Any]]:
    """(N, C) sums: for each column sum(above) / sum(below) with a bootstrap interval; n counts rows with below > 0."""
    counts = (below > 0).sum(0)
    bounds = _ratio_interval(above, below, groups)
    found = []
    for column, count in enumerate(counts):
        value = _short(above[:, column].sum() / below[:, column].sum()) if count else None
        found.append({"n": int(count), "mean": value, "interval": bounds[column] if count else None})
    return found


def _ratio_interval(above: np.ndarray, below: np.ndarray, groups: np.ndarray) -> list[list[float] | None]:
    """Bootstrap over whole groups; a single group has no interval."""
    _, place = np.unique(groups, return_inverse=True)
    size = place.max() + 1
    if size < 2:
        return [None] * above.shape[1]
    sums = np.zeros((2, size, above.shape[1]))
    np.add.at(sums[0], place, above)
    np.add.at(sums[1], place, below)
    drawn = np.random.default_rng(0).integers(0, size, (DRAWS, size))
    weights = np.zeros((DRAWS, size))
    np.add.at(weights, (np.arange(DRAWS)[:, None], drawn), 1)
    top, bottom = weights @ sums[0], weights @ sums[1]
    values = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), np.nan)
    bounds = []
    for column in values.T:
        known = column[np.isfinite(column)]
        bounds.append([_short(v) for v in np.quantile(known, [0.025, 0.975])] if len(known) else None)
    return bounds


def share(hits: int, total: int) -> dict[str, Any]:
    """A share of independent cases with Wilson's interval."""
    if not total:
        return {"n": 0, "mean": None, "interval": None}
    p = hits / total
    middle = (p + Z**2 / (2 * total)) / (1 + Z**2 / total)
    half = Z * np.sqrt(p * (1 - p) / total + Z**2 / (4 * total**2)) / (1 + Z**2 / total)
    bounds = [_short(max(0.0, middle - half)), _short(min(1.0, middle + half))]
    return {"n": total, "mean": _short(p), "interval": bounds}


def correlation(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Pearson's correlation with Fisher's interval; none where one side does not vary or there are fewer than 4."""
    if len(a) < 4 or np.std(a) < 1e-9 or np.std(b) < 1e-9:
        return {"n": len(a), "mean": None, "interval": None}
    r = float(np.clip(np.corrcoef(a, b)[0, 1], -1 + 1e-9, 1 - 1e-9))
    half = Z / np.sqrt(len(a) - 3)
    return {"n": len(a), "mean": _short(r), "interval": [_short(np.tanh(np.arctanh(r) + s * half)) for s in (-1, 1)]}


def _short(value: float) -> float:
    return float(f"{value:.4g}") if abs(value) > 1e-12 else 0.0
