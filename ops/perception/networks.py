"""A .tflite network, loaded once a process and run on one thread."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from ops.runtime.weights import require


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logits to probabilities, of the same type and shape."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits)  # overflows nowhere


class Network:
    """A network with one picture in and some tensors out."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
        self.side: int = int(self._input["shape"][1])

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """(side, side, 3) float32 in the network's range to its outputs, without the batch dimension."""
        self._interpreter.set_tensor(self._input["index"], image[None].astype(np.float32, copy=False))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


@lru_cache(maxsize=16)
def network(name: str, folder: Path) -> Network:
    """A registered network from the folder of the stage ``weights``, verified and loaded once a process.

    Raises:
        LineamentError: its file is missing or damaged.
    """
    return Network(require(name, folder))


def constants(path: Path) -> dict[str, np.ndarray]:
    """The learned numbers in a .tflite file by their names there, which end in Kernel, Bias or Alpha."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate would take them out of sight
    interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    learned = [d for d in interpreter.get_tensor_details() if d["name"].endswith(("/Kernel", "/Bias", "/Alpha"))]
    return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in learned}
