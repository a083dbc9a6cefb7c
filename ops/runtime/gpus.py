"""The GPUs of this machine, shared out among the stages that run on it, whoever started them: Dagster, `dvc repro`, a
bare command.

A stage whose ``meta`` in dvc.yaml names the pool ``gpu`` holds as many GPUs as it starts processes, and sees those
alone (``CUDA_VISIBLE_DEVICES``); where too few are free it waits, and first come is first served. The locks are files
of this machine, so they are gone with the process that held them. What Slurm or Ray starts has its GPUs from them.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from ops.runtime.errors import LineamentError
from ops.runtime.launch import HELD_VARIABLE, LAUNCH_VARIABLE
from ops.runtime.params import read_yaml

COUNT_VARIABLE = "LINEAMENT_GPUS"  # take the machine to have so many
LOCKS_VARIABLE = "LINEAMENT_GPU_LOCKS"
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
DVC_FILE = "dvc.yaml"
POOL = "gpu"
POLL = 0.5  # seconds between two looks
_PROCESSES = re.compile(r"--nproc[-_]per[-_]node[= ]+(\S+)")


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get(VISIBLE_VARIABLE)
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number in range(count())]


def count() -> int:
    """How many GPUs this machine has: LINEAMENT_GPUS, or what its driver lists."""
    given = os.environ.get(COUNT_VARIABLE)
    if given is not None:
        if not given.isdigit():
            raise LineamentError(f"{COUNT_VARIABLE}={given}: expected a number of GPUs.")
        return int(given)
    if shutil.which("nvidia-smi") is None:
        return 0
    said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in said.splitlines())


def wanted(stage: str) -> int:
    """How many GPUs a stage takes: one a process if it is of the pool ``gpu``, none where another one holds them for
    it, or where a cluster gives them out."""
    launcher = shlex.split(os.environ.get(LAUNCH_VARIABLE, ""))
    by_cluster = bool(launcher) and launcher[0].startswith("ops.runtime.")
    if HELD_VARIABLE in os.environ or by_cluster or not visible() or _pool(stage) != POOL:
        return 0
    found = _PROCESSES.search(" ".join(launcher))
    if found is None:
        return 1
    return int(found[1]) if found[1].isdigit() else len(visible())  # torchrun takes `gpu` and `auto` too


def _pool(stage: str) -> str | None:
    """The pool that dvc.yaml declares for a stage; none where this is not a project's folder."""
    if not Path(DVC_FILE).is_file():
        return None
    entry = (read_yaml(Path(DVC_FILE)).get("stages") or {}).get(stage) or {}
    return ((entry.get("do") or entry).get("meta") or {}).get("pool")


@contextmanager
def held(number: int, say: Callable[[str], None]) -> Iterator[list[int]]:
    """Hold so many GPUs; inside, this process and those it starts see no others. Nothing happens where there is none.

    Args:
        say: is told when it has to wait.

    Yields:
        the file descriptors of the locks, for a child process that shall keep them if this one is killed.

    Raises:
        LineamentError: this machine never has so many.
    """
    names = visible() if number else []
    if not names:
        yield []
        return
    if number > len(names):
        raise LineamentError(
            f"{number} GPUs are wanted, one a process, and there are {len(names)} here ({', '.join(names)}). "
            "Lower `processes` of its launcher in params.yaml."
        )
    folder = Path(os.environ.get(LOCKS_VARIABLE) or Path(tempfile.gettempdir()) / f"lineament-gpus-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as locks:
        mine = _take(folder, names, number, say, locks)
        before = {name: os.environ.get(name) for name in (VISIBLE_VARIABLE, HELD_VARIABLE)}
        os.environ[VISIBLE_VARIABLE] = os.environ[HELD_VARIABLE] = ",".join(mine)
        try:
            yield [stream.fileno() for stream in mine.values()]
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _take(
    folder: Path, names: list[str], number: int, say: Callable[[str], None], locks: ExitStack
) -> dict[str, IO[str]]:
    """Lock so many of the named GPUs. Who waits keeps the queue's lock, so that one who wants many is not overtaken
    for ever by those who want one."""
    with open(folder / "queue", "a") as queue:
        told = not _lock(queue)
        if told:
            say(f"waiting for {number} of the GPUs {', '.join(names)}: others came before")
            fcntl.flock(queue, fcntl.LOCK_EX)
        while True:
            with ExitStack() as attempt:
                mine: dict[str, IO[str]] = {}
                for name in names:
                    stream = open(folder / re.sub(r"\W", "_", name), "a")  # noqa: SIM115  the stack closes it
                    attempt.callback(stream.close)
                    if len(mine) < number and _lock(stream):
                        mine[name] = stream
                if len(mine) == number:
                    locks.push(attempt.pop_all())
                    return mine
            if not told:
                say(f"waiting for {number} of the GPUs {', '.join(names)}: {len(mine)} free")
                told = True
            time.sleep(POLL)


def _lock(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
