"""The page about the papers' tables: each that was run beside its published rows, and why the others were not."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ops.report.files import read_json
from ops.report.page import Embedding, Html, Missing, Page, Section, join, notes, table, tag, warning

WORDS = {
    "ready": "run",
    "fallback": "run with another backbone",
    "untrained": "not run: nothing trained",
    "not here": "not run: not measured by this version",
}


def page(root: Path, how: Embedding) -> Page:
    """A table of all protocols, then each that was run, by paper.

    Raises:
        Missing: the stage has not run.
    """
    folder = root / "data/evaluation/protocols"
    if not (folder / "states.json").is_file():
        raise Missing("evaluate_protocols has not run; dvc repro evaluate_protocols does")
    states = read_json(folder / "states.json")
    ran = [name for name in states if (folder / f"{name}.json").is_file()]
    return Page(
        "The tables and figures of the four papers: ours beside the published rows, with what differs.",
        [
            Section.of("states", "What was run, and why not", partial(_states, states)),
            *(Section.of(name, f"{states[name]['paper']}: {states[name]['title']}",
                         partial(_result, folder / f"{name}.json")) for name in ran),
        ],
        [("tables and figures", f"{len(states)}"), ("run here", f"{len(ran)}")],
        "A protocol fixes data, counts, seed and backbone of one published table. Where the paper's network cannot be "
        "shipped another one measures, and the number bears that one's name.",
    )  # fmt: skip


def _states(states: dict[str, Any]) -> Html:
    rows = [
        [
            f"{s['paper']}, {s['source']}",
            tag("span", s["title"]),
            WORDS.get(s["word"], s["word"]),
            tag("span", s["why"]),
        ]
        for s in states.values()
    ]
    return table(("where published", "what it shows", "here", "why"), rows, "Tables and figures")


def _result(path: Path) -> Html:
    result = read_json(path)
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
        table(("row", *columns), rows, caption),
        *map(warning, result["warnings"]),
        notes(lines),
    ]
    return join(parts)


def _published(metric: str, values: dict[str, float]) -> object:
    return tag("span", f"{values[metric]:g}" if metric in values else "–", class_="soft")


def _cell(number: dict[str, Any] | None) -> object:
    if number is None or number["value"] is None:
        return tag("span", "–", class_="soft")
    value = tag("b", f"{number['value']:.4g}")
    if number["low"] is None:
        return value
    return join([value, " ", tag("small", f"[{number['low']:.3g}, {number['high']:.3g}]")])
