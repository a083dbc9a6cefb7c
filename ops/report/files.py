"""Files of numbers that the report reads: what is not there or damaged says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ops.report.page import Missing


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping.

    Raises:
        Missing: there is none, or it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise Missing(f"{path.name} has not been made; dvc repro makes it") from None
    except ValueError as error:
        raise Missing(f"{path.name} is damaged ({error}); dvc checkout or dvc repro restores it") from None
    if not isinstance(found, dict):
        raise Missing(f"{path.name} holds no mapping")
    return found
