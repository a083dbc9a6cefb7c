"""The settings of the project's Dagster: dagster.yaml, with a slot of each pool for each GPU of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ops.runtime import gpus
from ops.runtime.params import read_yaml
from ops.runtime.publish import publish

FILE = "dagster.yaml"


def wanted(root: Path) -> dict[str, Any]:
    """The project's dagster.yaml, its pools' default limit the number of GPUs where there are any."""
    settings = read_yaml(root / FILE)
    pools = settings.setdefault("concurrency", {}).setdefault("pools", {})
    pools["default_limit"] = max(pools.get("default_limit", 1), gpus.count())
    return settings


def prepare(root: Path, home: Path) -> tuple[Path, int]:
    """Write those settings into DAGSTER_HOME, which is made if need be; the file and the limit.

    Raises:
        LineamentError: the project has no dagster.yaml.
    """
    settings = wanted(root)
    with publish(home / FILE) as temporary:
        temporary.write_text(yaml.safe_dump(settings, sort_keys=False))
    return home / FILE, settings["concurrency"]["pools"]["default_limit"]
