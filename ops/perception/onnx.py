"""Networks that a user supplies as ONNX files: head boxes, poses, masks, parsers, identity swaps; run by OpenCV on the
CPU."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from ops.runtime.errors import LineamentError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of the channels red, green and blue


class OnnxNetwork:
    """An ONNX network, loaded.

    Raises:
        LineamentError: missing, damaged, or with an operator that OpenCV does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise LineamentError(f"{path}: no such network. `lineament weights` says where users' files belong.")
        try:
            self._net = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise LineamentError(f"{path}: cannot be read as an ONNX network ({_short(error)}).") from None

    def __call__(self, *inputs: np.ndarray, names: tuple[str, ...] = ()) -> list[np.ndarray]:
        """Run it.

        Args:
            inputs: (1, C, H, W) float32 each.
            names: of the inputs, where there are several.

        Returns:
            the outputs, in the network's order.

        Raises:
            LineamentError: the inputs do not fit the network.
        """
        try:
            for number, value in enumerate(inputs):
                self._net.setInput(np.ascontiguousarray(value, np.float32), names[number] if names else "")
            return list(self._net.forward(self._net.getUnconnectedOutLayersNames()))
        except cv2.error as error:
            shapes = ", ".join(str(value.shape) for value in inputs)
            raise LineamentError(f"{self.path}: does not take inputs of {shapes} ({_short(error)}).") from None


@lru_cache(maxsize=8)
def onnx_network(path: Path) -> OnnxNetwork:
    """The network of a file, loaded once a process."""
    return OnnxNetwork(path)


def _short(error: cv2.error) -> str:
    return " ".join(str(error).split())[-160:]
