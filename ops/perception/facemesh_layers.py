"""FaceMesh as torch layers, for gradients; labels are made without torch."""

from __future__ import annotations

from pathlib import Path

import torch

from models.facemesh import FaceMesh
from ops.perception.networks import constants
from ops.runtime.errors import LineamentError
from ops.runtime.weights import require


def layers(weights: Path) -> FaceMesh:
    """FaceMesh from the folder of the stage ``weights``, frozen.

    Raises:
        LineamentError: its file is missing, damaged or another network's.
    """
    path = require("facemesh", weights)
    try:
        return FaceMesh.from_state({name: torch.from_numpy(value) for name, value in constants(path).items()})
    except ValueError as error:
        raise LineamentError(f"{path}: {error}.") from None
