"""Where and how a stage's command is started: one seam, chosen a stage at a time under ``launchers:`` in params.yaml.

    launchers:
      train_giraffe:
        kind: torchrun
        processes: 4

A launcher only changes the words and the environment of the command; DVC, and so what is recorded, stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from ops.dag import PARAMS_FILE, load_yaml
from ops.runtime.launch import LAUNCH_VARIABLE
from ops.runtime.params import Params, validate


class Launcher(Protocol):
    """How a stage is started."""

    def command(self, words: Sequence[str]) -> list[str]:
        """The words of the `dvc repro` command, as they should be started: here, by a queue, on another machine."""

    def environment(self) -> Mapping[str, str]:
        """Variables that reach the stage's own command."""


class Local(Params):
    """One process on this machine."""

    kind: Literal["local"] = "local"

    def command(self, words: Sequence[str]) -> list[str]:
        return list(words)

    def environment(self) -> Mapping[str, str]:
        return {}


class Torchrun(Params):
    """Several processes on this machine, one a GPU: the stage's module is started under torchrun."""

    kind: Literal["torchrun"]
    processes: int = Field(ge=1)

    def command(self, words: Sequence[str]) -> list[str]:
        return list(words)

    def environment(self) -> Mapping[str, str]:
        return {LAUNCH_VARIABLE: f"torch.distributed.run --standalone --nproc-per-node={self.processes}"}


class Launchers(Params):
    """The section ``launchers`` of params.yaml."""

    of: dict[str, Annotated[Local | Torchrun, Field(discriminator="kind")]] = Field(default_factory=dict)


def launcher_of(root: Path, stage: str) -> Launcher:
    """The launcher of a stage; local where params.yaml names none.

    Raises:
        LineamentError: the section is wrong.
    """
    file = root / PARAMS_FILE
    section: Any = load_yaml(file).get("launchers") if file.is_file() else None
    return validate(Launchers, {"of": section or {}}, f"{file}: launchers").of.get(stage) or Local()
