"""Charts as inline SVG that take the page's colours, light or dark: lines, bars, a grid of counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ops.report.page import Html, join, tag

COLOURS = 6  # --c1 … --c6 of the style sheet
WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 26, 36


@dataclass(frozen=True)
class Line:
    """A line of a chart: name, points, number of its colour (from 0), dashed or not."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    dashed: bool = False


def lines(
    title: str,
    series: Sequence[Line],
    x_label: str,
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    dots: bool = False,
) -> Html:
    """Lines over a plane with ticks. Points that are not finite break a line.

    Args:
        title: stands above, and is the drawing's name for who cannot see it.
        series: at least one line with a finite point.
        x_label: under the axis.
        x_range, y_range: limits; those of the points if not given.
        dots: mark the points.
    """
    x_low, x_high = x_range or _limits(np.concatenate([np.asarray(s.x, float) for s in series]), 0.0)
    y_low, y_high = y_range or _limits(np.concatenate([np.asarray(s.y, float) for s in series]), 0.05)
    frame = _Frame(x_low, x_high, y_low, y_high)
    parts: list[str] = [frame.grid(x_label)]
    for s in series:
        stroke = f"stroke:var(--c{s.colour % COLOURS + 1})"
        kind = "curve dash" if s.dashed else "curve"
        points = [(frame.x(x), frame.y(y)) if math.isfinite(y) else None for x, y in zip(s.x, s.y)]
        parts.append(tag("path", tag("title", s.name), d=_path(points), class_=kind, style=stroke))
        if dots:
            fill = f"fill:var(--c{s.colour % COLOURS + 1})"
            parts += [tag("circle", cx=_n(p[0]), cy=_n(p[1]), r=2.6, style=fill) for p in points if p]
    return drawing(title, WIDTH, HEIGHT, parts)


def bars(title: str, edges: Sequence[float], counts: Sequence[int], x_label: str) -> Html:
    """A histogram: ``counts[i]`` between ``edges[i]`` and ``edges[i + 1]``."""
    frame = _Frame(edges[0], edges[-1], 0, max(*counts, 1) * 1.05)
    parts = [frame.grid(x_label)]
    for i, count in enumerate(counts):
        left, right, top = frame.x(edges[i]), frame.x(edges[i + 1]), frame.y(count)
        label = tag("title", f"{edges[i]:g} to {edges[i + 1]:g}: {count}")
        box = {"x": _n(left), "y": _n(top), "width": _n(max(right - left - 1, 0.5)), "height": _n(frame.y(0) - top)}
        parts.append(tag("rect", label, class_="bar", **box))
    return drawing(title, WIDTH, HEIGHT, parts)


def grid_of_counts(
    title: str, x_edges: Sequence[float], y_edges: Sequence[float], counts: np.ndarray, x_label: str
) -> Html:
    """Counts (X, Y) as a grid of cells, darker for more."""
    frame = _Frame(x_edges[0], x_edges[-1], y_edges[0], y_edges[-1])
    parts = [frame.grid(x_label)]
    most = max(int(counts.max()), 1)
    for i, j in np.argwhere(counts > 0):
        x, y = frame.x(x_edges[i]), frame.y(y_edges[j + 1])
        box = {"x": _n(x), "y": _n(y), "width": _n(frame.x(x_edges[i + 1]) - x), "height": _n(frame.y(y_edges[j]) - y)}
        label = tag("title", f"{x_edges[i]:g}…{x_edges[i + 1]:g}, {y_edges[j]:g}…{y_edges[j + 1]:g}: {counts[i, j]}")
        parts.append(tag("rect", label, class_="bar", fill_opacity=_n(0.15 + 0.85 * counts[i, j] / most), **box))
    return drawing(title, WIDTH, HEIGHT, parts)


def key(series: Sequence[Line]) -> Html:
    """The legend of lines, to stand beside several charts that share it."""
    items = []
    for s in series:
        kind = "curve dash" if s.dashed else "curve"
        stroke = tag("path", d="M1 6H25", class_=kind, style=f"stroke:var(--c{s.colour % COLOURS + 1})")
        items.append(
            tag("li", tag("svg", stroke, width=26, height=12, viewBox="0 0 26 12", aria_hidden="true"), s.name)
        )
    return tag("ul", *items, class_="key")


def drawing(title: str, width: float, height: float, parts: Sequence[str]) -> Html:
    """An SVG with its title above the content."""
    heading = tag("text", title, x=4, y=15, font_weight=600) if title else Html("")
    box = f"0 0 {_n(width)} {_n(height)}"
    return tag("svg", heading, join(parts), viewBox=box, width=_n(width), role="img", aria_label=title or "drawing")


class _Frame:
    """From values to places in the drawing, and the axes."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self.limits = (x_low, x_high, y_low, y_high)

    def x(self, value: float) -> float:
        low, high, _, _ = self.limits
        return LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        _, _, low, high = self.limits
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)

    def grid(self, x_label: str) -> Html:
        x_low, x_high, y_low, y_high = self.limits
        floor, right = self.y(y_low), self.x(x_high)
        parts = []
        for value in ticks(y_low, y_high):
            y = _n(self.y(value))
            parts.append(tag("path", d=f"M{LEFT} {y}H{_n(right)}", class_="rule"))
            parts.append(
                tag("text", _short(value), x=LEFT - 5, y=_n(self.y(value) + 4), text_anchor="end", class_="tick")
            )
        for value in ticks(x_low, x_high):
            place = _n(self.x(value))
            parts.append(tag("path", d=f"M{place} {_n(floor)}v4", class_="axis"))
            parts.append(tag("text", _short(value), x=place, y=_n(floor + 16), text_anchor="middle", class_="tick"))
        parts.append(tag("path", d=f"M{LEFT} {_n(floor)}H{_n(right)}", class_="axis"))
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(tag("text", x_label, x=_n(middle), y=HEIGHT - 4, text_anchor="middle", class_="soft"))
        return join(parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values between the limits, some ``about`` of them."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _limits(values: np.ndarray, margin: float) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    pad = (high - low) * margin or (abs(high) * 0.1 or 1.0) * (margin > 0)
    return low - pad, high + pad


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    words, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        words.append(f"{pen}{_n(point[0])} {_n(point[1])}")
        pen = "L"
    return "".join(words)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _short(value: float) -> str:
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 1e4:
        return f"{value / 1e3:g}k"
    if 0 < size < 1e-3:  # written out, or with two digits of exponent, it would not fit before the axis
        figures, exponent = f"{value:.2e}".split("e")
        return f"{float(figures):g}e{int(exponent)}"
    return f"{value:g}"
