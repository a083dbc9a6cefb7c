"""Small squares made large: by interpolation, or by a super-resolution network that the user supplies as ONNX.

Such a network takes one picture (1, 3, h, h) and gives it k times as large, RGB in [0, 1] both: the interface of
Real-ESRGAN's exports. One that restores faces at its own size (GFPGAN's interface, k = 1) serves with ``side`` set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import Field, model_validator

from ops.perception.onnx import onnx_network
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params


class EnlargeParams(Params):
    """How; AniPortraitGAN's authors used GFPGAN and ESRGAN, which cannot be shipped."""

    method: Literal["lanczos", "linear", "network"] = "lanczos"
    network: Path | None = Field(default=None, description="ONNX file of the super-resolution")
    side: int | None = Field(default=None, ge=8, description="of the pictures it takes; any size if left out")

    @model_validator(mode="after")
    def _complete(self) -> EnlargeParams:
        if self.method == "network" and self.network is None:
            raise ValueError("method network needs network, an ONNX file")
        return self


def enlarged(image: np.ndarray, size: int, params: EnlargeParams) -> np.ndarray:
    """A square picture at a larger size.

    Args:
        image: (S, S, 3) uint8 RGB, S <= size.
        size: of the result.
        params: how.

    Raises:
        LineamentError: the network is missing, or gives something else than a larger picture.
    """
    if params.method == "network":
        image = _through_network(image, params)
    how = cv2.INTER_LINEAR if params.method == "linear" else cv2.INTER_LANCZOS4
    if image.shape[0] > size:
        how = cv2.INTER_AREA
    return cv2.resize(image, (size, size), interpolation=how)


def _through_network(image: np.ndarray, params: EnlargeParams) -> np.ndarray:
    assert params.network is not None
    side = params.side or image.shape[0]
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_LANCZOS4)
    (out, *_) = onnx_network(params.network)(small.transpose(2, 0, 1)[None] / 255)
    wide = out.shape[-1]
    if out.shape != (1, 3, wide, wide) or wide % side:
        raise LineamentError(
            f"{params.network}: made {out.shape} of (1, 3, {side}, {side}); a super-resolution network gives a picture "
            "some whole number of times as large."
        )
    return np.rint(np.clip(out[0].transpose(1, 2, 0), 0, 1) * 255).astype(np.uint8)
