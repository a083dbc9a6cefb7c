"""Stage report: ``index.html``, a page a system and one for the data set, and a picture of two numbers that matter.

python -m ops.report . data/report
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from ops.evaluate import plots
from ops.evaluate.published import TITLES
from ops.report import avatar, data, giraffe, heads, labels, portrait, protocols, record
from ops.report.page import Embedding, Html, Missing, Page, Section, join, missing, render, tag
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.stage import Stage, stage

ENTRY = "index.html"
PAGES: dict[str, tuple[str, Callable[[Path, Embedding], Page]]] = {
    "data.html": ("Data set", data.page),
    "labels.html": ("Labels", labels.page),
    "giraffe.html": ("GIRAFFE", giraffe.page),
    "heads.html": ("Heads", heads.page),
    "portrait.html": ("Portraits", portrait.page),
    "avatar.html": ("Avatars", avatar.page),
    "protocols.html": ("The papers' tables", protocols.page),
}
MAX_MB = 15.0  # a page that mails and opens easily


class ReportParams(Params):
    """How the page is drawn."""

    title: str = "Lineament: what this run made"
    width: int = Field(default=1100, ge=100, description="pixels of the widest picture")  # unpublished: our choice
    quality: int = Field(default=84, ge=1, le=100, description="JPEG quality of photographs")  # unpublished: our choice


@stage("report", ReportParams)
def main(s: Stage[ReportParams], root: Path, out: Path) -> None:
    """Write self-contained pages about all that lies under the project's folder; index.html is the entry."""
    if not (root / "dvc.yaml").is_file():
        raise LineamentError(f"{root}: no dvc.yaml there. Give the project's folder.")
    pages = build(root, s.params)
    sizes = {name: len(text.encode()) / 1e6 for name, text in pages.items()}
    for name, size in sizes.items():
        if size > MAX_MB:
            s.log(f"{name} has {size:.1f} MB; report.width and report.quality make it smaller")
    with publish(out, folder=True) as folder:
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
    s.preview(preview(root))
    s.log(f"{out / ENTRY}: {len(pages)} pages, {sum(sizes.values()):.1f} MB")


def build(root: Path, params: ReportParams) -> dict[str, str]:
    """The pages as text by file name, the entry first.

    What cannot be made says why; a page with nothing else on it is left out, and the entry says so.
    """
    how = Embedding(params.width, params.quality)
    found: dict[str, tuple[Page, list[Section]] | str] = {}
    for file, (_, make) in PAGES.items():
        try:
            page = make(root, how)
            found[file] = page, page.whole()
        except LineamentError as error:
            found[file] = str(error)
    written = {file: known for file, known in found.items() if not isinstance(known, str)}
    foot = f"Made by Lineament at {record.revision(root)}. These pages fetch nothing and run no script."
    entry = _entry(root, found)
    texts = {ENTRY: render(params.title, entry.lead, entry.whole(), foot, _links(ENTRY, written))}
    for file, (page, sections) in written.items():
        texts[file] = render(PAGES[file][0], page.lead, sections, foot, _links(file, written))
    return texts


def _links(current: str, written: Iterable[str]) -> Html:
    names = {ENTRY: "Lineament", **{file: PAGES[file][0] for file in written}}
    here = {file: "page" if file == current else None for file in names}
    return join(tag("a", name, href=file, aria_current=here[file]) for file, name in names.items())


def _entry(root: Path, found: Mapping[str, tuple[Page, list[Section]] | str]) -> Page:
    """The entry: every page in a few facts, then what concerns all of them."""
    boxes, limits = [], record.limits(root)
    for file, known in found.items():
        name = PAGES[file][0]
        if isinstance(known, str):
            boxes += [tag("h3", name), missing(f"{name} has no page: {known}")]
            continue
        page, _ = known
        boxes += [tag("h3", tag("a", name, href=file)), page.summary]
        limits += [f"{name}: {line}" for line in (*page.limits, *(f"missing: {a}" for a in page.absences))]
    seconds = sum(entry["seconds"] for entry in record.timings(root))
    took = f"The recorded stages took {seconds / 60:.1f} minutes." if seconds else "No stage's seconds are on record."
    sections = [
        Section(
            "summary", "What there is", join([tag("p", f"One run of the lineage as it lies on disk. {took}"), *boxes])
        ),
        Section.of("lineage", "Lineage", partial(record.lineage_section, root)),
        Section.of("timings", "Seconds", partial(record.timings_section, root)),
        Section.of("machine", "Machine and versions", partial(record.machine_section, root)),
        Section.of("hashes", "Hashes", partial(record.hashes_section, root)),
    ]
    lead = "From raw pictures to trained, evaluated 3D-aware generators, with every step on record."
    return Page(lead, sections, limits=limits)


def preview(root: Path) -> np.ndarray:
    """Pictures kept after each step, and area against angle, (H, W, 3) uint8."""
    canvas, (left, right) = plots.figure(10, 4, panels=2)
    for source, steps in data.counts(root).items():
        known = {step: found["kept"] for step, found in steps.items() if found}
        left.plot(list(known), list(known.values()), marker="o", markersize=4, label=source)
    left.set(title="pictures kept after each step", ylim=(0, None))
    left.tick_params(axis="x", labelrotation=30)
    left.legend(fontsize=8, frameon=False)
    try:
        results = giraffe.evaluation(root)
        rows = {TITLES.get(name, name): entry["angles"].values() for name, entry in results["variants"].items()}
        angles = [row["azimuth"] for row in next(iter(rows.values()))]
        areas = {name: [row["auc"] for row in some] for name, some in rows.items()}
        plots.area_axes(right, angles, areas, f"side view against front, {results['protocol']['recogniser']}")
    except Missing:
        right.set(title="not evaluated yet", xticks=[], yticks=[])
    return plots.pixels(canvas)


if __name__ == "__main__":
    raise SystemExit(main())
