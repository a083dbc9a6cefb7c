"""The page about GIRAFFE: its training, strips of views, ROC curves, the table beside the paper's."""

from __future__ import annotations

import csv
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from ops.evaluate.published import TITLES
from ops.report import chart, training
from ops.report.files import Record, read_json
from ops.report.page import (
    Embedding,
    Html,
    Missing,
    Page,
    Section,
    attempt,
    facts,
    join,
    missing,
    notes,
    picture,
    table,
    tag,
    warning,
)

SYSTEM = "giraffe"
EVALUATION = Path("data/evaluation") / SYSTEM


def page(root: Path, how: Embedding) -> Page:
    """Training, the views of one object, and how far a face stays the same when it turns."""
    headline = facts(lambda: _headline(evaluation(root)))
    meaning = (
        "AUC says how well a recogniser tells a generated person from the others when it sees one of them from the "
    )
    meaning += "side: 1 is perfect, 0.5 is chance. It is not the paper's number, for reasons listed with the table."
    return Page(
        "GIRAFFE and its contrastive variants: objects and background as feature fields, from pictures alone.",
        [
            Section.of("training", "Training", partial(training.section, root, how, SYSTEM)),
            Section.of("views", "One object from nine angles", partial(strips_section, root, how)),
            Section.of("verification", "Is it the same person from the side?", partial(verification_section, root)),
        ],
        [*facts(partial(training.facts, root, SYSTEM)), *headline],
        meaning if headline else "Nothing has been evaluated yet.",
        facts(lambda: evaluation(root)["warnings"]),
        facts(lambda: _limits(evaluation(root))),
    )


def evaluation(root: Path) -> Record:
    """What evaluate_giraffe found.

    Raises:
        Missing: it has not run, or other code than this has.
    """
    results = read_json(root / EVALUATION / "auc.json")
    results["variants"].first()
    return results


def _headline(results: Record) -> list[tuple[str, str]]:
    return [(f"mean AUC, {training.title(name)}", f"{e['mean_auc']:.3f}") for name, e in results["variants"].items()]


def _limits(results: Record) -> list[str]:
    lines = list(results["warnings"])
    objects = results["protocol"]["objects"]
    if objects < 1000:
        lines.append(f"{objects} objects a variant give wide intervals; differences within them mean nothing.")
    seen = max(int(entry["checkpoint"].get("images", 0)) for entry in results["variants"].values())
    if seen < 1_000_000:
        lines.append(
            f"Training saw {seen:,} pictures. GIRAFFE-size models need millions: these samples show that the lineage "
            "works, not what the method can do."
        )
    best = max(results["variants"].items(), key=lambda item: item[1]["mean_auc"])[0]
    lines.append(
        f"The highest mean area here ({best}) is no evidence for or against the paper's ranking. In the paper itself "
        "InfoNCE is ahead of AamNCE at L60 (0.844 against 0.818)."
    )
    return lines


def strips_section(root: Path, how: Embedding) -> Html:
    """The same objects from nine angles, by every variant."""
    if not (root / EVALUATION).is_dir():
        raise Missing(f"evaluate_{SYSTEM} has not run; dvc repro evaluate_{SYSTEM} draws them")
    found = []
    for variant in TITLES:
        path = root / EVALUATION / f"strips_{variant}.png"
        text = f"{TITLES[variant]}: one object a row, camera azimuth in degrees above (positive: the subject's left)"
        found.append(attempt(partial(picture, path, text, how, f"evaluate_{SYSTEM}")))
    return join(found)


def verification_section(root: Path) -> Html:
    """ROC curves, area by angle, the table beside the paper's, and what differs."""
    results = evaluation(root)
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
    path = root / EVALUATION / "roc.csv"
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


def _areas(results: Record) -> Html:
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


def _auc_table(results: Record) -> Html:
    variants, paper = results["variants"], results["paper"]["auc"]
    head = ["angle"]
    for variant in variants:
        head += [TITLES.get(variant, variant), "paper"]
    rows: list[list[object]] = []
    for angle in variants[variants.first()]["angles"]:
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


def _change_table(results: Record) -> Html:
    rows = []
    for variant, entry in results["variants"].items():
        changes = [row["change"] for row in entry["angles"].values()]
        rows.append([TITLES.get(variant, variant), *changes, entry["change_between_objects"]])
    variants = results["variants"]
    head = ["variant", *variants[variants.first()]["angles"], "two objects"]
    return table(head, rows, "Mean difference from the frontal picture in grey levels of 255, on 32 px thumbnails")
