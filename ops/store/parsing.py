"""The 19 parsing classes of the whole project, and colours to look at them."""

from __future__ import annotations

import colorsys

import numpy as np

# CelebAMask-HQ's 19 classes; the subject's left is "left" here.
CLASSES = (
    "background",
    "skin",
    "nose",
    "glasses",
    "left_eye",
    "right_eye",
    "left_brow",
    "right_brow",
    "left_ear",
    "right_ear",
    "mouth",
    "upper_lip",
    "lower_lip",
    "hair",
    "hat",
    "earring",
    "necklace",
    "neck",
    "cloth",
)


def mirrored_classes() -> np.ndarray:
    """(19,) uint8: the class that each class becomes when a picture is mirrored, left for right."""
    swapped = [name.replace("left", "right") if "left" in name else name.replace("right", "left") for name in CLASSES]
    return np.array([CLASSES.index(name) for name in swapped], dtype=np.uint8)


def palette() -> np.ndarray:
    """(19, 3) uint8 RGB: background black, the others of well-separated hues."""
    colours = [(0.0, 0.0, 0.0)] + [
        colorsys.hsv_to_rgb((0.07 + 0.381966 * i) % 1.0, 0.45 + 0.25 * (i % 2), 0.95 - 0.2 * (i % 3))
        for i in range(len(CLASSES) - 1)
    ]
    return np.round(np.array(colours) * 255).astype(np.uint8)


def coloured(classes: np.ndarray) -> np.ndarray:
    """(..., H, W) class numbers to (..., H, W, 3) uint8 RGB."""
    return palette()[classes]
