"""How DVC is called: by its command line, with this interpreter's python first on the path, patiently.

DVC refuses a command while another one holds what it needs; such a command is tried again, each time after a longer
pause.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.locks import drop_dead_locks
from ops.runtime.errors import LineamentError

DVC = (sys.executable, "-m", "dvc")
Status = Mapping[str, Sequence[Any]]  # by unit that is not up to date, the reasons
QUIET = {"DVC_NO_ANALYTICS": "true", "PYTHONUNBUFFERED": "1"}
BUSY = re.compile(r"is busy, it is being blocked by|[Uu]nable to acquire lock|Unable to read RWLock-file")
LONGEST_PAUSE = 30.0  # seconds between two tries
PATIENCE = 120.0  # seconds a short command waits for its turn


def environment() -> dict[str, str]:
    """The environment of DVC's commands: `python` is the interpreter that runs here."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, **QUIET, "PATH": path}


def dvc(root: Path, *words: str, patience: float = PATIENCE) -> str:
    """Run a short dvc command; while another one is in its way, wait and try again. What the dead left in its way is
    taken out of it.

    Args:
        patience: seconds after which a busy DVC is an error.

    Returns:
        what it printed.

    Raises:
        LineamentError: it failed, with what it said.
    """
    deadline, pause = time.monotonic() + patience, 0.5
    cleared = False
    while True:
        done = subprocess.run([*DVC, *words], cwd=root, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.strip() or done.stdout.strip()
        if not BUSY.search(said) or (cleared and time.monotonic() + pause > deadline):
            raise LineamentError(f"dvc {' '.join(words[:2])}: {said}")
        drop_dead_locks(root)
        if not cleared:
            cleared = True
            continue
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def dvc_status(root: Path, units: Sequence[str] = (), patience: float = 0) -> Status:
    """What `dvc status` says: for each unit that is not up to date, the reasons.

    Args:
        patience: seconds after which a busy DVC is an error.

    Raises:
        LineamentError: DVC cannot say, for instance because another DVC command holds its lock.
    """
    return json.loads(dvc(root, "status", "--json", *units, patience=patience) or "{}")


def changed_deps(status: Status) -> dict[str, set[str]]:
    """The dependencies that DVC calls changed, by unit."""
    found: dict[str, set[str]] = {}
    for name, reasons in status.items():
        found[name] = {dep for reason in reasons if isinstance(reason, dict) for dep in reason.get("changed deps", {})}
    return found
