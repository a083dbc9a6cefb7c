"""What the trainer leaves, the same for every system: published checkpoints, curves, grids of samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ops.dag import Dag
from ops.evaluate.published import HEAD_TITLES, TITLES
from ops.report import chart
from ops.report.files import read_json
from ops.report.page import Embedding, Html, Missing, attempt, join, missing, picture, table, tag
from ops.train.curves import read_curves

SHARDS = {
    "giraffe": "faces",
    "heads": "heads",
    "portrait": "portraits",
    "portrait_superresolution": "portraits",
    "avatar": "faces",
}  # what each system learns from
_TITLES = {**TITLES, **HEAD_TITLES, "full": "AniPortraitGAN", "avatar": "InvertAvatar", "next3d": "Next3D"}
LEGENDS = {
    "shards_heads": "; below each the camera's azimuth in degrees (positive: the subject's left), the view, and "
    "how often balancing shows it"
}


class Run(NamedTuple):
    """A network's name, the folder of its checkpoint, and the unit that trains it."""

    title: str
    folder: Path
    maker: str


def title(variant: str) -> str:
    """How a variant is called."""
    plain = variant.removesuffix("_superresolution")
    return _TITLES.get(plain, plain.replace("_", " ")) + (", super-resolution" if plain != variant else "")


def runs(root: Path, system: str) -> list[Run]:
    """The variants that dvc.yaml declares of a system, then others whose checkpoints are there."""
    stage, folder = f"train_{system}", root / "data/checkpoints" / system
    spec = Dag.load(root).stages.get(stage)
    there = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
    names = dict.fromkeys([*((spec.keys if spec else None) or ()), *there])
    return [Run(title(name), folder / name, f"{stage}@{name}") for name in names]


def facts(root: Path, system: str) -> list[tuple[str, str]]:
    """How many variants were trained, and on how many pictures."""
    found = runs(root, system)
    records = [read_json(run.folder / "config.json") for run in found if (run.folder / "config.json").is_file()]
    seen = max((int(record.get("images", 0)) for record in records), default=0)
    return [
        ("variants trained", f"{len(records)} of {len(found)}"),
        *([("pictures seen", f"{seen:,}")] if seen else []),
    ]


def section(root: Path, how: Embedding, system: str) -> Html:
    """What was trained, how its losses went, what it learned from and what it draws.

    Raises:
        Missing: no variant of the system has a checkpoint.
    """
    found = runs(root, system)
    trained = [run for run in found if (run.folder / "config.json").is_file()]
    if not trained:
        raise Missing(f"nothing has been trained yet; dvc repro train_{system} does")
    shards = f"shards_{SHARDS[system]}"
    said = f"Training samples, {shards}{LEGENDS.get(shards, '')}"
    real = partial(picture, root / f"data/previews/{shards}.png", said, how, shards)
    parts = [
        attempt(partial(_checkpoints, trained)),
        *(missing(f"{r.title} has no checkpoint; dvc repro {r.maker} trains it") for r in found if r not in trained),
        *(tag("h3", "Curves"), attempt(partial(curves, trained))),
        *(tag("h3", "What it learned from"), attempt(real)),
        *(tag("h3", "Samples after training"), _pictures(trained, how, "grid.png", "samples of {}, one object a row")),
        tag("h3", "Samples in the course of training"),
        _pictures(trained, how, "snapshots.png", "{}: the first row of samples from the beginning to the end"),
    ]
    return join(parts)


def _checkpoints(trained: Sequence[Run]) -> Html:
    rows = []
    for run in trained:
        record = read_json(run.folder / "config.json")
        sizes = record.get("parameters", {})
        rows.append(
            [
                run.title,
                record.get("step"),
                record.get("images"),
                _side(record.get("params", {})),
                sum(sizes.values()) if sizes else None,
                tag("code", str(record.get("data", ""))[:12] or "–"),
                tag("code", str(record.get("revision", ""))[:12] or "–"),
            ]
        )
    head = ("variant", "steps", "pictures seen", "side, px", "parameters", "data", "code")
    return table(head, rows, "Published checkpoints; data and code are the first digits of their hashes")


def _side(params: dict[str, Any]) -> int | None:
    return params.get("model", {}).get("resolution") or params.get("objective", {}).get("portrait")


def curves(found: Sequence[Run]) -> Html:
    """A chart a number of ``curves.csv``, with a line a network.

    Raises:
        Missing: no network has curves.
    """
    panels: dict[str, list[chart.Line]] = defaultdict(list)
    known: list[chart.Line] = []
    absent = []
    for number, run in enumerate(found):
        path = run.folder / "curves.csv"
        columns = read_curves(path) if path.is_file() else None
        if columns is None:
            continue
        if not len(columns.get("images", ())):
            absent.append(missing(f"curves.csv of {run.title} holds no curve; dvc checkout restores it"))
            continue
        known.append(chart.Line(run.title, [], [], number))
        for name in sorted(set(columns) - {"step", "images"}):
            there = np.isfinite(columns[name])  # a term that was not in force at a step has no value there
            if not there.any():
                continue
            x, y = columns["images"][there].tolist(), columns[name][there].tolist()
            panels[name].append(chart.Line(run.title, x, y, number))
    if not panels and not absent:
        raise Missing("there is no curves.csv yet")
    drawn = [tag("figure", chart.lines(name, series, "pictures seen")) for name, series in sorted(panels.items())]
    return join([*absent, chart.key(known), tag("div", *drawn, class_="grid")])


def _pictures(found: Sequence[Run], how: Embedding, name: str, text: str) -> Html:
    shown = [attempt(partial(picture, r.folder / name, text.format(r.title), how, r.maker)) for r in found]
    return tag("div", *shown, class_="grid")
