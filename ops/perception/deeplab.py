"""The person's mask with a DeepLabV3 that the user supplies as ONNX (SphereHead App. 0.B).

Facts of the network: RGB with ImageNet's mean and deviation in, scores of VOC's 21 classes out, of which 15 is person.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.special import softmax

from ops.perception.onnx import IMAGENET, onnx_network
from ops.runtime.errors import LineamentError
from ops.store import pictures

CLASSES, PERSON = 21, 15


def person_mask(image: np.ndarray, path: Path, look: int, side: int) -> np.ndarray:
    """How much each pixel belongs to a person.

    Args:
        image: (S, S, 3) uint8 RGB, square.
        path: the ONNX file.
        look: side that the network sees.
        side: of the mask, in pixels.

    Returns:
        (side, side) uint8: 0 background, 255 person.

    Raises:
        LineamentError: no such network, or one of another interface.
    """
    x = (pictures.resize(image, look) / 255 - IMAGENET[0]) / IMAGENET[1]
    (scores, *_) = onnx_network(path)(x.transpose(2, 0, 1)[None])
    if scores.ndim != 4 or scores.shape[1] != CLASSES:
        raise LineamentError(
            f"{path}: gives an output of shape {scores.shape}, where DeepLabV3 gives (1, {CLASSES}, height, width)."
        )
    share = softmax(scores[0], axis=0)[PERSON]
    how = cv2.INTER_AREA if side < len(share) else cv2.INTER_LINEAR
    return np.clip(np.rint(cv2.resize(share, (side, side), interpolation=how) * 255), 0, 255).astype(np.uint8)
