"""How far apart two sets of pictures lie, by their features: Fréchet distance, its limit for many samples, KID.

Nothing here knows which network made the features. A number takes the name of its backbone (``fd_mobilenetv2``); FID
and KID without a suffix are those of Inception-v3 with the published weights alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import linalg, stats

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish


@dataclass(frozen=True)
class Estimate:
    """A distance, and how far to trust it.

    Attributes:
        value: the distance.
        se: standard error; None where the estimator gives none.
        samples: how many features of either set went into it.
        note: what a reader must know, such as too few samples; empty if nothing.
    """

    value: float
    se: float | None
    samples: tuple[int, int]
    note: str = ""


class Moments:
    """Mean and covariance of features, gathered batch by batch in constant memory and in float64.

    Moments of parts merge to the moments of the whole, so that processes may share the work.

    Attributes:
        count: features seen.
        mean: (D,) their mean.
    """

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        self.mean = np.zeros(dimensions)
        self._scatter = np.zeros(
            (dimensions, dimensions), order="F"
        )  # upper half: sum of outer products about the mean

    @classmethod
    def of(cls, batches: Iterable[np.ndarray]) -> Moments:
        """The moments of features that come in (n, D) batches.

        Raises:
            LineamentError: there is none, or see :meth:`add`.
        """
        moments: Moments | None = None
        for batch in batches:
            moments = cls(np.shape(batch)[-1]) if moments is None else moments
            moments.add(batch)
        if moments is None:
            raise LineamentError("no features were given.")
        return moments

    def add(self, batch: np.ndarray) -> None:
        """Take (n, D) features in (pairwise update of Chan et al. 1983).

        Raises:
            LineamentError: another number of dimensions, or values that are not finite.
        """
        batch = checked(batch, len(self.mean))
        if not len(batch):
            return
        mean = batch.mean(0)
        rows = np.empty((len(batch) + 1, len(mean)))
        np.subtract(batch, mean, out=rows[:-1])
        self._absorb(len(batch), mean, rows)

    def merge(self, other: Moments) -> None:
        """Take in what other moments have gathered.

        Raises:
            LineamentError: they are of another number of dimensions.
        """
        if len(other.mean) != len(self.mean):
            raise LineamentError(f"features of {len(other.mean)} and of {len(self.mean)} dimensions do not mix.")
        if other.count:
            self._scatter += other._scatter
            self._absorb(other.count, other.mean, np.empty((1, len(self.mean))))

    def _absorb(self, count: int, mean: np.ndarray, rows: np.ndarray) -> None:
        """Add rows' outer products; the last row is filled with what the two means' difference contributes."""
        total = self.count + count
        delta = mean - self.mean
        rows[-1] = delta * np.sqrt(self.count * count / total)
        self._scatter = linalg.blas.dsyrk(1.0, rows.T, beta=1.0, c=self._scatter, overwrite_c=1)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """(D, D) unbiased covariance.

        Raises:
            LineamentError: fewer than two features.
        """
        if self.count < 2:
            raise LineamentError(f"a covariance needs at least 2 features, not {self.count}.")
        upper = np.triu(self._scatter)
        return (upper + np.triu(upper, 1).T) / (self.count - 1)

    def save(self, path: Path) -> None:
        """Publish as npz."""
        with publish(path) as temporary, temporary.open("wb") as file:
            np.savez(file, count=self.count, mean=self.mean, scatter=np.triu(self._scatter))

    @classmethod
    def load(cls, path: Path) -> Moments:
        """Read what save() wrote.

        Raises:
            LineamentError: missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                moments = cls(len(stored["mean"]))
                moments.count, moments.mean = int(stored["count"]), stored["mean"]
                moments._scatter = np.asfortranarray(stored["scatter"])
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise LineamentError(f"{path}: no moments of features there ({error}).") from None
        return moments


def frechet(a: Moments, b: Moments) -> Estimate:
    """Squared Fréchet distance of two Gaussians, ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))``.

    The trace of the root is the sum of the roots of the eigenvalues of ``C_a^(1/2) C_b C_a^(1/2)``, which is symmetric
    and has none below zero; so no complex root and no small multiple of the identity is needed, singular covariances
    included. Biased upwards by an amount that falls as 1 / samples: see :func:`frechet_infinity`.

    Raises:
        LineamentError: different numbers of dimensions, or fewer than two features.
    """
    if len(a.mean) != len(b.mean):
        raise LineamentError(f"features of {len(a.mean)} and of {len(b.mean)} dimensions cannot be compared.")
    first, second = a.covariance, b.covariance
    values, vectors = linalg.eigh(first, driver="evd")
    root = vectors * np.sqrt(np.maximum(values, 0.0))  # C_a = root root^T, and root^T C_b root has the same eigenvalues
    inner = linalg.eigh(root.T @ second @ root, eigvals_only=True, driver="evd")
    trace = np.trace(first) + np.trace(second) - 2 * np.sqrt(np.maximum(inner, 0.0)).sum()
    value = float(((a.mean - b.mean) ** 2).sum() + trace)
    return Estimate(max(value, 0.0), None, (a.count, b.count), _few(min(a.count, b.count), len(a.mean)))


