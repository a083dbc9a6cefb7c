"""The numbers of a run over its steps: a CSV that DVC plots, TensorBoard events, a drawing. None of it takes torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish


class Curves:
    """The rows of ``curves.csv``: step, images, and the mean of each scalar over the steps since the row before."""

    def __init__(self, rows: Sequence[Mapping[str, float]] = ()) -> None:
        self.rows: list[dict[str, float]] = [dict(row) for row in rows]

    def add(self, step: int, images: int, values: Mapping[str, float]) -> None:
        """Append a row."""
        self.rows.append({"step": step, "images": images, **values})

    def csv(self) -> str:
        """The table as text, columns in order of first appearance; empty where a row lacks a value."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in self.rows)
        return text.getvalue()

    @staticmethod
    def parse(text: str) -> Curves:
        """The curves that csv() wrote; writing them again gives the same text."""
        rows = csv.DictReader(io.StringIO(text))
        return Curves([{k: int(v) if k in ("step", "images") else float(v) for k, v in r.items() if v} for r in rows])

    def write(self, path: Path) -> None:
        """Publish the CSV."""
        with publish(path) as temporary:
            temporary.write_text(self.csv())

    def last(self) -> dict[str, float]:
        """The newest value of each scalar."""
        values: dict[str, float] = {}
        for row in self.rows:
            values.update(row)
        return values


def read_curves(path: Path) -> dict[str, np.ndarray]:
    """The columns of a ``curves.csv``; NaN where a row lacks a value.

    Raises:
        LineamentError: no such file, or no table of numbers.
    """
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else {})}
    except (OSError, ValueError, TypeError) as error:
        raise LineamentError(f"{path}: the curves cannot be read ({error}). Train again to write them.") from None


def draw(curves: Curves, size: tuple[int, int] = (640, 480)) -> np.ndarray:
    """The curves as a picture (H, W, 3) uint8 of ``size`` = (width, height) pixels, one panel a scalar."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [n for n in dict.fromkeys(k for row in curves.rows for k in row) if n not in ("step", "images")]
    dpi = 80
    figure = Figure(figsize=(size[0] / dpi, size[1] / dpi), dpi=dpi, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    columns = 1 if len(names) < 4 else 2 if len(names) < 13 else 4
    lines = max(1, -(-len(names) // columns))
    for place, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, place + 1)
        points = [(row["images"], row[name]) for row in curves.rows if name in row]
        axes.plot(*zip(*points), linewidth=1)
        axes.set_title(name, fontsize=8, loc="left", pad=2)
        axes.tick_params(labelsize=6)
        axes.ticklabel_format(style="sci", scilimits=(-3, 5))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


class Events:
    """TensorBoard event files in a folder; silent where TensorBoard is not installed or not wanted."""

    def __init__(self, folder: Path, wanted: bool, purge_step: int) -> None:
        self._writer: Any = None
        if wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One row of scalars."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture (H, W, 3) uint8."""
        if self._writer is not None:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is pending."""
        if self._writer is not None:
            self._writer.close()
