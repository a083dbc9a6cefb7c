"""One parsing from the scores of several parsers: their votes, the majority, and what is too small to be true."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy import ndimage

from ops.store.parsing import CLASSES


def likeliest(scores: np.ndarray, side: int) -> np.ndarray:
    """The class of the highest score in each pixel, once the scores are enlarged: so borders stay smooth.

    Args:
        scores: (C, H, W) float32; of equals, the first class counts.
        side: of the result.

    Returns:
        (side, side) uint8.
    """
    least = scores.mean(0).min()  # the best of a pixel is nowhere below, so classes that stay below are out
    best, classes = np.full((side, side), -np.inf, np.float32), np.zeros((side, side), np.uint8)
    for number in np.flatnonzero(scores.max((1, 2)) >= least):
        score = cv2.resize(scores[number], (side, side), interpolation=cv2.INTER_LINEAR)
        np.copyto(classes, np.uint8(number), where=score > best)
        np.maximum(best, score, out=best)
    return classes


def majority(votes: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """The class that most parsers name, pixel by pixel; of equally many, the one that the earliest of them names.

    Args:
        votes: (H, W) uint8 class numbers each, the most trusted parser first.

    Returns:
        (H, W) uint8, and the disagreement: the mean share of parsers that named another class, in [0, 1].
    """
    stack = np.stack(votes)
    support = np.stack([(stack == vote).sum(0, dtype=np.uint8) for vote in votes])
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
        mask = (classes == number).view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        place = np.s_[y : y + height, x : x + width]
        _, patches, stats, _ = cv2.connectedComponentsWithStats(mask[place], connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < least
        small[0] = False  # what is not of the class
        if small.any():
            doubtful[place] |= small[patches]
    if doubtful.all() or not doubtful.any():
        return classes
    # Outside the box of all that is doubtful everything is sure, so what is nearest lies at most a pixel beside it.
    x, y, width, height = cv2.boundingRect(doubtful.view(np.uint8))
    place = np.s_[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1]
    nearest = ndimage.distance_transform_edt(doubtful[place], return_distances=False, return_indices=True)
    result = classes.copy()
    result[place] = classes[place][tuple(nearest)]
    return result


def shares(classes: np.ndarray) -> np.ndarray:
    """(19,) share of each class in the picture."""
    return np.bincount(classes.ravel(), minlength=len(CLASSES)) / classes.size
