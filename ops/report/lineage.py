"""The lineage as a drawing: a box a stage, coloured by group, an arrow where one stage reads what another makes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import isotonic_regression

from ops.dag import Dag, StageSpec
from ops.report.chart import drawing
from ops.report.page import Html, join, tag

BOX_WIDTH, BOX_HEIGHT, ROW, GAP, MARGIN = 150, 44, 88, 16, 6
LINE, SWEEPS = 14, 12  # pixels between lines that pass a row; passes over the rows


def reduced(parents: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """The edges (from, to) of a graph that no longer path already implies; ``parents`` by node, inputs first."""
    above: dict[str, set[str]] = {}
    for node, direct in parents.items():
        above[node] = set(direct).union(*(above[parent] for parent in direct))
    return [
        (parent, node)
        for node, direct in parents.items()
        for parent in direct
        if not any(parent in above[other] for other in direct)
    ]


Node = tuple[str, int]  # a stage at its own depth, or the place where its line passes a deeper row


def layered(parents: Mapping[str, list[str]]) -> tuple[dict[str, int], list[list[Node]], dict[Node, list[Node]]]:
    """The graph in rows, each stage below all that it reads, lines with few crossings.

    A line that passes rows has a node in each of them; the lines of one stage share these. Rows are ordered by the mean
    place of their neighbours (Sugiyama, Tagawa and Toda 1981).

    Returns:
        the depth of each stage; the rows from left to right; for each node its neighbours in the row above.
    """
    depth: dict[str, int] = {}
    above: dict[Node, list[Node]] = {}
    for name, direct in parents.items():
        depth[name] = 1 + max((depth[parent] for parent in direct), default=-1)
        above[name, depth[name]] = []
    for parent, name in reduced(parents):
        for deeper in range(depth[parent] + 1, depth[name]):
            above.setdefault((parent, deeper), [(parent, deeper - 1)])
        above[name, depth[name]].append((parent, depth[name] - 1))
    rows: list[list[Node]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for node in above:
        rows[node[1]].append(node)
    below = _turned(above)
    for sweep in range(SWEEPS):
        near = below if sweep % 2 else above
        for row in reversed(rows) if sweep % 2 else rows:
            place = {n: (i + 0.5) / len(other) for other in rows for i, n in enumerate(other)}
            row.sort(key=lambda n: np.mean([place[o] for o in near[n]] or [place[n]]))
    return depth, rows, above


def _turned(above: Mapping[Node, list[Node]]) -> dict[Node, list[Node]]:
    below: dict[Node, list[Node]] = {node: [] for node in above}
    for node, others in above.items():
        for other in others:
            below[other].append(node)
    return below


def _centres(depth: Mapping[str, int], rows: list[list[Node]], above: dict[Node, list[Node]]) -> dict[Node, float]:
    """Where each node stands: as near to its neighbours as order and widths allow (least squares, row by row)."""
    below = _turned(above)
    offsets = {}
    for row in rows:
        half = np.array([(BOX_WIDTH + GAP) / 2 if depth[n] == r else LINE / 2 for n, r in row])
        offsets[row[0][1]] = np.concatenate([[0.0], np.cumsum(half[:-1] + half[1:])])
    x = {n: float(v) for row in rows for n, v in zip(row, offsets[row[0][1]] - offsets[row[0][1]][-1] / 2)}
    for sweep in range(3 * SWEEPS):
        for row in reversed(rows) if sweep % 2 else rows:
            shift = offsets[row[0][1]]
            wanted = np.array([np.mean([x[o] for o in above[n] + below[n]] or [x[n]]) for n in row])
            x.update(zip(row, (isotonic_regression(wanted - shift).x + shift).tolist()))
    left = min((v - (BOX_WIDTH / 2 if depth[n] == r else 0) for (n, r), v in x.items()), default=0.0)
    return {node: round(v - left + MARGIN, 1) for node, v in x.items()}


def draw(dag: Dag, ran: set[str]) -> Html:
    """The graph of dvc.yaml from top to bottom; arrows that others imply are left out.

    Args:
        dag: the graph.
        ran: names of the units that dvc.lock records; a stage with units that are not among them is drawn dashed.
    """
    parents = {name: dag.stage_parents(name) for name in dag.stages}
    depth, rows, above = layered(parents)
    x = _centres(depth, rows, above)
    parts: list[str] = [_arrow(a, b, depth, x) for a, b in reduced(parents)]
    for name, spec in dag.stages.items():
        at = (x[name, depth[name]] - BOX_WIDTH / 2, MARGIN + depth[name] * ROW)
        parts.append(_box(spec, at, _complete(spec, ran)))
    width = max((v + (BOX_WIDTH / 2 if depth[n] == r else 0) for (n, r), v in x.items()), default=0.0) + MARGIN
    height = 2 * MARGIN + len(rows) * ROW - (ROW - BOX_HEIGHT)
    drawn = tag("div", drawing("", width, height, parts), class_="wide lineage", tabindex=0, role="region",
                aria_label="lineage of the stages")  # fmt: skip
    groups = dict.fromkeys(spec.meta.group for spec in dag.stages.values())
    swatches = [tag("li", tag("span", class_="swatch", style=f"background:{_fill(group)}"), group) for group in groups]
    return join([tag("ul", *swatches, class_="key"), drawn])


def _fill(group: str) -> str:
    return f"var(--g-{group}, var(--card))"


def _complete(spec: StageSpec, ran: set[str]) -> bool:
    return all(unit.name in ran for unit in spec.units.values())


def _box(spec: StageSpec, at: tuple[float, float], ran: bool) -> Html:
    x, y = at
    keys = spec.keys
    shape = tag("rect", x=x, y=y, width=BOX_WIDTH, height=BOX_HEIGHT, rx=6, class_="box" if ran else "box unrun",
                style=f"fill:{_fill(spec.meta.group)}")  # fmt: skip
    name = tag("text", spec.name, x=x + 10, y=y + (19 if keys else 27), font_weight=600)
    below = tag("text", _keys(keys), x=x + 10, y=y + 35, class_="soft") if keys else Html("")
    state = "" if ran else " (not recorded in dvc.lock)"
    return tag("g", tag("title", f"{spec.name}: {spec.description}{state}"), shape, name, below)


def _keys(keys: list[str]) -> str:
    text = ", ".join(keys)
    return text if len(text) <= 22 else f"{len(keys)} of them"


def _arrow(a: str, b: str, depth: Mapping[str, int], x: Mapping[Node, float]) -> Html:
    """From the foot of a box to the head of another, down through the rows between them."""
    y = MARGIN + depth[a] * ROW + BOX_HEIGHT
    path = [f"M{x[a, depth[a]]} {y}"]
    for row in range(depth[a] + 1, depth[b] + 1):
        before, here = x[a, row - 1], x[(b if row == depth[b] else a), row]
        end = MARGIN + row * ROW - (6 if row == depth[b] else 0)
        middle = (y + end) / 2
        path.append(f"C{before} {middle} {here} {middle} {here} {end}")
        y = MARGIN + row * ROW + BOX_HEIGHT
        if row < depth[b]:
            path.append(f"V{y}")
    tip = f"M{x[b, depth[b]] - 4} {MARGIN + depth[b] * ROW - 7}h8l-4 7z"
    return tag("g", tag("path", d="".join(path), class_="edge"), tag("path", d=tip, class_="tip"))