def frechet_between(a: np.ndarray, b: np.ndarray) -> Estimate:
    """:func:`frechet` of (n, D) and (m, D) features; quick where there are fewer than D on a side.

    With centred features X and Y, the eigenvalues of ``C_a C_b`` are the squares of the singular values of
    ``X Y^T / sqrt((n - 1)(m - 1))``, so no D x D matrix is needed.

    Raises:
        LineamentError: see :class:`Moments` and frechet.
    """
    a, b = checked(a), checked(b, np.shape(a)[-1])
    if min(len(a), len(b)) >= a.shape[1] or min(len(a), len(b)) < 2:
        return frechet(Moments.of([a]), Moments.of([b]))
    x, y = (values - values.mean(0) for values in (a, b))
    x, y = (values / np.sqrt(len(values) - 1) for values in (x, y))
    roots = linalg.svdvals(x @ y.T)
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
    value = float(apart + (x**2).sum() + (y**2).sum() - 2 * roots.sum())
    return Estimate(max(value, 0.0), None, (len(a), len(b)), _few(min(len(a), len(b)), a.shape[1]))


def frechet_infinity(
    features: np.ndarray, reference: Moments, points: int = 15, smallest: int = 5000, seed: int = 0
) -> Estimate:
    """Fréchet distance for infinitely many samples: a straight line through the distances over 1 / samples, at 0.

    Chong and Forsyth 2020, "Effectively unbiased FID": 15 sizes from 5000 to all. The standard error is the line's; as
    the subsets overlap it is a lower bound.

    Args:
        features: (N, D) of the generated pictures.
        reference: moments of the real ones, taken as exact.
        points: how many sizes.
        smallest: the smallest of them; at most half of all.
        seed: of the subsets.

    Raises:
        LineamentError: fewer than 8 features, or see frechet.
    """
    features = checked(features, len(reference.mean))
    if len(features) < 8 or points < 3:
        raise LineamentError(
            f"an extrapolation needs at least 8 features and 3 points, not {len(features)} and {points}."
        )
    rng = np.random.default_rng(seed)
    sizes = np.linspace(min(smallest, len(features) // 2), len(features), points).round().astype(int)
    found = []
    for size in sizes:
        chosen = rng.choice(len(features), size, replace=False)
        found.append(frechet(Moments.of([features[np.sort(chosen)]]), reference).value)
    line = stats.linregress(1 / sizes, found)
    note = _few(int(sizes[0]), features.shape[1])
    return Estimate(float(line.intercept), float(line.intercept_stderr), (len(features), reference.count), note)


def kid(a: np.ndarray, b: np.ndarray, subsets: int = 100, size: int = 1000, seed: int = 0) -> Estimate:
    """Kernel distance: :func:`mmd`, mean over random subsets.

    Bińkowski et al. 2018, with its 100 subsets of 1000. Unbiased, so it may be below zero. The usual standard error,
    scatter of the subsets over the root of their number, tends to nothing with many subsets however few features there
    are. Here it cannot fall below what all features together allow: the scatter times the root of size over features.

    Args:
        a, b: (N, D) and (M, D) features.
        subsets: how many.
        size: features of either set in a subset; at most half of the smaller set.
        seed: of the subsets.

    Raises:
        LineamentError: fewer than four features on a side, different dimensions, or values that are not finite.
    """
    a = checked(a, dtype=np.float32)
    b = checked(b, a.shape[1], dtype=np.float32)
    fewest = min(len(a), len(b))
    small = min(size, fewest // 2)
    if small < 2 or subsets < 2:
        raise LineamentError(f"KID needs at least 4 features a side and 2 subsets, not {fewest} and {subsets}.")
    rng = np.random.default_rng(seed)
    found = [
        mmd(a[rng.choice(len(a), small, replace=False)], b[rng.choice(len(b), small, replace=False)])
        for _ in range(subsets)
    ]
    se = float(np.std(found, ddof=1)) * max(subsets**-0.5, (small / fewest) ** 0.5)
    note = "" if small == size else f"subsets of {small}, for want of {2 * size} features"
    return Estimate(float(np.mean(found)), se, (len(a), len(b)), note)


def mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of (n, D) and (m, D) under the kernel ``(x y / D + 1)^3``."""
    return _within(x) + _within(y) - 2 * float(_kernel(x, y).mean(dtype=np.float64))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    product = x @ y.T
    product /= x.shape[1]
    product += 1
    return product * product * product


def _within(x: np.ndarray) -> float:
    """Mean of the kernel over pairs of two different features."""
    values = _kernel(x, x)
    return float(values.sum(dtype=np.float64) - np.trace(values, dtype=np.float64)) / (len(x) * (len(x) - 1))


def checked(features: np.ndarray, dimensions: int | None = None, dtype: type = np.float64) -> np.ndarray:
    """Features as (n, D) of a type.

    Raises:
        LineamentError: another shape, another D than wanted, or values that are not finite.
    """
    features = np.asarray(features)
    if features.ndim != 2 or (dimensions is not None and features.shape[1] != dimensions):
        wanted = "D" if dimensions is None else dimensions
        raise LineamentError(f"features should be (n, {wanted}), not {features.shape}.")
    bad = len(features) - int(np.isfinite(features).all(axis=1).sum())
    if bad:
        raise LineamentError(f"{bad} of {len(features)} features are not finite; what made them is at fault.")
    return features.astype(dtype, copy=False)


def _few(samples: int, dimensions: int) -> str:
    if samples > dimensions:
        return ""
    return (
        f"{samples} samples cannot fill a covariance of {dimensions} dimensions: the distance is far too large, and "
        "comparable only with others of as many samples"
    )
