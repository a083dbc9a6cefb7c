"""Features of pictures for distances between sets and for perceptual distances, and their cache.

A number takes the name of its backbone: ``fd_mobilenetv2``, ``kd_mobilenetv2``, ``perceptual_mobilenetv2``; FID, KID
and LPIPS belong to other networks. Cached features are found by the hash of the data, of the backbone, and by the rule
by which pictures are resized: with another of these they are computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.features import MobileNetV2, perceptual_distance
from ops.evaluate.identity import read_tensors
from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish
from ops.runtime.shardwork import digest
from ops.runtime.weights import require
from ops.store.tar import file_sha256

LOW = 16 + 24 + 32  # channels of the first three maps, pooled: colours and textures rather than things
SIDE = 224  # of the pictures that the weights were trained on (Sandler et al. 2018)


class MobileNetFeatures:
    """MobileNetV2's 1280 pooled features, and 72 of its first layers.

    The many features say what is in a picture, and a distance of them wants thousands of samples. The few say which
    colours, edges and textures it has; a hundred samples fill their covariance. Numbers of the latter are called
    ``mobilenetv2_low``.

    Attributes:
        name: the suffix of every number made with them.
        digest: sha256 of the weights.
        rule: how pictures are resized: PIL's bilinear filter, which widens when it shrinks, to a square.
    """

    name = "mobilenetv2"
    batch = 32  # pictures at once: bounds memory

    def __init__(self, weights: Path, side: int = SIDE, device: str = "cpu") -> None:
        path = require("mobilenet_v2", weights)
        self.digest, self.side, self.device = file_sha256(path), side, device
        self.rule = f"pil-bilinear-{side}"
        try:
            self.network = MobileNetV2.from_state(read_tensors(path)).to(device)
        except ValueError as error:
            raise LineamentError(f"{path}: not MobileNetV2's weights: {error}.") from None

    def embed(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Square pictures, each (H, H, 3) uint8, one after the other to (N, 1280) float32, in constant memory."""
        return self._over(images, self.network, self.network.dimensions)

    def levels(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """As :meth:`embed`, (N, 72 + 1280): the features of the first layers, then the others."""

        def see(part: Tensor) -> Tensor:
            maps = self.network.maps(part)
            pooled = [*maps[:3], self.network.last(maps[-1])]
            return torch.cat([values.mean(dim=(2, 3)) for values in pooled], dim=1)

        return self._over(images, see, LOW + self.network.dimensions)

    @torch.inference_mode()
    def _over(self, images: Iterable[np.ndarray], see: Callable[[Tensor], Tensor], width: int) -> np.ndarray:
        """What a network sees in all pictures, (N, width); the next ones are resized while it looks at these."""
        found = [np.zeros((0, width), np.float32)]
        with ThreadPoolExecutor(1) as aside:
            now: Future[Tensor] | None = None
            for part in chain(batches(of_one_size(images), self.batch), [None]):
                upcoming = None if part is None else aside.submit(self.prepare, part)
                if now is not None:
                    found.append(see(now.result()).cpu().numpy())
                now = upcoming
        return np.concatenate(found)

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """Pictures as the network takes them: (N, 3, side, side) in [0, 1]."""
        size = (self.side, self.side)
        resized = [np.asarray(Image.fromarray(i).resize(size, Image.Resampling.BILINEAR)) for i in images]
        return torch.from_numpy(np.stack(resized)).to(self.device).permute(0, 3, 1, 2) / 255

    @torch.inference_mode()
    def distances(self, a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
        """Perceptual distances (N,) of pictures in pairs."""
        return perceptual_distance(self.network, self.prepare(a), self.prepare(b)).cpu().numpy()


class Embeds(Protocol):
    """Any backbone: what can be asked of it."""

    def embed(self, images: Iterable[np.ndarray]) -> np.ndarray: ...


def levels_of(backbone: Embeds, images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(N, 72) features of the first layers and (N, D) of the last; none of the former from another backbone."""
    if isinstance(backbone, MobileNetFeatures):
        low, features = np.split(backbone.levels(images), [LOW], axis=1)
        return low, features
    features = backbone.embed(images)
    return np.zeros((len(features), 0), np.float32), features


@lru_cache(maxsize=2)
def load_features(weights: Path, side: int = SIDE, device: str = "cpu") -> MobileNetFeatures:
    """The backbone, loaded once a process.

    Raises:
        LineamentError: its weights are missing, damaged or others'.
    """
    return MobileNetFeatures(weights, side, device)


def cached(
    folder: Path, backbone: MobileNetFeatures, data: str, images: Callable[[], Iterable[np.ndarray]]
) -> np.ndarray:
    """Features of a set of pictures, from the cache where they were computed before.

    Args:
        folder: of the cache.
        backbone: the network and its resize rule.
        data: hash of the set.
        images: the pictures, asked for only when they are needed.
    """
    path = folder / f"{digest(data, backbone.name, backbone.digest, backbone.rule)}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    features = backbone.embed(images())
    with publish(path) as temporary, temporary.open("wb") as file:
        np.save(file, features, allow_pickle=False)
    return features


def of_one_size(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The pictures as they come, if all are square and as large as the first.

    Raises:
        LineamentError: one is not; says which. Distances of mixed sizes tell how pictures were enlarged, not what is
            in them.
    """
    side = 0
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        side = side or height
        if (height, width) != (side, side):
            raise LineamentError(
                f"picture {number} has {width} x {height} pixels, where squares of {side} are wanted: features of "
                "mixed sizes cannot be compared. Bring the pictures to one size first."
            )
        yield image


def batches(items: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Items in lists of ``size``, the last one shorter."""
    part: list[np.ndarray] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
