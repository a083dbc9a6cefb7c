"""Reads dlib's own file of its face embedding; data alone, no code is run.

dlib writes layers from the picture on: a name, a version, the sizes of a tensor, its raw floats. A whole number is a
byte that says how many bytes follow, then those, the lowest first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.dlibface import DlibFace
from ops.runtime.errors import LineamentError

# How layers are called, and how many whole numbers stand before their tensor.
CONVOLUTION, AFFINE, MATRIX = (b"con_4", 0), (b"affine_", 0), (b"fc_2", 2)


def read_network(path: Path) -> DlibFace:
    """The network of ``dlib_face_recognition_resnet_model_v1.dat``.

    Raises:
        LineamentError: the file is damaged or holds another network.
    """
    data = path.read_bytes()
    try:
        convolutions, affine, last = (_tensors(data, *kind) for kind in (CONVOLUTION, AFFINE, MATRIX))
        if len(last) != 1:
            raise ValueError(f"{len(last)} matrices, not 1")
        return DlibFace.from_parameters(convolutions, affine, last[0])
    except (ValueError, IndexError) as error:
        raise LineamentError(f"{path}: not dlib's face embedding, or damaged: {error}.") from None


def _tensors(data: bytes, name: bytes, before: int) -> list[Tensor]:
    """The flat parameters of all layers of a name, in the file's order; ``before`` numbers stand before them."""
    tag = bytes([1, len(name)]) + name
    found: list[Tensor] = []
    place = data.find(tag)
    while place >= 0:
        place += len(tag)
        sizes = []
        for _ in range(before + 5):  # a version, then samples, channels, rows, columns
            count = data[place]
            if not 0 < count <= 4:
                raise ValueError(f"no whole number at byte {place}")
            sizes.append(int.from_bytes(data[place + 1 : place + 1 + count], "little"))
            place += 1 + count
        length = int(np.prod(sizes[before + 1 :]))
        values = np.frombuffer(data, "<f4", length, place)
        found.append(torch.from_numpy(values.astype(np.float32)))
        place = data.find(tag, place + 4 * length)
    return found
