"""Is there room for what is about to start? Disk and memory, looked at before a stage begins. Section ``preflight``:

preflight:
  disk_gb: 1
  memory_gb: 0.5
  stages:
    train_giraffe:
      memory_gb: 4
"""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
from pydantic import Field

from ops.runtime.errors import LineamentError
from ops.runtime.params import Params, read_yaml, validate

GB = 1e9


class Room(Params):
    """What must be free; None takes the value for all stages."""

    disk_gb: float | None = Field(default=None, ge=0)
    memory_gb: float | None = Field(default=None, ge=0)


class PreflightParams(Params):
    """Thresholds for all stages, and for single ones."""

    disk_gb: float = Field(default=1.0, ge=0, description="free where the project lies")  # unpublished: our choice
    memory_gb: float = Field(default=0.5, ge=0, description="available, swap left out")  # unpublished: our choice
    stages: dict[str, Room] = Field(default_factory=dict)

    def of(self, stage: str) -> tuple[float, float]:
        """Disk and memory that a stage wants, in GB."""
        room = self.stages.get(stage, Room())
        disk = self.disk_gb if room.disk_gb is None else room.disk_gb
        return disk, self.memory_gb if room.memory_gb is None else room.memory_gb


def load_preflight(params_file: Path) -> PreflightParams:
    """The thresholds of params.yaml; the defaults where it has none.

    Raises:
        LineamentError: the section is wrong.
    """
    section = read_yaml(params_file).get("preflight") if params_file.is_file() else None
    return validate(PreflightParams, section or {}, f"{params_file}: preflight")


def free_disk(folder: Path) -> float:
    """GB free where a folder lies."""
    return shutil.disk_usage(folder).free / GB


def available_memory() -> float:
    """GB of memory that can be had without swapping."""
    return psutil.virtual_memory().available / GB


def check_room(stage: str, params_file: Path, folder: Path = Path()) -> None:
    """Refuse to start a stage that would run out of room.

    Raises:
        LineamentError: too little disk or memory is free; says how much is wanted, and what to do.
    """
    disk, memory = load_preflight(params_file).of(stage)
    problems = []
    if (found := free_disk(folder)) < disk:
        problems.append(
            f"{found:.1f} GB of disk are free, {disk:g} are wanted. `dvc gc --workspace` drops what no version at "
            "hand needs; data/.work may be deleted when nothing runs"
        )
    if (found := available_memory()) < memory:
        problems.append(
            f"{found:.1f} GB of memory are available, {memory:g} are wanted. Stop something, or use fewer workers "
            "(LINEAMENT_WORKERS=1)"
        )
    if problems:
        raise LineamentError(f"{'; '.join(problems)}. The thresholds are preflight.stages.{stage} in {params_file}.")
