"""The page about labels: how far they lie from the truth, by angle, the fits over their pictures, what was lost."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ops.report import chart, training
from ops.report.files import read_json
from ops.report.page import (
    Embedding,
    Html,
    Missing,
    Page,
    Section,
    attempt,
    facts,
    join,
    measured,
    missing,
    picture,
    table,
    tag,
)
from ops.runtime.weights import REGISTRY, locate

MAKER = "evaluate_labels"
TITLES = {
    "yaw": "Camera yaw, °",
    "pitch": "Camera pitch, °",
    "roll": "Camera roll, °",
    "landmarks": "Landmarks, % of eye distance",
    "residual": "Fit residual, % of eye distance",
    "head_vertices_mm": "Head vertices, mm",
    "mask_iou": "Mask IoU",
    "joint_angle": "Body joints, °",
    "head_to_torso": "Head against torso, °",
}
METHODS = {
    "camera": "FaceMesh + PnP (camera)",
    "facemesh": "FaceMesh (landmarks)",
    "fit_face": "face model's fit (fit_face)",
    "fit_body": "body model's fit (fit_body)",
    "heads": "heads from all sides (heads)",
    "mean_person": "the mean person, for comparison",
    "mean_pose": "the mean pose, for comparison",
    "parse": "parser's mask (parse)",
    "segment": "selfie segmentation (segment)",
    "track_clips": "clips (track_clips)",
}
TAUGHT = {"headpose": "heads and their poses", "parser": "parsing"}
LABELLERS = ("camera", "landmarks", "mask", "parsing", "coefficients", "head boxes")  # roles of the papers' networks


def results(root: Path) -> dict[str, Any]:
    """What the stage found.

    Raises:
        Missing: it has not run.
    """
    path = root / "data/evaluation/labels/results.json"
    if not path.is_file():
        raise Missing(f"the labels have not been compared with the truth; dvc repro {MAKER} does")
    return read_json(path)


def page(root: Path, how: Embedding) -> Page:
    """Everything that was measured, source by source.

    Raises:
        Missing: nothing has been compared with the truth.
    """
    found = results(root)
    sections, headline = [], []
    for source, entry in found["sources"].items():
        name = source if len(found["sources"]) > 1 else ""
        known = facts(partial(_facts, entry))
        headline += [(f"{name}: {words}" if name else words, value) for words, value in known]
        for anchor, heading, make in (
            ("angles", "Errors by the angle of view", partial(_charts, entry)),
            ("table", "All errors", partial(_errors, entry)),
            ("fits", "Fits over their pictures", partial(_overlays, root, source, how)),
            ("parsing", "Parsing by class", partial(_parsing, entry)),
            ("expression", "Expression units", partial(_expression, entry)),
            ("filters", "Did the filters take the right pictures?", partial(_filters, entry)),
            ("losses", "What each stage lost", partial(_losses, entry)),
        ):
            words = f"{heading}: {name}" if name else heading
            sections.append(Section.of(f"{anchor}-{source}", words, make))
    for source, entry in found["skipped"].items():
        content = join(
            [
                missing(f"{source} is not measured: {entry['why']}"),
                attempt(partial(_overlays, root, source, how)),
                attempt(partial(_losses, entry)),
            ]
        )
        sections.append(Section(f"skipped-{source}", f"Source {source}, without truth", content))
    taught = [training.Run(w, root / "data/checkpoints" / n, f"train_{n}") for n, w in TAUGHT.items()]
    sections.append(Section.of("taught", "Labellers taught on rendered lessons", partial(training.curves, taught)))
    sections.append(Section.of("labellers", "The papers' own labellers", _labellers))
    return Page(
        "The labels that training rests on, against a truth that labelling never saw.",
        sections,
        headline,
        "Mean distance of the labels from the studio's truth, which no labeller has seen; n counts pictures or people. "
        "Eye distance is the unit of the landmarks and of the fit; an IoU of 1 is a perfect mask."
        if headline
        else "No label has a true counterpart.",
        (),
        facts(partial(_limits, found)),
    )


def _entry(entry: dict[str, Any], method: str, quantity: str) -> dict[str, Any] | None:
    return next((e for e in entry["errors"] if (e["method"], e["quantity"]) == (method, quantity)), None)


def _facts(entry: dict[str, Any]) -> list[tuple[str, str]]:
    wanted = (
        ("fit residual, near front", "fit_face", "residual", "near_front", "{:.2f} %"),
        ("yaw error within ±60°", "fit_face", "yaw", "within_60", "{:.1f}°"),
        ("yaw error, all sides", "heads", "yaw", "all", "{:.1f}°"),
        ("landmark error, near front", "facemesh", "landmarks", "near_front", "{:.1f} %"),
        ("mask IoU", "segment", "mask_iou", "all", "{:.3f}"),
        ("yaw error in clips", "track_clips", "yaw", "all", "{:.1f}°"),
    )
    known = []
    for name, method, quantity, part, form in wanted:
        error = _entry(entry, method, quantity)
        if error and error[part]["n"]:
            known.append((f"{name} (n = {error[part]['n']:,})", form.format(error[part]["mean"])))
    return known


def _charts(entry: dict[str, Any]) -> Html:
    drawn, known = [], {}
    methods = sorted({error["method"] for error in entry["errors"]})
    for quantity, title in TITLES.items():
        series = []
        for error in entry["errors"]:
            bins = [b for b in error["bins"] if b["n"]]
            if error["quantity"] == quantity and bins:
                x = [(b["from"] + b["to"]) / 2 for b in bins]
                name = METHODS.get(error["method"], error["method"])
                line = chart.Line(name, x, [b["mean"] for b in bins], methods.index(error["method"]))
                known[name] = line
                series.append(line)
        if series:
            top = 1.0 if quantity == "mask_iou" else max(max(line.y) for line in series) * 1.08
            limits = {"x_range": (0.0, 180.0), "y_range": (0.0, top or 1.0)}
            drawn.append(tag("figure", chart.lines(title, series, "degrees from the front", dots=True, **limits)))
    if not drawn:
        raise Missing("no error has been measured")
    return join([chart.key(list(known.values())), tag("div", *drawn, class_="grid")])


def _errors(entry: dict[str, Any]) -> Html:
    rows: list[list[object]] = []
    for error in sorted(entry["errors"], key=lambda e: ([*TITLES, e["quantity"]].index(e["quantity"]), e["method"])):
        name = error["quantity"].replace("_", " ")
        title = TITLES.get(error["quantity"], ", ".join(filter(None, (name, error.get("unit")))))
        spread = [error["all"]["median"], error["all"]["p90"]]
        parts = [measured(error[part]) for part in ("all", "near_front", "within_60")]
        rows.append([title, METHODS.get(error["method"], error["method"]), *parts, *spread])
    head = ("quantity", "label", "mean, all", "near the front", "within ±60°", "median", "90 % below")
    said = (
        "Lower is better, but for the IoU, of which 1 is perfect. In brackets 95 % intervals by bootstrap over people "
        "(videos: over the people in them)"
    )
    return table(head, rows, said)


def _overlays(root: Path, source: str, how: Embedding) -> Html:
    path = root / f"data/evaluation/labels/overlays_{source}.png"
    text = "Fitted heads over their pictures: smallest residuals, middle ones, largest; then those not kept, if any"
    return picture(path, text, how, MAKER)


def _parsing(entry: dict[str, Any]) -> Html:
    rows = [[row["class"].replace("_", " "), row["n"], measured(row)] for row in entry["parsing"] if row["n"]]
    if not rows:
        raise Missing("no parsing has been compared; the stage parse makes it")
    return table(("class", "pictures", "intersection over union"), rows, "Sums over all pictures, by class")


def _expression(entry: dict[str, Any]) -> Html:
    if not entry["expression"]:
        raise Missing("no fitted expression has a true counterpart")
    methods = list(entry["expression"])
    names = sorted({name for found in entry["expression"].values() for name in found["units"]})
    rows: list[list[object]] = []
    for name in names:
        units = [entry["expression"][method]["units"].get(name) for method in methods]
        rows.append([name, *(measured(u) if u and u["mean"] is not None else Html("–") for u in units)])

    def means(key: str) -> str:
        values = [entry["expression"][method][key] for method in methods]
        return ", ".join(f"{METHODS.get(m, m)} {'–' if v is None else f'{v:.2f}'}" for m, v in zip(methods, values))

    lead = tag(
        "p",
        f"Correlation of fitted and true units. Mean of all that the truth uses: {means('mean')}. ",
        f"Of those alone whose usual strength moves some landmark by a millimetre: {means('seen')}.",
    )
    inner = table(("unit", *(METHODS.get(m, m) for m in methods)), rows, "Correlations with Fisher's 95 % intervals")
    return join([lead, tag("details", tag("summary", "Unit by unit"), inner)])


def _filters(entry: dict[str, Any]) -> Html:
    rows = [
        [
            f["reason"].replace("_", " "),
            f["stage"],
            ", ".join(f["kinds"]).replace("_", " "),
            *map(measured, (f["precision"], f["recall"])),
        ]
        for f in entry["filters"]
    ]
    head = ("reason", "stage", "meant for", "precision", "recall")
    return table(head, rows, "Shares with Wilson's 95 % intervals; n is what was taken out, and what should have been")


def _losses(entry: dict[str, Any]) -> Html:
    rows: list[list[object]] = []
    for row in entry["losses"]:
        reasons = "; ".join(
            f"{reason.replace('_', ' ')} {100 * v['mean']:.1f} %" for reason, v in row["reasons"].items()
        )
        rows.append([row["stage"], row["in"], measured(row["lost"]), reasons or Html("–")])
    return table(("stage", "in", "share lost", "for"), rows, "What each stage took in, and what it lost of that")


def _labellers() -> Html:
    rows: list[list[object]] = []
    for weight in REGISTRY:
        if (weight.origin == "user" and weight.role.startswith(LABELLERS)) or "coefficients" in weight.role:
            there = "there" if locate(weight.name).is_file() else "not supplied"
            there = "no code reads it yet" if weight.unread else there
            rows.append([weight.name, weight.role, there, weight.fallback])
    said = tag(
        "p",
        "A table below data/labels that another labeller wrote, with the same columns, is measured beside the embedded "
        "ones and stands in the tables above under its own name. Without their weights, nothing is said of them.",
    )
    return join([said, table(("network", "role", "weights", "used instead"), rows)])


def _limits(found: dict[str, Any]) -> list[str]:
    return [
        "The truth is the studio's: rendered people. Errors on photographs may be larger or smaller.",
        "Errors are absolute; the eye distance is that of the outer corners, as it would be seen from straight ahead.",
        "Only labels that their stage kept are measured; the shares that were lost stand above.",
        "Landmarks are compared with their places on the true surface; the network's own idea of a point, some "
        "millimetres off, counts as an error of the landmarks and is taken out of the fits.",
        f"Near the front means an azimuth of less than {found['near_front']:g}°. Head shapes are compared after the "
        "best rotation and shift; their scale is the fit's own.",
    ]
