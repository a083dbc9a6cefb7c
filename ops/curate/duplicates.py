"""Near-duplicates by perceptual hash, in time that grows linearly with the number of pictures."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

BITS = 64


def perceptual_hash(grey: np.ndarray) -> int:
    """64 bits: the signs of the 8 x 8 lowest frequencies of the 32 x 32 picture, about their median (pHash).

    Args:
        grey: (H, W) uint8.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])  # the mean brightness is no part of the likeness
    return int(np.packbits(bits).view(">u8")[0])


def near_pairs(hashes: np.ndarray, distance: int) -> np.ndarray:
    """All pairs of hashes that differ in at most ``distance`` bits.

    Two such hashes agree wholly in at least one of ``distance + 1`` bands of bits, so only hashes with an equal band
    are compared (pigeonhole): exact, and not quadratic.

    Args:
        hashes: (N,) uint64, no two equal.
        distance: bits.

    Returns:
        (P, 2) int64 indices, i < j, sorted by j and then i.
    """
    edges = np.linspace(0, BITS, distance + 2).astype(int)
    found = [np.empty((0, 2), np.int64)]
    for low, high in itertools.pairwise(edges.tolist()):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << high - low) - 1)
        order = np.argsort(band, kind="stable")
        ordered, codes = band[order], hashes[order]
        left = np.arange(len(order) - 1)
        lag = 1
        while len(left := left[left + lag < len(order)]):
            left = left[ordered[left] == ordered[left + lag]]  # once apart, never together again at a larger lag
            close = np.bitwise_count(codes[left] ^ codes[left + lag]) <= distance
            found.append(np.sort(np.stack([order[left[close]], order[left[close] + lag]], axis=1), axis=1))
            lag += 1
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]


def originals(hashes: np.ndarray, distance: int) -> np.ndarray:
    """For each picture the earlier one that it repeats, or -1 when it is the first of its kind.

    A picture repeats an earlier one that is itself no repetition, so chains do not creep.

    Args:
        hashes: (N,) uint64 in the order of precedence.
        distance: largest number of differing bits.

    Returns:
        (N,) int64.
    """
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    rank = np.argsort(first, kind="stable")
    position = np.empty_like(rank)
    position[rank] = np.arange(len(rank))
    of_unique = np.full(len(unique), -1)
    for i, j in near_pairs(unique[rank], distance):
        if of_unique[j] < 0 and of_unique[i] < 0:
            of_unique[j] = i
    of = of_unique[position[inverse]]
    result = np.where(of >= 0, first[rank][of], first[inverse])
    return np.where(result == np.arange(len(hashes)), -1, result)
