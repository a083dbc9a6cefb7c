"""The lineage as a drawing: a box a stage, a column a group, an arrow where one stage reads what another makes."""

from __future__ import annotations

from collections.abc import Mapping

from ops.dag import Dag, StageSpec
from ops.report.chart import drawing
from ops.report.page import Html, tag

BOX_WIDTH, BOX_HEIGHT, ROW, GAP, MARGIN, TOP = 150, 44, 66, 46, 6, 30
GROUPS = ("raw", "labels", "shards", "models", "evaluation")


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


def draw(dag: Dag, ran: set[str]) -> Html:
    """The graph of dvc.yaml; arrows that others imply are left out.

    Args:
        dag: the graph.
        ran: names of the units that dvc.lock records; a stage with units that are not among them is drawn dashed.
    """
    found = [spec.meta.group for spec in dag.stages.values()]
    columns = [g for g in GROUPS if g in found] + sorted({g for g in found if g not in GROUPS})
    place: dict[str, tuple[float, float]] = {}
    rows = dict.fromkeys(columns, 0)
    for name, spec in dag.stages.items():
        group = spec.meta.group
        place[name] = (MARGIN + columns.index(group) * (BOX_WIDTH + GAP), TOP + rows[group] * ROW)
        rows[group] += 1
    parts: list[str] = [
        tag("text", group, x=MARGIN + i * (BOX_WIDTH + GAP), y=16, class_="soft", font_weight=600)
        for i, group in enumerate(columns)
    ]
    edges = reduced({name: dag.stage_parents(name) for name in dag.stages})
    parts += [_arrow(place[a], place[b]) for a, b in edges]
    parts += [_box(spec, place[name], _complete(spec, ran)) for name, spec in dag.stages.items()]
    width = 2 * MARGIN + len(columns) * (BOX_WIDTH + GAP) - GAP
    height = TOP + max(rows.values()) * ROW - (ROW - BOX_HEIGHT) + MARGIN
    return tag("div", drawing("", width, height, parts), class_="wide lineage", tabindex=0, role="region",
               aria_label="lineage of the stages")  # fmt: skip


def _complete(spec: StageSpec, ran: set[str]) -> bool:
    return all(unit.name in ran for unit in spec.units.values())


def _box(spec: StageSpec, at: tuple[float, float], ran: bool) -> Html:
    x, y = at
    keys = spec.keys
    fill = f"fill:var(--g-{spec.meta.group}, var(--card))"
    shape = tag("rect", x=x, y=y, width=BOX_WIDTH, height=BOX_HEIGHT, rx=6, class_="box" if ran else "box unrun",
                style=fill)  # fmt: skip
    name = tag("text", spec.name, x=x + 10, y=y + (19 if keys else 27), font_weight=600)
    below = tag("text", _keys(keys), x=x + 10, y=y + 35, class_="soft") if keys else Html("")
    state = "" if ran else " (not recorded in dvc.lock)"
    return tag("g", tag("title", f"{spec.name}: {spec.description}{state}"), shape, name, below)


def _keys(keys: list[str]) -> str:
    text = ", ".join(keys)
    return text if len(text) <= 22 else f"{len(keys)} of them"


def _arrow(a: tuple[float, float], b: tuple[float, float]) -> Html:
    """From box to box: straight down a column, in a curve from column to column or past other boxes."""
    if a[0] == b[0] and b[1] - a[1] == ROW:
        x, start, end = a[0] + BOX_WIDTH / 2, a[1] + BOX_HEIGHT, b[1]
        path, tip = f"M{x} {start}V{end - 6}", f"M{x - 4} {end - 7}h8l-4 7z"
    elif a[0] == b[0]:
        x, start, end = a[0] + BOX_WIDTH, a[1] + BOX_HEIGHT / 2, b[1] + BOX_HEIGHT / 2
        path = f"M{x} {start}C{x + GAP * 0.6} {start} {x + GAP * 0.6} {end} {x + 6} {end}"
        tip = f"M{x + 7} {end - 4}v8l-7 -4z"
    else:
        x0, y0, x1, y1 = a[0] + BOX_WIDTH, a[1] + BOX_HEIGHT / 2, b[0], b[1] + BOX_HEIGHT / 2
        bend = max((x1 - x0) / 2, GAP / 2)
        path = f"M{x0} {y0}C{x0 + bend} {y0} {x1 - bend} {y1} {x1 - 6} {y1}"
        tip = f"M{x1 - 7} {y1 - 4}v8l7 -4z"
    return tag("g", tag("path", d=path, class_="edge"), tag("path", d=tip, class_="tip"))
