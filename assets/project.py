"""Where the project lies, and how DVC is called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.runtime.errors import LineamentError

ROOT_VARIABLE = "LINEAMENT_ROOT"
DVC = (sys.executable, "-m", "dvc")
Status = Mapping[str, Sequence[Any]]  # by unit that is not up to date, the reasons
QUIET = {"DVC_NO_ANALYTICS": "true", "PYTHONUNBUFFERED": "1"}


def project_root() -> Path:
    """The folder with dvc.yaml: LINEAMENT_ROOT, or the one this package lies in."""
    return Path(os.environ.get(ROOT_VARIABLE) or Path(__file__).parents[1]).resolve()


def environment() -> dict[str, str]:
    """The environment of DVC's commands: `python` is the interpreter that runs here."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, **QUIET, "PATH": path}


def dvc_status(root: Path, units: Sequence[str] = ()) -> Status:
    """What `dvc status` says: for each unit that is not up to date, the reasons.

    Raises:
        LineamentError: DVC cannot say, for instance because another DVC command holds its lock.
    """
    command = [*DVC, "status", "--json", *units]
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise LineamentError(f"dvc status: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout or "{}")


def changed_deps(status: Status) -> dict[str, set[str]]:
    """The dependencies that DVC calls changed, by unit."""
    found: dict[str, set[str]] = {}
    for name, reasons in status.items():
        found[name] = {dep for reason in reasons if isinstance(reason, dict) for dep in reason.get("changed deps", {})}
    return found
