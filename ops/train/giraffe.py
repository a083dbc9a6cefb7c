"""Stage train_giraffe: GIRAFFE on face crops, plain or with a momentum contrastive loss (InfoNCE or AamNCE).

python -m ops.train.giraffe data/shards/faces data/checkpoints/giraffe/aamnce --variant aamnce
torchrun --nproc-per-node 2 -m ops.train.giraffe …          the same run shared by two processes
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from models.giraffe import GiraffeConfig
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.train.objectives.giraffe import GiraffeObjective, GiraffeTraining
from ops.train.run import train_and_publish
from ops.train.settings import TrainerParams


class GiraffeTrainer(TrainerParams):
    """The trainer with what the paper's baseline says: batch 32 and EMA 0.999, no mirroring."""

    images: int = Field(default=6_400_000, gt=0)  # unpublished: our choice, 200,000 steps


class TrainGiraffeParams(Params):
    """Parameters of the stage."""

    trainer: GiraffeTrainer = GiraffeTrainer()
    model: GiraffeConfig = GiraffeConfig()
    objective: GiraffeTraining = GiraffeTraining()


@stage("train_giraffe", TrainGiraffeParams)
def main(s: Stage[TrainGiraffeParams], shards: Path, out: Path, *, variant: str = "aamnce") -> None:
    """Train GIRAFFE on face crops: variant giraffe, infonce or aamnce."""
    p = s.params
    train_and_publish(
        s,
        lambda _: GiraffeObjective(p.model, p.objective, variant),
        shards,
        out,
        params=p.trainer,
        resolution=p.model.resolution,
        facts={"system": "giraffe", "variant": variant, "params": p.model_dump(mode="json")},
    )


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
