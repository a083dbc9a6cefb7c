"""Head generators of a few thousand weights, whose networks have all the parts of the large ones."""

from __future__ import annotations

import torch

from models.camera import intrinsics, pack_label, pose_on_sphere
from models.spherehead import HeadConfig
from ops.train.objective import Batch, Moment
from ops.train.objectives.heads import HeadsObjective, HeadsTraining, HeadVariant, model_of

SIDE = 16
CPU = torch.device("cpu")
MODEL = {
    "resolution": SIDE, "neural_resolution": 8, "mapping": {"z_size": 6, "w_size": 8}, "plane_resolution": 8,
    "plane_channels": 4, "channel_base": 64, "channel_max": 8, "backbone_channels": 8, "head_channels": 6,
    "decoder_channels": 6, "parsing_classes": 19, "superresolution_channels": [6, 4],
    "render": {"coarse": 4, "fine": 4},
}  # fmt: skip
DISCRIMINATOR = {"mapping_layers": 2}


def cameras(n: int = 8) -> torch.Tensor:
    """(n, 25) labels all around the head."""
    azimuth = torch.arange(n) * (2 * torch.pi / n)
    return pack_label(pose_on_sphere(azimuth, torch.zeros(n)), intrinsics(3.5))


def build(variant: str = "spherehead", seed: int = 0, model: dict | None = None, **training) -> HeadsObjective:
    """An objective of the tiny model."""
    torch.manual_seed(seed)
    chosen = HeadVariant.parse(variant)
    config = model_of(HeadConfig.model_validate({**MODEL, **(model or {})}), chosen)
    options = HeadsTraining.model_validate({"r1_every": 2, "density_every": 2, **training})
    return HeadsObjective(config, options, chosen, cameras(), DISCRIMINATOR)


def moment(step: int = 0, **settings) -> Moment:
    """A step's moment; torch's own generator is seeded as the trainer does it."""
    torch.manual_seed(step)
    return Moment(step, 4 * step, torch.Generator().manual_seed(100 + step), CPU, settings=settings)


def real(n: int = 4) -> Batch:
    """A batch of noise from cameras all around."""
    random = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(n, 3, SIDE, SIDE, generator=random) * 2 - 1,
        "mask": torch.rand(n, 1, SIDE, SIDE, generator=random),
        "parsing": torch.randint(0, 19, (n, SIDE, SIDE), generator=random, dtype=torch.uint8),
        "camera": cameras(n),
    }
