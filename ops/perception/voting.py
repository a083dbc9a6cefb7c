"""One parsing from the votes of several parsers, and the cleaning of what is too small to be true."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy import ndimage

from ops.store.parsing import CLASSES


def majority(votes: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """The class that most parsers name, pixel by pixel; of equally many, the one that the earliest of them names.

    Args:
        votes: (H, W) uint8 class numbers each, the most trusted parser first.

    Returns:
        (H, W) uint8, and the disagreement: the mean share of parsers that named another class, in [0, 1].
    """
    stack = np.stack(votes)
    support = np.stack([(stack == vote).sum(0) for vote in votes])
    winner = support.argmax(0)  # the first of equals
    result = np.take_along_axis(stack, winner[None], 0)[0]
    return result.astype(np.uint8), float(1 - support.max(0).mean() / len(votes))


def cleaned(classes: np.ndarray, smallest: float) -> np.ndarray:
    """Patches smaller than a share of the picture take the class of what is nearest to them.

    Args:
        classes: (H, W) uint8.
        smallest: share of the picture's pixels in [0, 1].
    """
    least = smallest * classes.size
    doubtful = np.zeros(classes.shape, bool)
    for number in np.unique(classes):
        _, patches, stats, _ = cv2.connectedComponentsWithStats((classes == number).astype(np.uint8), connectivity=4)
        small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < least)
        doubtful |= np.isin(patches, small[small > 0])
    if doubtful.all() or not doubtful.any():
        return classes
    nearest = ndimage.distance_transform_edt(doubtful, return_distances=False, return_indices=True)
    return classes[tuple(nearest)]


def shares(classes: np.ndarray) -> np.ndarray:
    """(19,) share of each class in the picture."""
    return np.bincount(classes.ravel(), minlength=len(CLASSES)) / classes.size
