"""The section about heads: what was trained, all sides of what it draws, the ablation beside the paper's, inversion."""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path
from typing import Any

import simplejpeg

from ops.evaluate.heads_output import title
from ops.report import chart
from ops.report.data import read_json
from ops.report.page import Embedding, Html, Missing, attempt, join, notes, picture, table, tag
from ops.store.pictures import decode


def section(root: Path, how: Embedding) -> Html:
    """Everything about generated heads.

    Raises:
        Missing: nothing has been evaluated.
    """
    path = root / "data/evaluation/heads/heads.json"
    if not path.is_file():
        raise Missing("generated heads have not been evaluated; dvc repro evaluate_heads does")
    results = read_json(path)
    about = results["protocol"]
    lead = (
        f"{about['samples']:,} pictures a variant against {about['real']:,} real ones, seed {about['seed']}; "
        f"{about['heads']} heads from {about['views']} sides, truncated to {about['truncation']:g}. Features of "
        f"{about['backbone']} ({about['resize']}): the numbers bear its name and are not FID."
    )
    parts = [
        tag("p", lead),
        tag("h3", "All sides"),
        tag("p", "Scroll a picture sideways to walk around the head, from the front over its left.", class_="small"),
        *(attempt(partial(_turntable, root, name)) for name in results["variants"]),
        *(tag("h3", "Ablation"), _ablation(results), tag("p", _calibration(about), class_="small")),
        *(tag("h3", "Which detectors fired"), _detectors(results)),
        *(tag("h3", "In the course of training"), attempt(partial(_curves, results))),
        *(tag("h3", "One picture in, all sides out"), attempt(partial(_inversions, root, how))),
        *(tag("h3", "What to mind"), notes(results["differs"])),
    ]
    return join(parts)


def _turntable(root: Path, name: str) -> Html:
    """The views of a variant's first head side by side in a box one view wide, which scrolls."""
    path = root / "data/evaluation/heads" / f"turntable_{name}.png"
    if not path.is_file():
        raise Missing(f"turntable_{name}.png of evaluate_heads has not been made")
    image = decode(path.read_bytes())
    views = read_json(path.parent / "heads.json")["protocol"]["views"]
    strip = image[: image.shape[1] // views]
    data = base64.b64encode(simplejpeg.encode_jpeg(strip.copy(), quality=88, colorspace="RGB")).decode()
    text = f"{title(name)}: one head from {views} sides"
    shown = tag("img", src=f"data:image/jpeg;base64,{data}", alt=text)
    box = tag("div", shown, class_="turn", tabindex=0, role="region", aria_label=text)
    return tag("figure", box, tag("figcaption", text))


def _ablation(results: dict[str, Any]) -> Html:
    head = (
        "variant", "FD", "front", "back", "FD, first layers", "KD", "fake faces", "high quality", "mirrored",
        "depth apart", "identity", "paper: FID", "fake faces", "high quality",
    )  # fmt: skip
    rows = []
    for name, found in results["variants"].items():
        paper = results["paper"].get(name, {})
        judged = found["artefacts"]
        fd = found["fd"]
        rows.append(
            [
                title(name), *(fd[view]["value"] for view in ("all", "front", "back")), found["fd_low"]["all"]["value"],
                _with_error(found["kd"]["all"]), _percent(judged["fake_face_rate"]),
                _percent(judged["high_quality_rate"]), found["mirrored"]["score"], found["consistency"]["depth"],
                found["identity"]["auc"], paper.get("fid"), _percent(paper.get("ff")), _percent(paper.get("hq")),
            ]
        )  # fmt: skip
    return table(
        head, rows, "fd_mobilenetv2 and kd_mobilenetv2: lower is better. The paper's columns are of other data"
    )


def _calibration(about: dict[str, Any]) -> str:
    found = about["calibration"]
    false = found["false_alarms"]["face_behind"]
    return (
        f"On {found['back_views']} true back views the face detector fires at {_percent(false)}, which is what a rate "
        f"of fake faces must be held against; on true front views at {_percent(found['face_in_front'])}. "
        f"{_percent(found['any_alarm'])} of {found['pictures']} real pictures set off some detector. Mirrored: cosine "
        "of a back view with its flipped front. Depth apart: world units (2.7 a metre) between neighbouring views. "
        "Identity: share of pairs in which a head turned by 45° is nearer to its own front than to another's."
    )


def _detectors(results: dict[str, Any]) -> Html:
    names = list(next(iter(results["variants"].values()))["artefacts"]["by_detector"])
    rows: list[list[object]] = [
        [
            title(name),
            *(_percent(found["artefacts"]["by_detector"][d]) for d in names),
            _percent(found["face_in_front"]),
        ]
        for name, found in results["variants"].items()
    ]
    false = results["protocol"]["calibration"]["false_alarms"]
    rows.append(["false alarms, a picture", *(_percent(false[d]) for d in names), "–"])
    head = ("variant", *(d.replace("_", " ") for d in names), "face seen in front")
    return table(head, rows, "Share of heads on which each detector fires in at least one view")


def _curves(results: dict[str, Any]) -> Html:
    drawn, known = [], []
    for key, name in (("fd_low", "fd_mobilenetv2_low"), ("fd", "fd_mobilenetv2")):
        series = [
            chart.Line(title(v), [p["step"] for p in found["fd_curve"]], [p[key] for p in found["fd_curve"]], number)
            for number, (v, found) in enumerate(results["variants"].items())
            if found["fd_curve"]
        ]
        if not series:
            raise Missing("training kept no pictures of its snapshots")
        top = max(max(line.y) for line in series) * 1.05
        drawn.append(tag("figure", chart.lines(name, series, "training step", y_range=(0, top), dots=True)))
        known = series
    return join([chart.key(known), tag("div", *drawn, class_="grid")])


def _inversions(root: Path, how: Embedding) -> Html:
    folder = root / "data/inversions/heads"
    if not (folder / "inversions.json").is_file():
        raise Missing("no head has been inverted; dvc repro invert_heads does")
    record = read_json(folder / "inversions.json")
    rows = []
    for name, found in record["variants"].items():
        for stage, words in (("average", "average head"), ("styles", "styles found"), ("tuned", "generator tuned")):
            values = [found["mean"][stage][part][key] for part in ("input", "unseen") for key in _MEASURES]
            rows.append([f"{title(name)}, {words}", *values])
    head = ("", "PSNR, dB", "SSIM", "perceptual", "unseen: PSNR, dB", "SSIM", "perceptual")
    count = record["protocol"]["heads"]
    parts = [table(head, rows, f"Means of {count} held-out heads, from the view given and from those not shown")]
    for name in record["variants"]:
        text = f"{title(name)}: the truth above, below it what was made of its first view"
        parts.append(attempt(partial(picture, folder / f"inversions_{name}.png", text, how, "invert_heads")))
    return join([*parts, notes(record["limits"])])


_MEASURES = ("psnr", "ssim", "perceptual_mobilenetv2")


def _with_error(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "–"
    return (
        f"{estimate['value']:.3g} ± {estimate['se']:.2g}" if estimate["se"] is not None else f"{estimate['value']:.3g}"
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
