"""The person's mask with the selfie segmentation network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ops.perception.networks import network


def person_mask(image: np.ndarray, weights: Path, side: int) -> np.ndarray:
    """How much each pixel belongs to the person.

    Args:
        image: (S, S, 3) uint8 RGB, square.
        weights: folder of the stage ``weights``.
        side: of the mask, in pixels.

    Returns:
        (side, side) uint8: 0 background, 255 person.
    """
    net = network("selfie_segmentation", weights)
    how = cv2.INTER_AREA if image.shape[0] > net.side else cv2.INTER_LINEAR
    small = cv2.resize(image, (net.side, net.side), interpolation=how)
    (probability,) = net(small.astype(np.float32) / 255)
    how = cv2.INTER_AREA if side < net.side else cv2.INTER_LINEAR
    resized = cv2.resize(probability[..., 0], (side, side), interpolation=how)
    return np.clip(np.rint(resized * 255), 0, 255).astype(np.uint8)
