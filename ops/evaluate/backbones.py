"""Feature networks by name, behind one interface, and the names that distances made with them bear."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ops.evaluate.features import batches, load_features, of_one_size
from ops.evaluate.identity import read_tensors
from ops.runtime.errors import LineamentError
from ops.runtime.weights import require
from ops.store.tar import file_sha256


class Backbone(Protocol):
    """A feature network.

    Attributes:
        name: of the network.
        digest: sha256 of its weights.
        rule: how pictures are resized before it.
    """

    name: str
    digest: str
    rule: str

    def embed(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Square pictures, each (H, H, 3) uint8, one after the other to (N, D) float32, in constant memory."""
        ...


class _Network:
    batch = 32  # pictures at once: bounds memory

    def __init__(self, name: str, network: nn.Module, digest: str, rule: str, prepare: Callable[[np.ndarray], Tensor]):
        self.name, self.digest, self.rule = name, digest, rule
        self._network, self._prepare = network, prepare

    @torch.inference_mode()
    def embed(self, images: Iterable[np.ndarray]) -> np.ndarray:
        device = next(self._network.buffers()).device
        found = [
            self._network(torch.stack([self._prepare(image) for image in part]).to(device)).float().cpu().numpy()
            for part in batches(of_one_size(images), self.batch)
        ]
        if not found:
            raise LineamentError(f"{self.name}: no pictures were given.")
        return np.concatenate(found)


def load_backbone(name: str, weights: Path, device: str = "cpu") -> Backbone:
    """A feature network with verified weights.

    Raises:
        LineamentError: unknown, or its weights are missing, damaged or others'.
    """
    if name == "mobilenetv2":
        return load_features(weights, device=device)
    if name not in _BUILD:
        raise LineamentError(f"there is no feature network '{name}'; choose one of mobilenetv2, {', '.join(_BUILD)}.")
    path = require(name, weights)
    try:
        network, rule, prepare = _BUILD[name](path)
    except ValueError as error:
        raise LineamentError(f"{path}: {error}.") from None
    return _Network(name, network.to(device), file_sha256(path), rule, prepare)


def _efficientnet(path: Path) -> tuple[nn.Module, str, Callable[[np.ndarray], Tensor]]:
    from models.efficientnet import SIDE, EfficientNetLite0

    def prepare(image: np.ndarray) -> Tensor:
        resized = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        return torch.from_numpy(resized.copy()).permute(2, 0, 1) / 127.5 - 1

    return EfficientNetLite0.from_state(read_tensors(path)), f"pil-bicubic-{SIDE}", prepare


def _inception(path: Path) -> tuple[nn.Module, str, Callable[[np.ndarray], Tensor]]:
    from models.inception import SIDE, InceptionFid

    def prepare(image: np.ndarray) -> Tensor:  # as the converted weights' publishers resize: bilinear, not antialiased
        x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
        return F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0] * 2 - 1

    return InceptionFid.from_state(read_tensors(path)), f"torch-bilinear-{SIDE}", prepare


_BUILD: dict[str, Callable[[Path], tuple[nn.Module, str, Callable[[np.ndarray], Tensor]]]] = {
    "efficientnet_lite0": _efficientnet,
    "inception_fid": _inception,
}


def distance_name(kind: str, backbone: str) -> str:
    """``fid`` and ``kid`` for the FID's own network alone; ``fd_…`` and ``kd_…`` with the name of any other."""
    if backbone == "inception_fid":
        return {"fd": "fid", "kd": "kid"}[kind]
    return f"{kind}_{backbone}"
