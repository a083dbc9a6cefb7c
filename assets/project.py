"""Where the project lies."""

from __future__ import annotations

import os
from pathlib import Path

ROOT_VARIABLE = "LINEAMENT_ROOT"


def project_root() -> Path:
    """The folder with dvc.yaml: LINEAMENT_ROOT, or the one this package lies in."""
    return Path(os.environ.get(ROOT_VARIABLE) or Path(__file__).parents[1]).resolve()
