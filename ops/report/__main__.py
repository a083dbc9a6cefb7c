"""Stage report: the page ``index.html`` and a picture of the two numbers that matter most.

python -m ops.report . data/report
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ops.evaluate import plots
from ops.evaluate.published import TITLES
from ops.report import data, heads, labels, models, protocols, record
from ops.report.page import Embedding, Html, Missing, Section, absences, attempt, join, render, tag, warning
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.stage import Stage, stage

MAX_MB = 15.0  # a page that mails and opens easily


class ReportParams(Params):
    """How the page is drawn."""

    title: str = "Lineament: what this run made"
    width: int = Field(default=1100, ge=100, description="pixels of the widest picture")  # unpublished: our choice
    quality: int = Field(default=84, ge=1, le=100, description="JPEG quality of photographs")  # unpublished: our choice


@stage("report", ReportParams)
def main(s: Stage[ReportParams], root: Path, out: Path) -> None:
    """Write one self-contained page about all that lies under the project's folder."""
    if not (root / "dvc.yaml").is_file():
        raise LineamentError(f"{root}: no dvc.yaml there. Give the project's folder.")
    page = build(root, s.params)
    size = len(page.encode()) / 1e6
    if size > MAX_MB:
        s.log(f"the page has {size:.1f} MB; report.width and report.quality make it smaller")
    with publish(out, folder=True) as folder:
        (folder / "index.html").write_text(page, encoding="utf-8")
        try:
            about_labels = labels.build(root, f"{s.params.title}: labels", _embedding(s.params), _foot(root))
            (folder / labels.PAGE).write_text(about_labels, encoding="utf-8")
        except Missing as error:
            s.log(f"no {labels.PAGE}: {error}")
    s.preview(preview(root))
    s.log(f"{out / 'index.html'}: {size:.1f} MB")


def build(root: Path, params: ReportParams) -> str:
    """The page as text. A section whose content cannot be made says why; the others stand."""
    how = _embedding(params)
    sections = [
        _section("lineage", "Lineage", partial(record.lineage_section, root)),
        _section("counts", "How many pictures came how far", partial(data.counts_section, root)),
        _section("datasheet", "The data sheet", partial(data.datasheet_section, root, how)),
        _section("sheets", "What each stage saw", partial(data.sheets_section, root, how)),
        _section("cameras", "Cameras", partial(data.camera_section, root)),
        _section("labels", "Labels against the truth", partial(labels.section, root)),
        _section("training", "Training", partial(models.training_section, root, how)),
        _section("views", "One object from nine angles", partial(models.strips_section, root, how)),
        _section("verification", "Is it the same person from the side?", partial(models.verification_section, root)),
        _section("heads", "Heads from all sides", partial(heads.section, root, how)),
        _section("protocols", "The papers' tables", partial(protocols.protocols_section, root)),
        _section("timings", "Seconds", partial(record.timings_section, root)),
        _section("machine", "Machine and versions", partial(record.machine_section, root)),
        _section("hashes", "Hashes", partial(record.hashes_section, root)),
    ]
    results = _results(root)
    absent = absences("".join(section.content for section in sections))
    first = _section("summary", "Summary", partial(summary, root, results))
    last = _section("limits", "Failures and limits", partial(record.limits_section, root, absent, results))
    lead = "From raw pictures to trained, evaluated 3D-aware generators, with every step on record."
    return render(params.title, lead, [first, *sections, last], _foot(root))


def _embedding(params: ReportParams) -> Embedding:
    return Embedding(params.width, params.quality)


def _foot(root: Path) -> str:
    return f"Made by Lineament at {record.revision(root)}. This page fetches nothing and runs no script."


def _section(anchor: str, title: str, make: Callable[[], Html]) -> Section:
    return Section(anchor, title, attempt(make))


def _results(root: Path) -> dict[str, Any] | None:
    try:
        return data.read_json(models.evaluation(root) / "auc.json")
    except Missing:
        return None


def summary(root: Path, results: dict[str, Any] | None) -> Html:
    """The few numbers to remember, and what they mean in a sentence."""
    counts = data.counts(root)
    raw = sum(found["in"] for steps in counts.values() if (found := steps["crawl"]))
    facts: list[tuple[str, str]] = [("sources", ", ".join(counts)), ("pictures crawled", f"{raw:,}" if raw else "–")]
    try:
        facts.append(("samples in the shards", f"{data.read_json(root / 'metrics/shards_faces.json')['kept']:,}"))
    except Missing:
        facts.append(("samples in the shards", "–"))
    trained = [name for name in models.VARIANTS if (models.checkpoint(root, name) / "config.json").is_file()]
    facts.append(("variants trained", f"{len(trained)} of {len(models.VARIANTS)}"))
    if results:
        for name, entry in results["variants"].items():
            facts.append((f"mean AUC, {TITLES.get(name, name)}", f"{entry['mean_auc']:.3f}"))
    seconds = sum(entry["seconds"] for entry in record.timings(root))
    facts.append(("recorded run time", f"{seconds / 60:.1f} min" if seconds else "not recorded"))
    boxes = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts]
    words = "This page shows one run of the lineage as it lies on disk. "
    if results:
        words += (
            f"AUC says how well {results['protocol']['recogniser']} tells a generated person from the others when it "
            "sees one of them from the side; it is not the paper's number, for reasons given below the table."
        )
    else:
        words += "Nothing has been evaluated yet."
    minded = [warning(line) for line in (results or {}).get("warnings", [])]
    return join([tag("dl", *boxes, class_="facts"), tag("p", words), *minded])


def preview(root: Path) -> np.ndarray:
    """Pictures kept after each step, and area against angle, (H, W, 3) uint8."""
    canvas, (left, right) = plots.figure(10, 4, panels=2)
    for source, steps in data.counts(root).items():
        known = {step: found["kept"] for step, found in steps.items() if found}
        left.plot(list(known), list(known.values()), marker="o", markersize=4, label=source)
    left.set(title="pictures kept after each step", ylim=(0, None))
    left.tick_params(axis="x", labelrotation=30)
    left.legend(fontsize=8, frameon=False)
    results = _results(root)
    if results is None:
        right.set(title="not evaluated yet", xticks=[], yticks=[])
    else:
        rows = {TITLES.get(name, name): entry["angles"].values() for name, entry in results["variants"].items()}
        angles = [row["azimuth"] for row in next(iter(rows.values()))]
        areas = {name: [row["auc"] for row in some] for name, some in rows.items()}
        plots.area_axes(right, angles, areas, f"side view against front, {results['protocol']['recogniser']}")
    return plots.pixels(canvas)


if __name__ == "__main__":
    raise SystemExit(main())
