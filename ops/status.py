"""How many pictures came how far, step by step: read from the label tables, so that it can be compared with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ops.crawl.raw import TABLE
from ops.crawl.sources import load_sources
from ops.dag import Dag
from ops.store import tables

LABELS = "data/labels"


def step_tables(source: str, root: Path = Path()) -> dict[str, Path]:
    """Where each step's table of a source lies, in the order of the lineage: every table that dvc.yaml puts into the
    source's folder of labels."""
    found = {"crawl": root / "data/raw" / source / TABLE}
    for unit in Dag.load(root).units.values():
        for out in map(Path, unit.outs):
            if out.parent == Path(LABELS, source) and out.suffix == ".parquet":
                found[out.stem] = root / out
    return found


def step_counts(source: str) -> dict[str, dict[str, Any] | None]:
    """Per step what came in, was kept and fell, and why; None for a step that has not run."""
    return {
        step: tables.counts(tables.read(path)) if path.is_file() else None for step, path in step_tables(source).items()
    }


def status_table() -> str:
    """A table to read, one block a source."""
    lines = []
    for source in load_sources():
        lines.append(f"{source}\n  {'step':10} {'in':>7} {'kept':>7} {'fell':>7}  why")
        for step, count in step_counts(source).items():
            if count is None:
                lines.append(f"  {step:10} not run yet: dvc repro {step}@{source}")
                continue
            why = ", ".join(f"{reason} {number}" for reason, number in count["reasons"].items())
            lines.append(f"  {step:10} {count['in']:7} {count['kept']:7} {count['rejected']:7}  {why}")
    return "\n".join(lines)
