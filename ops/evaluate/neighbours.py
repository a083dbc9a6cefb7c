"""Fidelity and diversity apart: precision, recall, density and coverage, by nearest neighbours among features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ops.evaluate.distances import checked
from ops.runtime.errors import LineamentError

BLOCK = 2048  # rows of distances at once: bounds memory


@dataclass(frozen=True)
class Manifolds:
    """How two sets cover one another.

    Attributes:
        precision: share of generated features within the real ones' balls (Kynkäänniemi et al. 2019).
        recall: share of real features within the generated ones' balls.
        density: real balls around a generated feature, over k: 1 for equal distributions (Naeem et al. 2020, eq. 3).
        coverage: share of real balls with a generated feature in them (eq. 4).
        samples: how many real and generated features.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    samples: tuple[int, int]


def manifolds(real: np.ndarray, generated: np.ndarray, k: int = 3, k_density: int = 5) -> Manifolds:
    """Precision and recall with balls to the k-th neighbour, density and coverage with balls to the k_density-th.

    Args:
        real: (N, D) features.
        generated: (M, D) features.
        k: 3 in Kynkäänniemi et al. 2019.
        k_density: 5 in Naeem et al. 2020.

    Raises:
        LineamentError: no more features than neighbours, different dimensions, or values that are not finite.
    """
    real = checked(real)
    generated = checked(generated, real.shape[1])
    least = max(k, k_density) + 1
    if min(len(real), len(generated)) < least:
        raise LineamentError(f"{least - 1} neighbours need {least} features a side, not {len(real)}, {len(generated)}.")
    real_radius, real_radius_density = radii(real, k, k_density)
    (generated_radius,) = radii(generated, k)
    precise = np.zeros(len(generated), bool)
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    inside = 0
    for start in range(0, len(generated), BLOCK):
        rows = slice(start, start + BLOCK)
        distance = squared(generated[rows], real)
        precise[rows] = (distance <= real_radius).any(1)
        recalled |= (distance <= generated_radius[rows, None]).any(0)
        within = distance <= real_radius_density
        inside += int(within.sum())
        covered |= within.any(0)
    density = inside / (k_density * len(generated))
    samples = (len(real), len(generated))
    return Manifolds(float(precise.mean()), float(recalled.mean()), density, float(covered.mean()), samples)


def radii(features: np.ndarray, *neighbours: int) -> list[np.ndarray]:
    """For each number k, the (N,) squared distances of features to their k-th nearest neighbour, not themselves."""
    found = [np.empty(len(features)) for _ in neighbours]
    places = [k - 1 for k in neighbours]
    for start in range(0, len(features), BLOCK):
        rows = slice(start, start + BLOCK)
        distance = squared(features[rows], features)
        own = np.arange(len(distance))
        distance[own, start + own] = np.inf
        distance.partition(places, axis=1)
        for radius, place in zip(found, places):
            radius[rows] = distance[:, place]
    return found


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, D) and (m, D) to the (n, m) squared Euclidean distances, not below zero."""
    distance = a @ b.T
    distance *= -2
    distance += (a**2).sum(1)[:, None]
    distance += (b**2).sum(1)
    return np.maximum(distance, 0.0, out=distance)
