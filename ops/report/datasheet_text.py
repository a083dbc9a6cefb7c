"""The data sheet in words: what is uneven in the data, and the page in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

NOT_MEASURED = (
    "Nobody's age, sex or skin colour is measured here, so nothing is known of how evenly they are represented; what a "
    "search engine or a public collection prefers is in the data."
)


def biases(sheet: dict[str, Any]) -> list[str]:
    """What is known to be uneven, in sentences with numbers."""
    lines = [*_views(sheet["views"]), *_origins(sheet["sources"]), *_filters(sheet["steps"])]
    if any(source["kind"] == "studio" for source in sheet["sources"].values()):
        lines.append("Studio pictures are rendered: their skin, hair and light are simpler than photographs'.")
    return [*lines, NOT_MEASURED]


def _views(views: dict[str, Any]) -> list[str]:
    edges, before, after = (np.array(views[name], float) for name in ("edges", "before", "after"))
    if not before.sum():
        return ["No picture has a camera label yet."]
    middle = (edges[:-1] + edges[1:]) / 2
    front, back = np.abs(middle) < 45, np.abs(middle) > 135
    lines = []
    for counts, when in ((before, "of the pictures"), (after, "of what training sees")):
        shares = [f"{100 * counts[where].sum() / counts.sum():.0f} %" for where in (front, back)]
        lines.append(f"{shares[0]} {when} show the face (azimuth within ±45°), {shares[1]} the back (beyond ±135°).")
    empty = int((before == 0).sum())
    if empty:
        lines.append(f"{empty} of {len(before)} groups of azimuth have no picture at all: balancing cannot fill them.")
    left, right = before[middle > 0].sum(), before[middle < 0].sum()
    if max(left, right) > 1.2 * max(1, min(left, right)):
        lines.append(f"The sides differ: {left:.0f} pictures from the subject's left, {right:.0f} from the right.")
    return lines


def _origins(sources: dict[str, Any]) -> list[str]:
    total = sum(source["kept"] for source in sources.values())
    lines = []
    if total:
        name, largest = max(sources.items(), key=lambda item: item[1]["kept"])
        lines.append(f"{100 * largest['kept'] / total:.0f} % of all pictures come from the source {name}.")
        unknown = sum(source["licences"].get("unknown", 0) for source in sources.values())
        if unknown:
            lines.append(f"The licence of {unknown:,} pictures is unknown.")
    return lines


def _filters(steps: dict[str, Any]) -> list[str]:
    """Filters that take more than a tenth of a source: what they take is missing from the data."""
    lines = []
    for source, found in steps.items():
        for step, counts in found.items():
            for reason, count in counts["reasons"].items():
                if counts["in"] and count > 0.1 * counts["in"]:
                    share = f"{100 * count / counts['in']:.0f} %"
                    lines.append(f"{step} leaves out {share} of {source} as {reason.replace('_', ' ')}.")
    return lines


def markdown(sheet: dict[str, Any], pictures: Sequence[str]) -> str:
    """The data sheet as a page of Markdown, its pictures beside it."""
    lines = ["# Data sheet", "", "What this data set is made of. The stage `datasheet` makes it.", "", "## Sources", ""]
    lines += _table(("source", "kind", "offered", "kept", "MB", "licences", "hosts"), source_rows(sheet))
    lines += ["", "## Step by step", ""]
    steps = [
        (source, step, found["in"], found["kept"], _counts(found["reasons"]).replace("_", " "))
        for source, each in sheet["steps"].items()
        for step, found in each.items()
    ]
    lines += _table(("source", "step", "in", "kept", "why the others fell"), steps)
    lines += ["", f"Taken down: {sheet['taken_down']:,}. Rejected by hand: {sheet['rejected_by_hand']:,}.", ""]
    if sheet["sizes"]:
        lines += ["## Sizes", "", sizes(sheet), ""]
    lines += ["## Views", "", "![views](views.png)", "", "## Training shards", ""]
    shards = [
        (name, one.get("samples"), one.get("resolution"), one["bytes"] / 1e6, str(one.get("hash", ""))[:16])
        for name, one in sheet["shards"].items()
    ]
    lines += _table(("shards", "samples", "pixels", "MB", "hash"), shards)
    lines += ["", "## Known to be uneven", "", *(f"- {line}" for line in sheet["biases"]), "", "## Pictures", ""]
    lines += [f"![{name}]({name}.jpg)\n\n{name.replace('_', ' ')}\n" for name in pictures]
    return "\n".join(lines)


def source_rows(sheet: dict[str, Any]) -> list[Sequence[object]]:
    """A row a source: name, kind, offered, kept, megabytes, licences, hosts."""
    return [
        (name, s["kind"], s["offered"], s["kept"], s["bytes"] / 1e6, _counts(s["licences"]), _counts(s["hosts"]))
        for name, s in sheet["sources"].items()
    ]


def sizes(sheet: dict[str, Any]) -> str:
    """The quantiles of sizes in a sentence."""
    marks = ", ".join(f"{mark} %: {size}" for mark, size in sheet["sizes"].items())
    return f"Quantiles of the shorter side of screened pictures, in pixels: {marks}."


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in found.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]


def _cell(value: object) -> str:
    """Text that cannot break out of its cell."""
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("<", "&lt;")
