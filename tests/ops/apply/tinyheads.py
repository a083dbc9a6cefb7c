"""A published checkpoint of the smallest head generator, with a solid ball for a head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.toyhead import make_solid
from models.mapping import MappingConfig
from models.spherehead import HeadConfig, HeadGenerator
from ops.train import checkpoint
from ops.train.checkpoint import Checkpoint


def config(variant: str = "spherehead") -> HeadConfig:
    """32 pixels, 16 rays a side."""
    return HeadConfig(
        variant=variant, resolution=32, neural_resolution=16, mapping=MappingConfig(z_size=16, w_size=16),
        plane_resolution=32, plane_channels=8, channel_base=256, channel_max=16, backbone_channels=16, head_channels=16,
        decoder_channels=16, parsing_classes=19, superresolution_channels=(16, 8),
        render={"coarse": 10, "fine": 10},
    )  # fmt: skip


def write_heads(folder: Path, variant: str = "spherehead", seed: int = 0, data: str = "", **record: Any) -> Path:
    """Publish an untrained generator; the facts may be overridden."""
    torch.manual_seed(seed)
    net = HeadGenerator(config(variant))
    tensors = {"generator": dict(net.state_dict()), **record.pop("tensors", {})}
    facts = {
        "system": "heads", "variant": variant, "step": 12, "images": 96, "data": data, "revision": "abc1234",
        "torch": torch.__version__, "parameters": {"generator": 1234},
        "params": {"model": config(variant).model_dump(mode="json")}, **record,
    }  # fmt: skip
    folder.mkdir(parents=True)
    for stem in tensors:
        (folder / stem).parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_into(folder, "config.json", Checkpoint(tensors, facts))
    return folder


def solid(net: HeadGenerator) -> HeadGenerator:
    """Give a loaded generator a surface."""
    return make_solid(net)
