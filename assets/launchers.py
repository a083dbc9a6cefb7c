"""Where and how a stage's command is started: one seam, chosen a stage at a time under ``launchers:`` in params.yaml.

    launchers:
      train_giraffe:
        kind: slurm
        options: ["--partition=gpu", "--gres=gpu:4"]
        processes: 4
        hours: 24

``local`` (the default), ``torchrun``, ``slurm`` and ``ray`` leave DVC where it is and only start the stage's module in
another way (ops/runtime/launch.py); ``kubernetes`` runs DVC itself in a pod that mounts the project. What is recorded
is the same whoever runs it. A stage that was killed (pre-empted, out of memory, a lost node) is started again, and a
training goes on from its last checkpoint.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ops.dag import PARAMS_FILE, load_yaml
from ops.runtime.launch import LAUNCH_VARIABLE
from ops.runtime.params import Params, validate


class Local(Params):
    """One process on this machine; what all launchers have in common.

    Attributes:
        hours: after which a run is ended as Ctrl-C would; a training goes on from its checkpoint in the next one.
        attempts: starts of a stage that was killed from outside; one that fails by itself is not repeated.
        elsewhere: whether the command may run on another machine, which needs the project on a shared file system.
    """

    kind: Literal["local"] = "local"
    hours: float | None = Field(default=None, gt=0)
    attempts: int = Field(default=3, ge=1)  # unpublished: our choice
    elsewhere: ClassVar[bool] = False

    @property
    def launch(self) -> str:
        """The module that starts the stage's module, with its options; empty for none."""
        return ""

    def environment(self) -> Mapping[str, str]:
        """Variables that reach the stage's own command."""
        return {LAUNCH_VARIABLE: self.launch} if self.launch else {}


def _torchrun(processes: int) -> str:
    return f"torch.distributed.run --standalone --nproc-per-node={processes}"


class Torchrun(Local):
    """Several processes on this machine, one a GPU."""

    kind: Literal["torchrun"]  # type: ignore[assignment]
    processes: int = Field(ge=1)

    @property
    def launch(self) -> str:
        return _torchrun(self.processes)


class Slurm(Local):
    """A job of Slurm; several processes of it if asked for. ``options`` are those of sbatch."""

    kind: Literal["slurm"]  # type: ignore[assignment]
    options: tuple[str, ...] = ()
    processes: int = Field(default=1, ge=1)
    elsewhere: ClassVar[bool] = True

    @property
    def launch(self) -> str:
        inner = f" -m {_torchrun(self.processes)}" if self.processes > 1 else ""
        return shlex.join(["ops.runtime.slurm", *self.options]) + inner


class Ray(Local):
    """A task on a Ray cluster, where so many cores and GPUs are free."""

    kind: Literal["ray"]  # type: ignore[assignment]
    address: str = "auto"
    cpus: float = Field(default=1, ge=0)
    gpus: float = Field(default=0, ge=0)
    processes: int = Field(default=1, ge=1)
    elsewhere: ClassVar[bool] = True

    @property
    def launch(self) -> str:
        words = ["ops.runtime.on_ray", f"--address={self.address}", f"--cpus={self.cpus:g}", f"--gpus={self.gpus:g}"]
        inner = f" -m {_torchrun(self.processes)}" if self.processes > 1 else ""
        return shlex.join([*words, f"--retries={self.attempts}"]) + inner


class Kubernetes(Local):
    """A pod that mounts the project, started by Dagster's own Pipes client.

    Attributes:
        claim: the persistent volume claim that holds the project; mounted at ``folder``.
        gpus: asked for as nvidia.com/gpu.
        pod: more of the pod's specification (nodeSelector, tolerations …), in Kubernetes' own words.
    """

    kind: Literal["kubernetes"]  # type: ignore[assignment]
    image: str
    claim: str = "lineament"
    folder: str = "/project"
    namespace: str | None = None
    gpus: int = Field(default=0, ge=0)
    processes: int = Field(default=1, ge=1)
    pod: dict[str, Any] = Field(default_factory=dict)

    @property
    def launch(self) -> str:
        return _torchrun(self.processes) if self.processes > 1 else ""

    def specification(self) -> dict[str, Any]:
        """The pod's specification: the project's volume, the GPUs, and what the user added."""
        container: dict[str, Any] = {
            "name": "stage",
            "working_dir": self.folder,
            "volume_mounts": [{"name": "project", "mount_path": self.folder}],
        }
        if self.gpus:
            container["resources"] = {"limits": {"nvidia.com/gpu": str(self.gpus)}}
        volume = {"name": "project", "persistent_volume_claim": {"claim_name": self.claim}}
        return {"containers": [container], "volumes": [volume], "termination_grace_period_seconds": 60, **self.pod}


Launcher = Local | Torchrun | Slurm | Ray | Kubernetes


class Launchers(Params):
    """The section ``launchers`` of params.yaml."""

    of: dict[str, Annotated[Launcher, Field(discriminator="kind")]] = Field(default_factory=dict)


def launcher_of(root: Path, stage: str) -> Launcher:
    """The launcher of a stage; local where params.yaml names none.

    Raises:
        LineamentError: the section is wrong.
    """
    file = root / PARAMS_FILE
    section: Any = load_yaml(file).get("launchers") if file.is_file() else None
    return validate(Launchers, {"of": section or {}}, f"{file}: launchers").of.get(stage) or Local()
