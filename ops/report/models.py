"""Sections about training and evaluation: curves, samples, strips, ROC curves, the table beside the paper's."""

from __future__ import annotations

import csv
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from ops.evaluate.published import TITLES
from ops.report import chart
from ops.report.data import read_json
from ops.report.page import Embedding, Html, Missing, attempt, join, missing, notes, picture, table, tag, warning
from ops.train.curves import read_curves

SYSTEM = "giraffe"
VARIANTS = tuple(TITLES)


def checkpoint(root: Path, variant: str) -> Path:
    """Where a variant's published checkpoint lies."""
    return root / "data/checkpoints" / SYSTEM / variant


def evaluation(root: Path) -> Path:
    """Where the evaluation of the system lies."""
    return root / "data/evaluation" / SYSTEM


def training_section(root: Path, how: Embedding) -> Html:
    """What was trained, how its losses went, what it draws."""
    records = {variant: _record(root, variant) for variant in VARIANTS}
    trained = {variant: record for variant, record in records.items() if isinstance(record, dict)}
    parts: list[str] = [attempt(lambda: _trained(trained))]
    parts += [r for r in records.values() if isinstance(r, Html)]
    parts += [tag("h3", "Curves"), attempt(lambda: _curves(root))]
    parts += [tag("h3", "Samples after training"), _pictures(root, how, "grid.png", "samples of {}, one object a row")]
    parts += [tag("h3", "Samples in the course of training")]
    parts.append(_pictures(root, how, "snapshots.png", "{}: the first row of samples from the beginning to the end"))
    return join(parts)


def _record(root: Path, variant: str) -> dict[str, Any] | Html:
    try:
        return read_json(checkpoint(root, variant) / "config.json")
    except Missing:
        return missing(f"{TITLES[variant]} has no checkpoint; dvc repro {_trainer(variant)} trains it")


def _trainer(variant: str) -> str:
    return f"train_{SYSTEM}@{variant}"


def _trained(records: dict[str, dict[str, Any]]) -> Html:
    if not records:
        raise Missing(f"nothing has been trained yet; dvc repro train_{SYSTEM} does")
    rows = []
    for variant, record in records.items():
        sizes = record.get("parameters", {})
        model = record.get("params", {}).get("model", {})
        rows.append(
            [
                TITLES[variant],
                record.get("step"),
                record.get("images"),
                model.get("resolution"),
                sum(sizes.values()) if sizes else None,
                tag("code", str(record.get("data", ""))[:12] or "–"),
                tag("code", str(record.get("revision", ""))[:12] or "–"),
            ]
        )
    head = ("variant", "steps", "pictures seen", "side, px", "parameters", "data", "code")
    return table(head, rows, "Published checkpoints; data and code are the first digits of their hashes")


def _curves(root: Path) -> Html:
    panels: dict[str, list[chart.Line]] = defaultdict(list)
    known: list[chart.Line] = []
    absent = []
    for number, variant in enumerate(VARIANTS):
        path = checkpoint(root, variant) / "curves.csv"
        columns = read_curves(path) if path.is_file() else None
        if columns is None:
            continue
        if not len(columns.get("images", ())):
            absent.append(missing(f"curves.csv of {TITLES[variant]} holds no curve; dvc checkout restores it"))
            continue
        images = columns["images"].tolist()
        known.append(chart.Line(TITLES[variant], [], [], number))
        for name in sorted(set(columns) - {"step", "images"}):
            panels[name].append(chart.Line(TITLES[variant], images, columns[name].tolist(), number))
    if not panels and not absent:
        raise Missing("no variant has written curves.csv yet")
    drawn = [tag("figure", chart.lines(name, series, "pictures seen")) for name, series in sorted(panels.items())]
    return join([*absent, chart.key(known), tag("div", *drawn, class_="grid")])


def _pictures(root: Path, how: Embedding, name: str, text: str) -> Html:
    found = [
        attempt(
            partial(picture, checkpoint(root, variant) / name, text.format(TITLES[variant]), how, _trainer(variant))
        )
        for variant in VARIANTS
        if checkpoint(root, variant).is_dir()
    ]
    return tag("div", *found, class_="grid") if found else missing("no variant has been trained yet")


def strips_section(root: Path, how: Embedding) -> Html:
    """The same objects from nine angles, by every variant."""
    if not evaluation(root).is_dir():
        raise Missing(f"evaluate_{SYSTEM} has not run; dvc repro evaluate_{SYSTEM} draws them")
    found = []
    for variant in VARIANTS:
        path = evaluation(root) / f"strips_{variant}.png"
        text = f"{TITLES[variant]}: one object a row, camera azimuth in degrees above (positive: the subject's left)"
        found.append(attempt(partial(picture, path, text, how, f"evaluate_{SYSTEM}")))
    return join(found)


