"""The section about the papers' tables: each that was run beside its published rows, and why the others were not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ops.report.data import read_json
from ops.report.page import Html, Missing, join, notes, table, tag, warning

WORDS = {
    "ready": "run",
    "fallback": "run with another backbone",
    "untrained": "not run: nothing trained",
    "not here": "not run: not measured by this version",
}


def protocols_section(root: Path) -> Html:
    """A table of all protocols, then each that was run.

    Raises:
        Missing: the stage has not run.
    """
    folder = root / "data/evaluation/protocols"
    if not (folder / "states.json").is_file():
        raise Missing("evaluate_protocols has not run; dvc repro evaluate_protocols does")
    states = read_json(folder / "states.json")
    rows = [
        [
            f"{s['paper']}, {s['source']}",
            tag("span", s["title"]),
            WORDS.get(s["word"], s["word"]),
            tag("span", s["why"]),
        ]
        for s in states.values()
    ]
    parts: list[str] = [table(("where published", "what it shows", "here", "why"), rows, "Tables and figures")]
    for name in states:
        path = folder / f"{name}.json"
        if path.is_file():
            parts.append(_result(read_json(path)))
    return join(parts)


def _result(result: dict[str, Any]) -> Html:
    protocol = result["protocol"]
    measured = list(dict.fromkeys(metric for values in result["rows"].values() for metric in values))
    published = protocol["reference"].items()
    columns = [*measured, *(m for m in protocol["metrics"] if m not in measured)]
    rows: list[list[object]] = [
        [tag("b", row), *(_cell(values.get(column)) for column in columns)] for row, values in result["rows"].items()
    ]
    rows += [[f"{row} (paper)", *map(_published, columns, [values] * len(columns))] for row, values in published]
    caption = (
        f"{protocol['paper']}, {protocol['source']}; {result['samples']:,} samples, seed {protocol['seed']}, rules "
    )
    caption += protocol["hash"][:12]
    lines = [*result["differs"], *(f"Not measured: {row}: {why}." for row, why in result["not_measured"].items())]
    if protocol["note"]:
        lines.append(protocol["note"])
    parts = [
        tag("h3", protocol["title"]),
        table(("row", *columns), rows, caption),
        *map(warning, result["warnings"]),
        notes(lines),
    ]
    return join(parts)


def _published(metric: str, values: dict[str, float]) -> object:
    return tag("span", f"{values[metric]:g}", class_="soft") if metric in values else None


def _cell(number: dict[str, Any] | None) -> object:
    if number is None or number["value"] is None:
        return None
    if number["low"] is None:
        return number["value"]
    return join([tag("b", f"{number['value']:.4g}"), " ", tag("small", f"[{number['low']:.3g}, {number['high']:.3g}]")])
