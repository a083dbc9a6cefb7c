"""Small published checkpoints and shards, made as the trainer makes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.giraffe import FieldConfig, Generator, GiraffeConfig
from ops.dag import select
from ops.policy import load_policies
from ops.store.pictures import encode_jpeg, encode_png
from ops.store.tar import ShardWriter
from ops.train import checkpoint
from ops.train.checkpoint import Checkpoint
from tests.conftest import ROOT

TINY = GiraffeConfig(
    resolution=32, feature_resolution=16, feature_channels=16, min_channels=8, z_dim=16, z_dim_background=8, samples=8,
    object_field=FieldConfig(hidden=16, blocks=2, skips=()),
    background_field=FieldConfig(hidden=8, blocks=2, skips=(), divisor=12.0),
)  # fmt: skip


def judged(metrics: Mapping[str, Any], system: str, variant: str | None = None) -> tuple[float, float, float]:
    """The score by which params.yaml promotes a system, and its bounds: low, score, high."""
    policy = load_policies(ROOT)[system]
    low, high = select(metrics, str(policy.interval).format(key=variant))
    return low, select(metrics, policy.score.format(key=variant)), high


def write_shards(folder: Path) -> Path:
    """Two samples of noise; enough to have a hash."""
    with ShardWriter(folder, per_shard=4) as writer:
        for number in range(2):
            image = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            writer.add(f"{number:016x}", {"jpg": encode_jpeg(image), "json": b'{"source": "studio"}'})
    return folder


def write_checkpoint(folder: Path, variant: str, data: str = "", seed: int = 0, **record: Any) -> Path:
    """A published GIRAFFE checkpoint of an untrained tiny generator, with curves and a grid."""
    torch.manual_seed(seed)
    generator = Generator(TINY)
    for parameter in generator.parameters():  # large weights: objects and angles differ visibly
        if parameter.ndim > 1:
            parameter.data.mul_(2.0)
    facts = {
        "system": "giraffe", "variant": variant, "step": 12, "images": 96, "data": data, "revision": "abc1234",
        "torch": torch.__version__, "parameters": {"generator": 1234},
        "params": {"model": TINY.model_dump(mode="json")}, **record,
    }  # fmt: skip
    folder.mkdir(parents=True)
    checkpoint.write_into(folder, "config.json", Checkpoint({"generator": dict(generator.state_dict())}, facts))
    (folder / "curves.csv").write_text(
        "step,images,discriminator,generator\n4,32,1.25,0.75\n8,64,1.125,0.875\n12,96,1.0625,\n"
    )
    (folder / "grid.png").write_bytes(encode_png(np.full((32, 64, 3), 90 + seed, np.uint8)))
    (folder / "snapshots.png").write_bytes(encode_png(np.full((32, 64, 3), 90 + seed, np.uint8)))
    return folder
