"""The page about the pictures: how many came how far, what each step saw, where the cameras are."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ops.crawl.sources import load_sources
from ops.dag import Dag
from ops.report import chart, datasheet_text
from ops.report.files import read_json
from ops.report.page import Embedding, Html, Missing, Page, Section, attempt, facts, join, notes, picture, table, tag
from ops.status import step_tables
from ops.store import tables

YAW_BIN, PITCH_BIN = 10, 5  # degrees


def page(root: Path, how: Embedding) -> Page:
    """How many pictures came how far, what each step saw of them, where the cameras are, the data sheet."""
    return Page(
        "The pictures: where they come from, what each step kept and made of them, and what is uneven.",
        [
            Section.of("counts", "How many pictures came how far", partial(counts_section, root)),
            Section.of("datasheet", "The data sheet", partial(datasheet_section, root, how)),
            Section.of("cameras", "Cameras", partial(camera_section, root)),
            Section.of("sheets", "What each stage saw", partial(sheets_section, root, how)),
        ],
        facts(partial(_facts, root)),
        "Each shard set is a training set of its own: a system learns from those pictures that had all the labels it "
        "needs. The table of counts says what fell at which step, and why.",
    )


def _facts(root: Path) -> list[tuple[str, str]]:
    found = counts(root)
    raw = sum(step["in"] for steps in found.values() if (step := steps["crawl"]))
    known = [("sources", ", ".join(found)), ("files crawled", f"{raw:,}" if raw else "–")]
    for path in _shard_counts(root):
        try:
            known.append((f"samples, {path.stem.removeprefix('shards_')} shards", f"{read_json(path)['kept']:,}"))
        except Missing:
            continue  # damaged; the table of shards says so
    return known


def _shard_counts(root: Path) -> list[Path]:
    return sorted((root / "metrics").glob("shards_*.json"))


def counts(root: Path) -> dict[str, dict[str, dict[str, Any] | None]]:
    """By source, by step: in, kept, rejected, reasons; None for a step that has not run."""
    return {
        source: {
            step: tables.counts(tables.read(path)) if path.is_file() else None
            for step, path in step_tables(source, root).items()
        }
        for source in load_sources(root / "params.yaml")
    }


def counts_section(root: Path) -> Html:
    """A table a source, and what the training shards took.

    Raises:
        Missing: no step has run for any source.
    """
    parts: list[str] = []
    found = counts(root)
    if not any(any(steps.values()) for steps in found.values()):
        raise Missing(f"no step has run yet; dvc repro crawl@{next(iter(found), 'SOURCE')} begins")
    for source, steps in found.items():
        parts.append(tag("h3", f"Source {source}"))
        parts.append(attempt(partial(_counts_table, source, steps)))
    parts.append(tag("h3", "Training shards"))
    parts.append(attempt(lambda: _shards(root)))
    return join(parts)


def _counts_table(source: str, steps: dict[str, dict[str, Any] | None]) -> Html:
    if not any(steps.values()):
        raise Missing(f"no step has run yet; dvc repro crawl@{source} begins")
    rows: list[list[object]] = []
    for step, found in steps.items():
        if found is None:
            rows.append([step, None, None, None, "not run yet"])
            continue
        rows.append([step, found["in"], found["kept"], found["rejected"], _why(found)])
    return table(("step", "in", "kept", "rejected", "why"), rows, f"Pictures of {source}, step by step")


def _shards(root: Path) -> Html:
    rows: list[list[object]] = []
    for path in _shard_counts(root):
        found = read_json(path)
        rows.append([path.stem, found["in"], found["kept"], found["in"] - found["kept"], _why(found)])
    if not rows:
        raise Missing("no shards have been made; dvc repro shards_faces makes the first")
    return table(("stage", "in", "kept", "left out", "why"), rows, "Samples of all sources")


def _why(found: dict[str, Any]) -> str:
    reasons = {reason: number for reason, number in found.get("reasons", {}).items() if number}
    return ", ".join(f"{reason.replace('_', ' ')} {number}" for reason, number in reasons.items()) or Html("")


def datasheet_section(root: Path, how: Embedding) -> Html:
    """Where the pictures come from, under which licences, and what is uneven, from the data sheet."""
    folder = root / "data/datasheet"
    sheet = read_json(folder / "datasheet.json")
    head = ("source", "kind", "offered", "kept", "MB", "licences", "hosts")
    views = partial(picture, folder / "views.png", "Views before and after balancing", how, made_by="datasheet")
    removed = f"Taken down: {sheet['taken_down']:,}. Rejected by hand: {sheet['rejected_by_hand']:,}."
    return join(
        [
            table(head, datasheet_text.source_rows(sheet), "Sources"),
            tag("p", removed, " ", datasheet_text.sizes(sheet) if sheet["sizes"] else ""),
            attempt(views),
            tag("h3", "Known to be uneven"),
            notes(sheet["biases"]),
        ]
    )


def sheets_section(root: Path, how: Embedding) -> Html:
    """The preview of every stage that makes data, in the order of the lineage.

    Raises:
        Missing: no stage has made one.
    """
    dag = Dag.load(root)
    parts, there = [], False
    for unit in dag.units.values():
        for out in unit.outs:
            if out.startswith("data/previews/") and dag.stages[unit.stage].meta.group not in ("models", "evaluation"):
                there |= (root / out).is_file()
                text = f"{unit.name}: {dag.stages[unit.stage].description}"
                show = partial(picture, root / out, text, how, made_by=unit.name)
                parts.append(attempt(show))
    if not there:
        raise Missing("no stage has made a preview yet; dvc repro makes them")
    return tag("div", *parts, class_="grid big")


def camera_section(root: Path) -> Html:
    """Where the cameras of the kept pictures stand."""
    yaw, pitch = [], []
    for source in load_sources(root / "params.yaml"):
        path = root / "data/labels" / source / "camera.parquet"
        if path.is_file():
            kept = tables.kept(tables.read(path))
            yaw += kept.column("yaw").to_pylist()
            pitch += kept.column("pitch").to_pylist()
    if not yaw:
        raise Missing("no picture has a camera label yet; dvc repro camera makes them")
    x, y = np.asarray(yaw), np.asarray(pitch)
    yaw_edges, pitch_edges = _edges(x, YAW_BIN), _edges(y, PITCH_BIN)
    both, _, _ = np.histogram2d(x, y, bins=(yaw_edges, pitch_edges))
    note = (
        f"{len(x):,} pictures with a camera. Yaw is the azimuth of the camera, positive on the subject's left; half of "
        f"them lie within ±{np.median(np.abs(x)):.0f}°. These are labels estimated from landmarks, not the truth."
    )
    charts = (
        chart.bars("Yaw", yaw_edges.tolist(), np.histogram(x, yaw_edges)[0].tolist(), "degrees"),
        chart.bars("Pitch", pitch_edges.tolist(), np.histogram(y, pitch_edges)[0].tolist(), "degrees"),
        chart.grid_of_counts(
            "Pitch over yaw", yaw_edges.tolist(), pitch_edges.tolist(), both.astype(int), "yaw, degrees"
        ),
    )
    return join([tag("p", note), tag("div", *(tag("figure", c) for c in charts), class_="grid")])


def _edges(values: np.ndarray, step: int) -> np.ndarray:
    low, high = np.floor(values.min() / step) * step, np.ceil(values.max() / step) * step
    return np.arange(low, max(high, low + step) + step / 2, step)
