"""A published head generator, loaded once: identities from seeds, seen from cameras.

An identity is told one camera, the frontal one, whatever camera looks at it; so it stays the same from all sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.headcache import HeadCache
from models.render.occupancy import OccupancyConfig
from models.spherehead import HeadConfig, HeadGenerator, HeadOutput
from models.stylegan import Precision
from ops.apply.cameras import orbit
from ops.apply.generators import to_uint8
from ops.runtime.errors import LineamentError
from ops.runtime.params import validate
from ops.runtime.shardwork import digest
from ops.train.checkpoint import load_network
from ops.train.export import read_config, read_weights

SYSTEM = "heads"
TRUNCATION = 0.7  # SphereHead's default


class Heads:
    """The generator of a published checkpoint.

    Attributes:
        folder: where it lies.
        record: its ``config.json``.
        config: of the network.
        net: the averaged network, frozen.
        digest: of weights and configuration.
        resolution: side of its pictures.

    Raises:
        LineamentError: the checkpoint is incomplete, damaged, pickled, of another system or of another architecture.
    """

    batch = 8  # pictures at once: bounds memory

    def __init__(self, folder: Path, device: str = "cpu", record: dict[str, Any] | None = None) -> None:
        self.folder, self.device = folder, device
        self.record = read_config(folder) if record is None else record
        if self.record.get("system") != SYSTEM:
            raise LineamentError(
                f"{folder}: a checkpoint of system {self.record.get('system')!r}, where one of 'heads' is wanted "
                "(data/checkpoints/heads/VARIANT)."
            )
        self.digest = digest(self.record["files"], SYSTEM, self.record["params"])
        self.config = validate(HeadConfig, self.record["params"]["model"], f"{folder}/config.json: params.model")
        self.resolution = self.config.resolution
        try:
            self.net = HeadGenerator(self.config)
        except ValueError as error:
            raise LineamentError(f"{folder}/config.json: params.model: {error}.") from None
        load_network(self.net, read_weights(folder, "generator"), folder / "generator.safetensors")
        self.net.to(device).eval().requires_grad_(False)

    def latent(self, seed: int) -> Tensor:
        """(1, z_size): the identity of a seed."""
        z = torch.randn(1, self.config.mapping.z_size, generator=torch.Generator().manual_seed(seed))
        return z.to(self.device)

    @torch.no_grad()
    def styles(self, z: Tensor, truncation: float = TRUNCATION, cutoff: int | None = None) -> Tensor:
        """(N, z_size) latents to (N, w_count, w_size) styles.

        ``truncation`` pulls the first ``cutoff`` styles (all if None) towards the average.
        """
        front = orbit(0.0).to(self.device).expand(len(z), -1)
        return self.net.mapping(z, front, truncation, cutoff)

    def identity(self, seed: int | None, truncation: float = TRUNCATION, cutoff: int | None = None) -> Tensor:
        """(1, w_count, w_size): the head of a seed; without a seed the head that an inversion found, else seed 0."""
        if seed is None and "inversion" in self.record:
            return read_weights(self.folder, "styles")["ws"].to(self.device)
        return self.styles(self.latent(seed or 0), truncation, cutoff)

    def cache(self, ws: Tensor, occupancy: bool = True, precision: Precision | None = None) -> HeadCache:
        """One identity, prepared to be seen from many cameras; ``precision`` is super-resolution's."""
        return HeadCache(self.net, ws, occupancy=OccupancyConfig() if occupancy else None, precision=precision)

    @torch.inference_mode()
    def views(self, ws: Tensor, labels: Tensor, precision: Precision | None = None) -> Iterator[HeadOutput]:
        """One identity (1, w_count, w_size) from V cameras (V, 25): output in batches, planes computed once.

        Raises:
            LineamentError: a picture is not finite.
        """
        planes = self.net.planes(ws, "const")
        for part in labels.to(self.device).split(self.batch):
            same = ws.expand(len(part), -1, -1)
            yield self.checked(
                self.net.synthesise(same, part, planes=planes, noise="const", jitter=False, precision=precision)
            )

    def checked(self, output: HeadOutput) -> HeadOutput:
        """The output, if its pictures are finite.

        Raises:
            LineamentError: they are not.
        """
        if not output.image.isfinite().all():
            raise LineamentError(f"{self.folder}: draws values that are not finite; its training diverged.")
        return output

    def render(self, seeds: Sequence[int], azimuths: Sequence[float]) -> np.ndarray:
        """See :class:`ops.apply.generators.Renderer`; identities are not truncated."""
        labels = torch.cat([orbit(azimuth) for azimuth in azimuths])
        found = [
            np.concatenate([to_uint8(out.image) for out in self.views(self.styles(self.latent(seed), 1.0), labels)])
            for seed in seeds
        ]
        return np.stack(found)


def pictures(outputs: Iterable[HeadOutput]) -> np.ndarray:
    """(N, H, H, 3) uint8 pictures of outputs."""
    return np.concatenate([to_uint8(out.image) for out in outputs])
