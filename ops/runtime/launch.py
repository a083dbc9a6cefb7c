"""Starting a stage's module under another program, such as torchrun, without the stage or dvc.yaml knowing.

``LINEAMENT_LAUNCH`` holds the module to start and its options, for instance
``torch.distributed.run --standalone --nproc-per-node=4``; whoever launches a stage sets it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

LAUNCH_VARIABLE = "LINEAMENT_LAUNCH"
HELD_VARIABLE = "LINEAMENT_GPUS_HELD"  # the GPUs that whoever started this process holds for it (ops/runtime/gpus.py)


def is_first() -> bool:
    """Whether this is the only process of a run, or the one of several that writes and speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def running_module() -> str:
    """The name behind ``python -m``; empty where the program was started in another way."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec is not None else ""


def launched(module: str, arguments: Sequence[str], locks: Sequence[int] = ()) -> int | None:
    """Run ``python -m module arguments`` under the launcher that the environment names, and wait for it.

    Args:
        locks: file descriptors of locks that it shall hold too, should this process be killed.

    Returns:
        its exit code; None where no launcher is named, this process is one that it started, or there is no module.
    """
    launcher = os.environ.get(LAUNCH_VARIABLE)
    if not launcher or not module:
        return None
    inner = {name: value for name, value in os.environ.items() if name != LAUNCH_VARIABLE}
    inner.setdefault(HELD_VARIABLE, "elsewhere")
    command = [sys.executable, "-m", *shlex.split(launcher), "-m", module, *arguments]
    process = subprocess.Popen(command, env=inner, pass_fds=locks)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the launcher got the signal as well: let it end its processes in its own way
            continue
