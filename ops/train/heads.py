"""Stage train_heads: SphereHead and the generators it is compared with, one a line of the paper's ablation.

python -m ops.train.heads data/shards/heads data/checkpoints/heads/spherehead --variant spherehead
python -m ops.train.heads data/shards/heads data/checkpoints/heads/panohead_vico --variant panohead_vico
torchrun --nproc-per-node 2 -m ops.train.heads …          the same run shared by two processes
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from models.spherehead import HeadConfig
from models.stylegan import Precision
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.train.data import Pictures
from ops.train.objectives.heads import HeadsObjective, HeadsTraining, HeadVariant, model_of, plan_of
from ops.train.run import train_and_publish
from ops.train.settings import TrainerParams

VIEWS = 4096  # cameras of the data kept for snapshots; unpublished: our choice


class HeadTrainer(TrainerParams):
    """The trainer with EG3D's numbers. An empty ``plan`` stands for the variant's own phases."""

    ema: float = Field(default=0.99778, ge=0, lt=1, description="decay a step")  # EG3D: half-life 10,000 images at 32


class HeadDiscriminatorParams(Params):
    """What the discriminator does not take from the generator."""

    mapping_layers: int = Field(default=8, ge=1)  # StyleGAN2
    group: int = Field(default=4, ge=1)  # StyleGAN2
    precision: Precision = "float16"  # EG3D
    half_blocks: int = Field(default=4, ge=0)  # EG3D


class TrainHeadsParams(Params):
    """Parameters of the stage. The model's ``variant`` and ``parsing`` are those of ``--variant``."""

    variants: tuple[str, ...] = ("eg3d", "panohead", "single_sphere", "dual_sphere", "spherehead")  # rows of the DAG
    trainer: HeadTrainer = HeadTrainer()
    model: HeadConfig = HeadConfig()
    discriminator: HeadDiscriminatorParams = HeadDiscriminatorParams()
    objective: HeadsTraining = HeadsTraining()


@stage("train_heads", TrainHeadsParams)
def main(s: Stage[TrainHeadsParams], shards: Path, out: Path, *, variant: str = "spherehead") -> None:
    """Train a head generator: eg3d, panohead, single_sphere, dual_sphere or spherehead, e.g. panohead_vico."""
    p, chosen = s.params, HeadVariant.parse(variant)
    model = model_of(p.model, chosen)
    plan = p.trainer.plan if p.trainer.plan.phases or p.trainer.plan.curves else plan_of(p.objective, chosen)
    trainer = p.trainer.model_copy(update={"plan": plan})
    used = p.model_copy(update={"model": model, "trainer": trainer})
    train_and_publish(
        s,
        lambda pictures: HeadsObjective(model, p.objective, chosen, cameras_of(pictures), p.discriminator.model_dump()),
        shards,
        out,
        params=trainer,
        resolution=model.resolution,
        masks=model.foreground,
        parsing=model.has_parsing,
        facts={"system": "heads", "variant": variant, "params": used.model_dump(mode="json", exclude={"variants"})},
    )


def cameras_of(pictures: Pictures, most: int = VIEWS) -> Tensor:
    """(M, 25) cameras spread evenly over all samples, each as often as it is shown in training."""
    pool = pictures.pool("all")
    numbers = pool[np.linspace(0, len(pool) - 1, min(most, len(pool))).round().astype(int)]
    return torch.from_numpy(np.stack([pictures.camera(int(number)) for number in numbers]))


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
