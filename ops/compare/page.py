"""Both sides on one page: facts, settings that differ, numbers with what is more than noise, curves, pictures."""

from __future__ import annotations

import numpy as np

from ops.compare.noise import Difference, from_curves, from_intervals, from_samples, significant
from ops.compare.sides import Side
from ops.report import chart
from ops.report.page import Embedding, Html, Section, attempt, join, notes, picture, render, table, tag, warning
from ops.runtime.errors import LineamentError

NAMES = ("A", "B")
EMBEDDING = Embedding(width=1000, quality=85)
BINS = 24


def differences(a: Side, b: Side) -> list[Difference]:
    """All numbers that both sides have.

    Raises:
        LineamentError: they are not of one kind, or were measured by different rules.
    """
    if a.kind != b.kind:
        raise LineamentError(f"{a.path} is a {a.kind} and {b.path} a {b.kind}: compare two of one kind.")
    if a.kind == "result" and (a.facts["rules"], a.facts["backbone"]) != (b.facts["rules"], b.facts["backbone"]):
        raise LineamentError(
            f"{a.path} and {b.path} were measured by different rules ({a.facts['protocol']} with {a.facts['backbone']} "
            f"and {b.facts['protocol']} with {b.facts['backbone']}): their numbers cannot be compared."
        )
    found = [from_curves(name, a.curves[name], b.curves[name]) for name in sorted(a.curves.keys() & b.curves.keys())]
    found += [from_samples(n, a.numbers[n], b.numbers[n]) for n in sorted(a.numbers.keys() & b.numbers.keys())]
    for name in a.measured:
        if name in b.measured:
            one, other = a.measured[name], b.measured[name]
            if one[1] is None or one[2] is None or other[1] is None or other[2] is None:
                found.append(Difference(name, one[0], other[0], None, "no interval"))
            else:
                found.append(from_intervals(name, (one[0], one[1], one[2]), (other[0], other[1], other[2])))
    return found


def as_text(a: Side, b: Side, found: list[Difference]) -> str:
    """For the terminal."""
    real = significant(found)
    lines = [f"A {a.path}", f"B {b.path}"]
    if a.samples or b.samples:
        lines.append(_exchange(a, b))
    lines += [f"mind: {text}" for text in _cautions(a, b)]
    width = max([8, *(len(d.name) for d in found)])
    if not found:
        return "\n".join([*lines, "The two share no number."])
    lines.append(f"  {'':{width}} {'A':>12} {'B':>12} {'B - A':>12}  judged by {found[0].how}")
    for d in found:
        mark = "*" if d.name in real else " "
        p = "" if d.p is None else f"p {d.p:.2g}"
        lines.append(f"{mark} {d.name:{width}} {d.a:12.5g} {d.b:12.5g} {d.b - d.a:+12.4g}  {p}")
    lines.append(f"* more than noise ({len(real)} of {len(found)}; 5 % in all, Holm's correction)")
    return "\n".join(lines)


def _cautions(a: Side, b: Side) -> list[str]:
    """Why numbers of the two may not be on equal terms."""
    said = []
    if a.kind == "checkpoint" and a.facts["data"] != b.facts["data"]:
        said.append("the two were trained on different data versions; losses are not on equal terms")
    if a.kind == "checkpoint" and a.facts["images"] != b.facts["images"]:
        said.append("the two saw different numbers of pictures")
    if a.kind == "checkpoint":
        said.append("these are losses in training: they say whether it was stable, not which pictures are better; "
                    "`lineament evaluate … --out` of both measures that")  # fmt: skip
    return said


def _exchange(a: Side, b: Side) -> str:
    gone, new, both = a.samples - b.samples, b.samples - a.samples, a.samples & b.samples
    return f"samples: {len(both):,} in both, {len(gone):,} only in A, {len(new):,} only in B"