def verification_section(root: Path) -> Html:
    """ROC curves, area by angle, the table beside the paper's, and what differs."""
    results = read_json(evaluation(root) / "auc.json")
    protocol = results["protocol"]
    share = round(protocol["confidence"] * 100)
    lead = (
        f"{protocol['name']}. {protocol['objects']:,} objects a variant, {protocol['genuine_pairs']:,} genuine and "
        f"{protocol['impostor_pairs']:,} impostor pairs an angle, seed {protocol['seed']}, recogniser "
        f"{protocol['recogniser']} ({protocol['similarity']})."
    )
    absent = [missing(f"{TITLES.get(name, name)}: {why}") for name, why in results["not_available"].items()]
    explained = (
        f"Areas under the ROC curve; 0.5 is chance, 1 is perfect. In brackets DeLong's {share} % interval, which takes "
        f"pairs as independent; below it the {share} % interval that takes the object as the unit (jackknife), "
        "which is safer. Where no pair was misjudged both shrink to a point: that says how few objects there are, not "
        "how sure the area is. Equal error rates and all numbers are in data/evaluation/giraffe/auc.csv."
    )
    parts = [
        tag("p", lead),
        *absent,
        *map(warning, results["warnings"]),
        *(tag("h3", "ROC curves"), attempt(partial(_rocs, root))),
        *(tag("h3", "Area by angle"), _areas(results), _auc_table(results), tag("p", explained, class_="small")),
        *(tag("h3", "How much a view changes"), _change_table(results)),
        *(tag("h3", "What differs from the paper"), notes(results["differs"])),
    ]
    return join(parts)


def _rocs(root: Path) -> Html:
    path = evaluation(root) / "roc.csv"
    if not path.is_file():
        raise Missing("roc.csv has not been made")
    points: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            points[row["variant"]][row["angle"]].append((float(row["false_accept"]), float(row["true_accept"])))
    angles = list(dict.fromkeys(angle for curves in points.values() for angle in curves))
    sizes = sorted({angle[1:] for angle in angles}, key=float, reverse=True)
    drawn, shared = [], {}
    for variant, curves in points.items():
        series = []
        for angle, places in curves.items():
            x, y = zip(*places)
            line = chart.Line(angle, x, y, sizes.index(angle[1:]), dashed=angle.startswith("R"))
            series.append(line)
            shared[angle] = line
        title = f"{TITLES.get(variant, variant)}: true over false accepts"
        drawn.append(tag("figure", chart.lines(title, series, "false accepts", x_range=(0, 1), y_range=(0, 1))))
    return join([chart.key([shared[angle] for angle in angles]), tag("div", *drawn, class_="grid")])


def _areas(results: dict[str, Any]) -> Html:
    paper, drawn, legend = results["paper"]["auc"], [], []
    series = []
    for number, (variant, entry) in enumerate(results["variants"].items()):
        rows = entry["angles"].values()
        x, y = [row["azimuth"] for row in rows], [row["auc"] for row in rows]
        series.append(chart.Line(TITLES.get(variant, variant), x, y, number))
        if variant in paper:
            known = [
                (row["azimuth"], paper[variant][name])
                for name, row in entry["angles"].items()
                if name in paper[variant]
            ]
            if known:
                legend.append(
                    chart.Line(f"{TITLES[variant]}, paper", [a for a, _ in known], [v for _, v in known], number, True)
                )
    low = min(0.5, *(value for line in series for value in line.y))
    titles = (("Measured here", series), ("Published, by another recogniser on other data", legend))
    for title, some in titles:
        if some:
            drawn.append(
                tag("figure", chart.lines(title, some, "camera azimuth, degrees", y_range=(low, 1.0), dots=True))
            )
    return join([chart.key([*series, *legend]), tag("div", *drawn, class_="grid")])


def _auc_table(results: dict[str, Any]) -> Html:
    variants, paper = results["variants"], results["paper"]["auc"]
    head = ["angle"]
    for variant in variants:
        head += [TITLES.get(variant, variant), "paper"]
    rows: list[list[object]] = []
    for angle in next(iter(variants.values()))["angles"]:
        row: list[object] = [angle]
        for variant, entry in variants.items():
            row += [_auc_cell(entry["angles"][angle]), _paper_cell(paper.get(variant, {}).get(angle))]
        rows.append(row)
    row = ["mean"]
    for variant, entry in variants.items():
        known = [paper[variant][a] for a in entry["angles"] if a in paper.get(variant, {})]
        row += [tag("b", f"{entry['mean_auc']:.3f}"), _paper_cell(sum(known) / len(known) if known else None)]
    return table(head, [*rows, row], f"AUC measured here, beside Table 1 ({results['paper']['source']})")


def _auc_cell(row: dict[str, Any]) -> Html:
    pair, whole = ("–".join(f"{value:.2f}" for value in row[key]) for key in ("interval", "object_interval"))
    return join([tag("b", f"{row['auc']:.3f}"), " ", tag("small", f"[{pair}]", Html("<br/>"), f"by object {whole}")])


def _paper_cell(value: float | None) -> Html:
    return tag("span", "–" if value is None else f"{value:.3f}", class_="soft")


def _change_table(results: dict[str, Any]) -> Html:
    rows = []
    for variant, entry in results["variants"].items():
        changes = [row["change"] for row in entry["angles"].values()]
        rows.append([TITLES.get(variant, variant), *changes, entry["change_between_objects"]])
    head = ["variant", *next(iter(results["variants"].values()))["angles"], "two objects"]
    return table(head, rows, "Mean difference from the frontal picture in grey levels of 255, on 32 px thumbnails")
