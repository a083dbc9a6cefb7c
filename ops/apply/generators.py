"""A published checkpoint as a thing that draws objects from angles, whatever system it is of.

Evaluation and sampling need no more than this of a generator. An object is named by a seed, so the same seed is the
same codes in every checkpoint with codes of the same length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from models.giraffe import Generator as GiraffeGenerator
from models.giraffe import GiraffeConfig, Latents, view_label
from ops.runtime.errors import LineamentError
from ops.runtime.params import validate
from ops.runtime.shardwork import digest
from ops.train.checkpoint import load_network
from ops.train.export import read_config, read_weights


class Renderer(Protocol):
    """A trained generator of objects that can be looked at from all sides.

    Attributes:
        record: the checkpoint's ``config.json``: system, variant, step, data, revision, params...
        digest: of the weights and the configuration.
        resolution: side of its pictures.
    """

    record: dict[str, Any]
    digest: str
    resolution: int

    def render(self, seeds: Sequence[int], azimuths: Sequence[float]) -> np.ndarray:
        """Objects from angles.

        Args:
            seeds: N objects; an object does not depend on the others asked for.
            azimuths: A camera azimuths in degrees, 0 in front, positive on the subject's left.

        Returns:
            (N, A, resolution, resolution, 3) uint8 RGB.

        Raises:
            LineamentError: a picture is not finite.
        """
        ...


def load_generator(folder: Path, device: str = "cpu") -> Renderer:
    """The generator of a published checkpoint, with averaged weights.

    Raises:
        LineamentError: the checkpoint is incomplete or damaged, or of a system unknown here.
    """
    record = read_config(folder)
    system = record.get("system")
    if system not in _SYSTEMS:
        raise LineamentError(f"{folder}: a checkpoint of system {system!r}; known: {', '.join(_SYSTEMS)}.")
    return _SYSTEMS[system](folder, record, device)


def checkpoint_digest(record: dict[str, Any]) -> str:
    """What a checkpoint's pictures depend on: weights and configuration."""
    return digest(record["files"], record["system"], record["params"])


class GiraffeRenderer:
    """GIRAFFE behind the interface; azimuth turns the object before a fixed background, as in the paper."""

    batch = 16  # pictures at once: bounds memory

    def __init__(self, folder: Path, record: dict[str, Any], device: str) -> None:
        self.record, self.digest, self.device = record, checkpoint_digest(record), device
        self._folder = folder
        config = validate(GiraffeConfig, record["params"]["model"], f"{folder}/config.json: params.model")
        self.resolution = config.resolution
        self._net = GiraffeGenerator(config)
        load_network(self._net, read_weights(folder, "generator"), folder / "generator.safetensors")
        self._net.to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def render(self, seeds: Sequence[int], azimuths: Sequence[float]) -> np.ndarray:
        codes = [self._net.sample_latents(1, torch.Generator().manual_seed(seed)) for seed in seeds]
        per_object = len(azimuths)
        latents = [torch.cat(parts).repeat_interleave(per_object, 0) for parts in zip(*codes)]
        angles = torch.tensor([math.radians(a) for a in azimuths]).repeat(len(seeds))
        labels = view_label(self._net.config, angles)
        found = []
        for start in range(0, len(labels), self.batch):
            part = slice(start, start + self.batch)
            view = labels[part].to(self.device)
            images = self._net(Latents(*(z[part].to(self.device) for z in latents)), view)
            if not images.isfinite().all():
                raise LineamentError(f"{self._folder}: draws values that are not finite; its training diverged.")
            found.append(to_uint8(images))
        shape = (len(seeds), per_object, self.resolution, self.resolution, 3)
        return np.concatenate(found).reshape(shape)


def _heads(folder: Path, record: dict[str, Any], device: str) -> Renderer:
    from ops.apply.heads import Heads

    return Heads(folder, device, record)


_SYSTEMS: dict[str, Callable[[Path, dict[str, Any], str], Renderer]] = {"giraffe": GiraffeRenderer, "heads": _heads}


def to_uint8(images: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] to (N, H, W, 3) uint8."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
