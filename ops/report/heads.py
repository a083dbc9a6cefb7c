"""The page about heads: training, all sides of what they draw, the ablation beside the paper's, inversion."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import simplejpeg

from ops.evaluate.heads_output import title
from ops.report import chart, training
from ops.report.files import Record, read_json
from ops.report.page import (
    Embedding,
    Html,
    Missing,
    Page,
    Section,
    attempt,
    cell,
    facts,
    film,
    join,
    notes,
    picture,
    table,
    tag,
)
from ops.store.pictures import decode

SYSTEM, METHOD = "heads", "spherehead"


def page(root: Path, how: Embedding) -> Page:
    """Training, heads from all sides, the ablation, and heads from one picture."""
    headline = facts(lambda: _headline(_results(root)))
    evaluated = partial(_with_results, root)
    return Page(
        "SphereHead and its ablations: heads that are solid from all sides.",
        [
            Section.of("training", "Training", partial(training.section, root, how, SYSTEM)),
            Section.of("turntables", "All sides", evaluated(_turntables)),
            Section.of("ablation", "Ablation", evaluated(_ablation)),
            Section.of("detectors", "Which detectors fired", evaluated(_detectors)),
            Section.of("snapshots", "In the course of training", evaluated(_curves)),
            Section.of("inversion", "One picture in, all sides out", partial(_inversions, root, how)),
        ],
        [*facts(partial(training.facts, root, SYSTEM)), *headline],
        " ".join(facts(lambda: [_meaning(_results(root))])) if headline else "Nothing has been evaluated yet.",
        (),
        facts(lambda: _results(root)["differs"]),
    )


def _headline(results: Record) -> list[tuple[str, str]]:
    chosen, found = _chosen(results)
    return [
        (f"fd_mobilenetv2, {title(chosen)}", cell(found["fd"]["all"]["value"])),
        ("fake faces behind", _percent(found["artefacts"]["fake_face_rate"])),
    ]


def _meaning(results: Record) -> str:
    false = results["protocol"]["calibration"]["false_alarms"]["face_behind"]
    return (
        "FD says how far the features of drawn heads lie from those of real ones, by another network than the "
        "paper's FID: lower is better, and it cannot be held against published numbers. Fake faces are heads that "
        f"show a face at the back; the detector sees one on {_percent(false)} of true back views. It finds a "
        f"face in front on {_percent(_chosen(results)[1]['face_in_front'])} of these heads: where that is low, few "
        "fake faces mean nothing."
    )


def _chosen(results: Record) -> tuple[str, Record]:
    """The variant that stands for all: the method itself if it was trained."""
    variants = results["variants"]
    name = METHOD if METHOD in variants else variants.first()
    return name, variants[name]


def _results(root: Path) -> Record:
    path = root / "data/evaluation/heads/heads.json"
    if not path.is_file():
        raise Missing("generated heads have not been evaluated; dvc repro evaluate_heads does")
    return read_json(path)


def _with_results(root: Path, draw: Callable[[Path, Record], Html]) -> Callable[[], Html]:
    return lambda: draw(root, _results(root))


def _turntables(root: Path, results: Record) -> Html:
    about = results["protocol"]
    lead = (
        f"{about['heads']} heads a variant from {about['views']} sides, truncated to {about['truncation']:g}. Scroll a "
        "picture sideways to walk around the head, from the front over its left."
    )
    shown = [attempt(partial(_turntable, root, name)) for name in results["variants"]]
    return join([tag("p", lead), tag("div", *shown, class_="row")])


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


def _ablation(_: Path, results: Record) -> Html:
    about = results["protocol"]
    lead = (
        f"{about['samples']:,} pictures a variant against {about['real']:,} real ones, seed {about['seed']}. Features "
        f"of {about['backbone']} ({about['resize']}): the numbers bear its name and are not FID."
    )
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
    caption = "fd_mobilenetv2 and kd_mobilenetv2: lower is better. The paper's columns are of other data"
    return join([tag("p", lead), table(head, rows, caption), tag("p", _calibration(about), class_="small")])


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


def _detectors(_: Path, results: Record) -> Html:
    names = list(_chosen(results)[1]["artefacts"]["by_detector"])
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


def _curves(_: Path, results: Record) -> Html:
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
        if record["protocol"].get("frames") != 0:
            text = f"{title(name)}: the first of them, all around"
            parts.append(attempt(partial(film, folder / f"video_{name}.mp4", text, how, "invert_heads")))
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
