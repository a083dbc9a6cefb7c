"""The page about portraits: training, distances from the data, whether they do what their codes say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ops.report import training
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
    join,
    measured,
    picture,
    table,
    tag,
)
from ops.train.curves import read_curves
from ops.train.terms import PORTRAIT, courses

SYSTEM, LARGE, METHOD = "portrait", "portrait_superresolution", "full"
ASKED = {"falls": "to fall", "comes down": "to come down from its highest", "game": "nothing: a game's"}
EVALUATION = Path("data/evaluation") / SYSTEM


def page(root: Path, how: Embedding) -> Page:
    """Training, strips of one character, distances, control against what was asked, the deformation."""
    known = facts(partial(training.facts, root, SYSTEM))
    headline = facts(lambda: _headline(_results(root)))
    return Page(
        "AniPortraitGAN and its ablations: head and shoulders that move by codes of face, neck and shoulders.",
        [
            Section.of("training", "Training", partial(training.section, root, how, SYSTEM)),
            Section.of("superresolution", "Large portraits", partial(_large, root, how)),
            Section.of("losses", "How each loss went", partial(_losses, root)),
            Section.of("strips", "One property at a time", lambda: _strips(root, how, _results(root))),
            *(Section.of(anchor, words, partial(_drawn, root, make)) for anchor, words, make in PARTS),
            Section.of("readers", "How well faces are read", partial(_readers, root)),
        ],
        [*known, *headline],
        "FD says how far the features of drawn portraits lie from those of real ones, by another network than the "
        "paper's: lower is better. Expression is the correlation of the face units asked for with those fitted to the "
        "drawn face again: 1 is full control, 0 is none."
        if headline
        else "Nothing has been evaluated yet: there is no headline number.",
        (),
        ["What a portrait shows is judged by the networks that label photos; where they err, good control looks bad."]
        if headline
        else (),
    )


def _results(root: Path) -> Record:
    path = root / EVALUATION / "portrait.json"
    if not path.is_file():
        raise Missing("portraits have not been evaluated; dvc repro evaluate_portrait does")
    return read_json(path)


def _drawn(root: Path, make: Callable[[dict[str, Any]], Html]) -> Html:
    return make(_results(root))


def _headline(results: Record) -> list[tuple[str, str]]:
    variants = results["variants"]
    name = METHOD if METHOD in variants else variants.first()
    asked = variants[name]["control"]["expression"]
    return [
        (f"fd_mobilenetv2, {training.title(name)}", cell(variants[name]["distances"]["whole"]["fd_mobilenetv2"])),
        (f"expression, asked and seen (n = {asked['n']:,})", cell(asked["mean"])),
    ]


def _large(root: Path, how: Embedding) -> Html:
    lead = (
        "The second stage of training: U enlarges the manifolds, all else stays as the first stage left it. Samples "
        "come in pairs: a portrait of the first stage, enlarged as it is, and the same through U."
    )
    return join([tag("p", lead), training.section(root, how, LARGE)])


def _losses(root: Path) -> Html:
    """Each loss at the beginning, its highest and the end; the curves themselves are drawn above.

    Raises:
        Missing: no variant has curves.
    """
    rows: list[list[object]] = []
    for run in training.runs(root, SYSTEM):
        path = run.folder / "curves.csv"
        for one in courses(read_curves(path), PORTRAIT) if path.is_file() else ():
            verdict = "–" if one.rule == "game" else "yes" if one.passed else "no"
            name = f"{one.name}, of an untaught network's" if one.relative else one.name
            rows.append([run.title, name, one.first, one.peak, one.last, ASKED[one.rule], verdict])
    if not rows:
        raise Missing("no portraits have been trained yet; dvc repro train_portrait does")
    head = ("variant", "loss", "beginning", "highest", "end", "asked of it", "done")
    caption = "Means over a fifth of the training each. Deformations start at 0, where their three losses are least."
    return table(head, rows, caption)


def _strips(root: Path, how: Embedding, results: dict[str, Any]) -> Html:
    lead = "A character six times each for identity, expression, pose, camera and noise: one varies, all else stays."
    shown = []
    for name in results["variants"]:
        path = root / EVALUATION / f"strips_{name}.png"
        shown.append(attempt(partial(picture, path, training.title(name), how, "evaluate_portrait")))
    return join([tag("p", lead), *shown])


def _distances(results: dict[str, Any]) -> Html:
    rows: list[list[object]] = []
    for name, found in results["variants"].items():
        for what, values in found["distances"].items():
            fake, real = values["samples"]
            numbers = [values[key] for key in ("fd_mobilenetv2", "fd_mobilenetv2_low", "kd_mobilenetv2", "kd_error")]
            rows.append([f"{training.title(name)}, {what.replace('_', ' ')}", *numbers, fake, real])
    head = ("pictures", "FD", "FD, first layers", "KD", "its error", "drawn", "real")
    caption = f"Features of MobileNetV2, seed {results['protocol']['seed']}; lower is better; not FID"
    if any("whole_before" in found["distances"] for found in results["variants"].values()):
        caption += ". Before: the first stage's pictures, enlarged as they are to the size of those through U"
    return table(head, rows, caption)


def _control(results: dict[str, Any]) -> Html:
    rows: list[list[object]] = []
    for name, found in results["variants"].items():
        control, same = found["control"], found["identity"]
        turns = [
            measured(control[which][key]) for which in ("camera", "turn") for key in ("correlation", "error_degrees")
        ]
        seen = [measured(control[key]) for key in ("seen", "expression")]
        person = join([tag("b", f"{same['auc']:.3g}"), tag("small", f" n = {same['pairs']:,} pairs")])
        rows.append([training.title(name), *seen, *turns, person])
    head = (
        "variant", "faces found", "expression", "camera azimuth", "error, °", "turn of the head", "error, °",
        "same person while it moves",
    )  # fmt: skip
    caption = (
        "Correlation of what was asked with what is seen, 95 % intervals; same person: AUC by dlib's 128-D descriptor"
    )
    return table(head, rows, caption)


def _pictures(results: dict[str, Any]) -> Html:
    rows: list[list[object]] = [
        [
            training.title(name),
            *(measured(found["silhouettes"][key]) for key in ("asked", "another")),
            *(measured(found["read"][key]) for key in ("generated", "photos")),
        ]
        for name, found in results["variants"].items()
    ]
    caption = (
        "Overlap of the drawn silhouette with the body that was asked for, pose and camera and all; correlation of the "
        "expressions that a small network reads, which no generator was trained against"
    )
    head = ("variant", "overlap with the body asked", "with another's", "expression, read", "in photos")
    return table(head, rows, caption)


def _deformation(results: dict[str, Any]) -> Html:
    rows: list[list[object]] = [
        [training.title(name), *(measured(found["deformation"][key]) for key in ("processed", "nearest"))]
        for name, found in results["variants"].items()
    ]
    caption = "How far neighbouring points are torn apart on the way to the neutral pose: 99th percentile, 1 is rigid"
    return table(("variant", "with the processing network", "nearest vertex alone"), rows, caption)


def _readers(root: Path) -> Html:
    """The readers of codes on people whom they never saw, as a whole and unit by unit."""
    found = {path.stem: read_json(path) for path in sorted((root / "metrics/train_coefficients").glob("*.json"))}
    if not found:
        raise Missing("no reader of codes has been taught; dvc repro train_coefficients does")
    keys = ("expression_correlation", "identity_correlation", "identity_largest_correlation")
    rows: list[list[object]] = []
    for role, record in found.items():
        for words, name in (("", "held_out"), (", faces of 32 px", "held_out_coarse")):
            known = record.get(name, {})
            landmarks = [known.get(key) for key in ("landmarks_mm", "landmarks_mm_mean_face")]
            rows.append([role + words, *(known.get(key) for key in keys), *landmarks, known.get("pictures")])
    head = ("reader", "expression", "identity", "its ten largest", "landmarks off, mm", "mean face, mm", "pictures")
    lead = "The teacher stands behind the landmark loss, the judge reads generated faces; correlations, people held out"
    units = sorted({unit for record in found.values() for unit in record["held_out"].get("units", {})})
    each = [[unit, *(record["held_out"].get("units", {}).get(unit) for record in found.values())] for unit in units]
    return join([table(head, rows, lead), table(("expression unit", *found), each, "Correlation of each unit")])


PARTS: tuple[tuple[str, str, Callable[[dict[str, Any]], Html]], ...] = (
    ("distances", "Like the data?", _distances),
    ("control", "Do they do what they are asked?", _control),
    ("silhouettes", "And where no face is found?", _pictures),
    ("deformation", "How smooth is the deformation?", _deformation),
)
