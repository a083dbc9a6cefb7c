"""Figures as files, the same bytes for the same numbers: no dates, fixed hashes, no display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ops.evaluate.verification import Roc
from ops.store.pictures import encode_png

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = ("-", "--", ":", "-.")


def figure(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of that many inches with panels side by side."""
    canvas = Figure(figsize=(width, height), dpi=100, layout="constrained")
    axes = [canvas.add_subplot(1, panels, i + 1) for i in range(panels)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3, linewidth=0.6)
    return canvas, axes


def roc_axes(axes: Axes, curves: Mapping[str, Roc], title: str) -> None:
    """ROC curves of the named angles (L60 … R60); the same colour for both sides, the right one dashed."""
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    sizes = sorted({name[1:] for name in curves}, key=float, reverse=True)
    for name, curve in curves.items():
        colour = COLOURS[sizes.index(name[1:]) % len(COLOURS)]
        style = STYLES[0] if name[0] == "L" else STYLES[1]
        axes.plot(curve.false_accept, curve.true_accept, color=colour, linestyle=style, linewidth=1.4, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.005), xlabel="false accepts", ylabel="true accepts", title=title)
    axes.set_aspect("equal")
    axes.legend(fontsize=8, loc="lower right", ncols=2, frameon=False)


def area_axes(axes: Axes, angles: Sequence[float], areas: Mapping[str, Sequence[float]], title: str) -> None:
    """Area against angle, one line a variant."""
    for i, (name, values) in enumerate(areas.items()):
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]
        axes.plot(angles, values, marker="o", markersize=4, linewidth=1.4, label=name, color=colour, linestyle=style)
    low = min((v for values in areas.values() for v in values), default=0.5)
    axes.set(xlabel="camera azimuth, degrees", ylabel="AUC", title=title, ylim=(min(0.45, low - 0.03), 1.02))
    axes.set_xticks(list(angles))
    axes.legend(fontsize=8, frameon=False)


def pixels(canvas: Figure) -> np.ndarray:
    """The figure as (H, W, 3) uint8."""
    agg = FigureCanvasAgg(canvas)
    agg.draw()
    return np.asarray(agg.buffer_rgba())[..., :3].copy()


def png(canvas: Figure) -> bytes:
    """The figure as PNG."""
    return encode_png(pixels(canvas))


def svg(canvas: Figure) -> bytes:
    """The figure as SVG with text as text, without a date."""
    stream = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "lineament", "svg.fonttype": "none"}):
        FigureCanvasSVG(canvas).print_svg(stream, metadata={"Date": None, "Creator": None})
    return stream.getvalue()
