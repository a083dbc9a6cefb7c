"""What every training run is told, whatever the system."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from ops.runtime.params import Params
from ops.train.schedule import Plan


class TrainerParams(Params):
    """Length, batches, precision, pictures and safety of a run. Learning rates belong to the objective.

    Intervals are in steps; phases and curves (``plan``) in images.
    """

    images: int = Field(default=25_000_000, gt=0, description="real images to see in all")  # EG3D, SphereHead Sec. 4.1
    batch: int = Field(default=32, gt=0, description="images a step, over all processes")  # EG3D and GIRAFFE: 32
    micro_batch: int | None = Field(default=None, gt=0, description="images a forward pass and process")
    seed: int = Field(default=0, ge=0)
    ema: float = Field(default=0.999, ge=0, lt=1, description="decay of the averaged weights a step")  # GIRAFFE: 0.999
    amp: Literal["none", "bf16", "fp16"] = Field(default="none", description="mixed precision")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = Field(default=False, description="torch.compile the losses; second-order terms stay eager")
    channels_last: bool = False
    threads: int = Field(default=2, gt=0, description="CPU threads of torch; sums on the CPU depend on it")
    workers: int = Field(default=2, ge=0, description="threads that decode pictures")
    cache_mb: int = Field(default=1024, ge=0, description="decoded pictures kept in memory")
    mirror: bool = Field(default=True, description="show half of the pictures mirrored, with mirrored cameras")  # EG3D
    log_every: int = Field(default=20, gt=0)  # unpublished: our choice
    checkpoint_every: int = Field(default=2000, gt=0)  # unpublished: our choice
    snapshot_every: int = Field(default=2000, gt=0, description="steps between pictures of samples")
    snapshot_pictures: int = Field(default=0, ge=0, description="pictures kept of each snapshot, where a system draws")
    keep: int = Field(default=2, gt=0, description="checkpoints kept")  # unpublished: our choice
    grid_rows: int = Field(default=4, gt=0)
    grid_columns: int = Field(default=8, gt=0)
    max_rollbacks: int = Field(default=3, ge=0, description="returns to a checkpoint before a diverging run gives up")
    diverged_above: float = Field(default=1e6, gt=0, description="a loss beyond it counts as divergence")  # our choice
    tensorboard: bool = Field(default=True, description="event files in the run folder")
    start: dict[str, int] = Field(
        default_factory=dict, description="fine-tuning: by model, the registered version to start from"
    )
    plan: Plan = Plan()

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.micro_batch is not None and self.batch % self.micro_batch:
            raise ValueError(f"batch {self.batch} is not divisible by micro_batch {self.micro_batch}")
        return self

    @property
    def steps(self) -> int:
        """Steps in all."""
        return math.ceil(self.images / self.batch)
