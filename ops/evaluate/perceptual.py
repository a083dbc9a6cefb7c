"""Perceptual distances by name: MobileNetV2's always, LPIPS where the user has put its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from models.lpips import Lpips, Net
from ops.evaluate.features import MobileNetFeatures
from ops.evaluate.identity import read_tensors
from ops.runtime.errors import LineamentError
from ops.runtime.weights import locate, require

Distances = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]
"""Two equally long lists of (H, W, 3) uint8 pictures to the distances (N,) of their pairs."""

FILES: dict[Net, tuple[str, str]] = {
    "vgg": ("vgg_lpips", "vgg_lpips_heads"),
    "alex": ("alex_lpips", "alex_lpips_heads"),
}
BATCH = 8  # pairs at once: bounds memory


def perceptual(backbone: MobileNetFeatures, device: str = "cpu") -> Mapping[str, Distances]:
    """All distances that can be measured here: ``perceptual_mobilenetv2``, and ``lpips_vgg``, ``lpips_alex``.

    Raises:
        LineamentError: LPIPS' files are there, but damaged or others'.
    """
    found: dict[str, Distances] = {"perceptual_mobilenetv2": backbone.distances}
    for net, names in FILES.items():
        if all(locate(name).is_file() for name in names):
            found[f"lpips_{net}"] = _Lpips(net, device)
    return found


class _Lpips:
    def __init__(self, net: Net, device: str) -> None:
        backbone, heads = (require(name) for name in FILES[net])
        try:
            self._network = Lpips.from_state(net, read_tensors(backbone), read_tensors(heads)).to(device)
        except ValueError as error:
            raise LineamentError(f"{backbone} and {heads}: {error}.") from None
        self._device = device

    @torch.inference_mode()
    def __call__(self, a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
        found = [np.zeros(0, np.float32)]
        for start in range(0, len(a), BATCH):
            part = slice(start, start + BATCH)
            found.append(self._network(self._tensor(a[part]), self._tensor(b[part])).cpu().numpy())
        return np.concatenate(found)

    def _tensor(self, images: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2) / 127.5 - 1
