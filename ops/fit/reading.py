"""What FaceMesh's landmarks say of the codes by themselves: a linear reading, learned from the studio's people.

    features = landmarks, brought onto the mean face by the similarity that fits best
    codes = bias + weights @ components @ (features - mean), and how far off that is

The landmark network errs more on a face than most expressions move it, but it errs alike on everyone: the error lies
in few directions, and what stands out from them can be read off. The fits take the reading for what they expect of the
codes. ``python -m ops.fit.calibrate`` learns it: ridge regression on the principal components of the landmarks of
people whom no source shows, with the spread of what is left on people left out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from ops.fit.energy import Prior
from ops.perception.facemesh import canonical_points, mirrored

READING = Path(__file__).with_name("facemesh_reading.safetensors")
COMPONENTS = 64  # of the landmarks' shapes; unpublished: our choice
RIDGE = 0.05  # of the components' mean variance; unpublished: our choice
FOLDS = 6
MOST = 3.0  # standard deviations of the identity that a reading may be away
_NARROWEST = 0.03  # spread of an expression unit that is hardly ever used


@dataclass(frozen=True)
class Reading:
    """A linear reading.

    Attributes:
        mean: (1404,) of the features; components: (K, 1404).
        weights: (K, 132) of identity and expression; bias: (132,).
        spread: (132,) standard deviation of what a reading is off.
    """

    mean: np.ndarray
    components: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    spread: np.ndarray

    def codes(self, points: np.ndarray) -> np.ndarray:
        """(N, 132) identity and expression of landmarks (N, 468, 3), pixels."""
        return (features(points) - self.mean) @ self.components.T @ self.weights + self.bias

    def prior(self, points: np.ndarray, identities: int = 80) -> Prior:
        """What is expected of the codes of faces with landmarks (N, 468, 3); faces without finite ones: of anybody."""
        usable = np.isfinite(points).all((1, 2))
        codes = np.where(usable[:, None], self.codes(np.where(usable[:, None, None], points, canonical_points())), 0)
        identity, expression = (torch.from_numpy(v) for v in np.split(codes, [identities], axis=1))
        spreads = [torch.from_numpy(v.astype(np.float64)) for v in np.split(self.spread, [identities])]
        return Prior(identity.clamp(-MOST, MOST), spreads[0], expression.clamp(0, 1), spreads[1])

    def save(self, path: Path) -> None:
        """Write it, in half precision but for what is small."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        save_file(
            {k: np.ascontiguousarray(v, np.float16 if v.ndim == 2 else np.float32) for k, v in values.items()}, path
        )


@lru_cache(maxsize=1)
def reading() -> Reading:
    """The reading of the default model, loaded once a process."""
    return Reading(**{name: value.astype(np.float64) for name, value in load_file(READING).items()})


def features(points: np.ndarray) -> np.ndarray:
    """(N, 1404) landmarks (N, 468, 3) brought onto the mean face by a similarity, less that face.

    FaceMesh's axes: x to the right and y down in the picture, z away from the camera.
    """
    goal = canonical_points() - canonical_points().mean(0)
    own = np.asarray(points, np.float64) * [1, -1, -1]
    own = own - own.mean(1, keepdims=True)
    u, size, v = np.linalg.svd(own.transpose(0, 2, 1) @ goal)
    signs = np.stack([np.ones(len(own)), np.ones(len(own)), np.linalg.det(u @ v)], axis=1)
    turn = (u * signs[:, None]) @ v
    scale = (size * signs).sum(1) / (own**2).sum((1, 2))
    return (own @ turn * scale[:, None, None] - goal).reshape(len(own), -1)


def learn(points: np.ndarray, codes: np.ndarray, people: np.ndarray, mirror_codes: np.ndarray) -> Reading:
    """The reading of M pictures.

    Args:
        points: (M, 468, 3) landmarks; codes: (M, 132) true identity and expression.
        people: (M,) whose pictures they are; nobody is read by what was learned from him to find the spread.
        mirror_codes: (M, 132) those of the mirror images, from which it learns too.
    """
    seen = features(points)
    other = (seen.reshape(-1, 468, 3)[:, mirrored()] * [-1, 1, 1]).reshape(len(seen), -1)
    rest = np.concatenate(
        [
            codes - _solve(seen, other, codes, mirror_codes, people % FOLDS != fold).codes(points)
            for fold in range(FOLDS)
        ]
    ).reshape(FOLDS, *codes.shape)
    left = rest[people % FOLDS, np.arange(len(codes))]
    found = _solve(seen, other, codes, mirror_codes, np.ones(len(codes), bool))
    spread = np.sqrt((left**2).mean(0))
    spread[80:] = np.maximum(spread[80:], _NARROWEST)
    return Reading(found.mean, found.components, found.weights, found.bias, spread)


def _solve(seen: np.ndarray, other: np.ndarray, codes: np.ndarray, mirror: np.ndarray, chosen: np.ndarray) -> Reading:
    x, y = np.concatenate([seen[chosen], other[chosen]]), np.concatenate([codes[chosen], mirror[chosen]])
    mean, bias = x.mean(0), y.mean(0)
    _, size, axes = np.linalg.svd(x - mean, full_matrices=False)
    components = axes[:COMPONENTS]
    scores = (x - mean) @ components.T
    variance = size[:COMPONENTS] ** 2
    weights = scores.T @ (y - bias) / (variance + RIDGE * (size**2).mean())[:, None]
    return Reading(mean, components, weights, bias, np.zeros(len(bias)))