def as_page(a: Side, b: Side, found: list[Difference]) -> str:
    """A page that fetches nothing."""
    real = significant(found)
    sections = [Section("sides", "The two sides", _facts(a, b))]
    sections.append(Section("numbers", "Numbers", _numbers(found, real)))
    if a.settings or b.settings:
        sections.append(Section("settings", "Settings that differ", _settings(a, b)))
    if a.curves or b.curves:
        sections.append(Section("curves", "Curves", _curves(a, b, real)))
    if a.numbers or b.numbers:
        sections.append(Section("views", "Distributions", _histograms(a, b, real)))
    if a.pictures or b.pictures:
        sections.append(Section("pictures", "Pictures", _pictures(a, b)))
    foot = "Made by lineament compare. This page fetches nothing and runs no script."
    return render("Comparison", f"A: {a.path}. B: {b.path}.", sections, foot)


def _facts(a: Side, b: Side) -> Html:
    names = list(dict.fromkeys([*a.facts, *b.facts]))
    rows: list[list[object]] = [[n, tag("span", a.facts.get(n, "–")), tag("span", b.facts.get(n, "–"))] for n in names]
    parts: list[str] = [table(("", *NAMES), rows, "What each says of itself")]
    if a.samples or b.samples:
        parts.append(tag("p", _exchange(a, b)))
    parts += [warning(text) for text in _cautions(a, b)]
    return join(parts)


def _numbers(found: list[Difference], real: set[str]) -> Html:
    if not found:
        return notes(["The two share no number."])
    rows: list[list[object]] = []
    for d in found:
        mark = tag("b", "yes") if d.name in real else Html("no") if d.p is not None else Html("unknown")
        rows.append([d.name, d.a, d.b, d.b - d.a, mark, Html("–") if d.p is None else f"{d.p:.2g}", tag("span", d.how)])
    head = ("number", *NAMES, "B − A", "more than noise", "p", "judged by")
    return table(head, rows, "5 % for all of them together, Holm's correction")


def _settings(a: Side, b: Side) -> Html:
    names = sorted({*a.settings, *b.settings})
    rows: list[list[object]] = [
        [name, tag("code", str(a.settings.get(name, "–"))), tag("code", str(b.settings.get(name, "–")))]
        for name in names
        if a.settings.get(name) != b.settings.get(name)
    ]
    return table(("setting", *NAMES), rows) if rows else notes(["None: both ran with the same settings."])


def _curves(a: Side, b: Side, real: set[str]) -> Html:
    drawn = []
    for name in sorted({*a.curves, *b.curves}):
        series = [
            chart.Line(NAMES[n], side.images.tolist(), side.curves[name].tolist(), n)
            for n, side in enumerate((a, b))
            if name in side.curves and np.isfinite(side.curves[name]).any()
        ]
        if series:
            drawn.append(tag("figure", chart.lines(name + (" *" if name in real else ""), series, "pictures seen")))
    key = chart.key([chart.Line(name, [], [], n) for n, name in enumerate(NAMES)])
    return join([key, tag("div", *drawn, class_="grid")])


def _histograms(a: Side, b: Side, real: set[str]) -> Html:
    drawn = []
    for name in sorted({*a.numbers, *b.numbers}):
        both = [side.numbers.get(name, np.zeros(0)) for side in (a, b)]
        whole = np.concatenate(both)
        edges = np.linspace(whole.min(), max(whole.max(), whole.min() + 1e-6), BINS + 1)
        middles = ((edges[1:] + edges[:-1]) / 2).tolist()
        series = []
        for n, values in enumerate(both):
            if len(values):
                share = np.histogram(values, edges)[0] / len(values)
                series.append(chart.Line(NAMES[n], middles, share.tolist(), n))
        title = f"{name}: share of samples" + (" *" if name in real else "")
        drawn.append(tag("figure", chart.lines(title, series, name, y_range=None)))
    key = chart.key([chart.Line(name, [], [], n) for n, name in enumerate(NAMES)])
    return join([key, tag("div", *drawn, class_="grid")])


def _pictures(a: Side, b: Side) -> Html:
    parts = []
    for caption in dict.fromkeys([*a.pictures, *b.pictures]):
        for name, side in zip(NAMES, (a, b)):
            if caption in side.pictures:
                path = side.pictures[caption]
                parts.append(attempt(lambda p=path, c=f"{name}: {caption}": picture(p, c, EMBEDDING, "training")))  # type: ignore[misc]
    return tag("div", *parts, class_="grid")
