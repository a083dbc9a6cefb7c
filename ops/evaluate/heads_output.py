"""The files that evaluate_heads leaves: numbers, a table, curves, and turntables as strips of pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ops.evaluate import plots, published
from ops.evaluate.heads_views import VIEWS
from ops.store.pictures import encode_png

COLUMNS = (
    "variant", "fd_all", "fd_front", "fd_back", "fd_low_all", "kd_all", "fake_face_rate", "high_quality_rate",
    "mirrored", "depth_disagreement", "colour_disagreement", "identity_auc", "paper_fid", "paper_ff", "paper_hq",
)  # fmt: skip
PREVIEW_VIEWS = 8  # of a turntable in the preview


def title(variant: str) -> str:
    """How a variant is called in tables."""
    return published.HEAD_TITLES.get(variant, variant)


def write_results(folder: Path, results: dict[str, Any], sprites: Mapping[str, np.ndarray]) -> np.ndarray:
    """Write ``heads.json``, ``ablation.csv``, the curves, and a sprite of views a variant.

    Args:
        folder: where.
        results: protocol and numbers by variant.
        sprites: by variant (n, V, h, h, 3) uint8, heads by views.

    Returns:
        a picture of all of it for the preview.
    """
    results = {**results, "differs": differences(results), "paper": published.SPHEREHEAD_ABLATION}
    (folder / "heads.json").write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    with (folder / "ablation.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_row(name, found) for name, found in results["variants"].items())
    for name, pictures in sprites.items():
        (folder / f"turntable_{name}.png").write_bytes(encode_png(sprite(pictures)))
    canvas, (left, middle, right) = plots.figure(11, 3.4, panels=3)
    for number, (name, found) in enumerate(results["variants"].items()):
        colour = plots.COLOURS[number % len(plots.COLOURS)]
        curve = found["fd_curve"]
        for axes, key in ((left, "fd_low"), (middle, "fd")):
            axes.plot([p["step"] for p in curve], [p[key] for p in curve], marker="o", color=colour, label=title(name))
        bins = sorted(found["kd_by_azimuth"], key=lambda entry: entry["azimuth"])
        values = [np.nan if b["kd"]["value"] is None else b["kd"]["value"] for b in bins]
        right.plot([b["azimuth"] for b in bins], values, marker="o", color=colour, label=title(name))
    left.set(title="fd_mobilenetv2_low of snapshots", xlabel="training step", ylim=(0, None))
    middle.set(title="fd_mobilenetv2 of snapshots", xlabel="training step", ylim=(0, None))
    right.set(title="kd_mobilenetv2 by azimuth", xlabel="degrees")
    left.legend(fontsize=8, frameon=False)
    (folder / "curves.png").write_bytes(plots.png(canvas))
    (folder / "curves.svg").write_bytes(plots.svg(canvas))
    return _preview(plots.pixels(canvas), sprites)


def sprite(pictures: np.ndarray) -> np.ndarray:
    """(n, V, h, h, 3) to (n h, V h, 3): a head a row, a view a column, without gaps, so that views can be cut out."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in pictures])


def differences(results: dict[str, Any]) -> list[str]:
    """In plain words, what keeps these numbers from being the paper's, and what they cannot say."""
    about, variants = results["protocol"], results["variants"]
    notes = [
        "Distances are of MobileNetV2's features, not of Inception's: fd_mobilenetv2 is not FID, and only numbers of "
        "this page can be compared with one another.",
        "fd_mobilenetv2_low is of 72 features of the first layers: colours, edges and textures. A hundred samples fill "
        "their covariance, so it shows the course of a short training; that a picture is of a head it does not see.",
        f"{about['samples']:,} samples against {about['real']:,} real pictures; the paper took 50,000.",
        "The paper asked 37 people about fake faces and artefacts. Here detectors look. A head that they pass may "
        "still look wrong to a person, above all when training was short: the face detector, trained on photographs, "
        "sees no face in a blurred one, behind or in front. How often it fires on front views stands beside.",
        f"The detectors' limits were drawn from one half of the real pictures; of the other half "
        f"{about['calibration']['any_alarm']:.1%} set off at least one. Were views independent, "
        f"{about['calibration']['high_quality_of_true_views']:.0%} of true heads would pass all {about['views']}.",
        "A network without a mask (EG3D) cannot set off the detectors that look at the mask, and its background turns "
        "with the head.",
    ]
    if not about["calibration"]["of_known_truth"]:
        notes.append("No truth of these pictures is known: which ones are back views is what their labels say.")
    short = [name for name, found in variants.items() if not halved(found)]
    if short:
        notes.append(f"fd_mobilenetv2_low has not fallen by half in training: {', '.join(map(title, short))}.")
    other = [name for name, found in variants.items() if not found["same_data"]]
    if other:
        notes.append(f"Trained on other shards than those at hand: {', '.join(map(title, other))}.")
    few = {found["fd"][view].get("note") for found in variants.values() for view in VIEWS} - {"", None}
    return [*notes, *(note[0].upper() + note[1:] + "." for note in sorted(few))]


def halved(found: dict[str, Any]) -> bool:
    """Whether fd_mobilenetv2_low of the last snapshot is at most half of the first's; True where none were kept."""
    curve = found["fd_curve"]
    return not curve or curve[-1]["fd_low"] <= 0.5 * curve[0]["fd_low"]


def _row(name: str, found: dict[str, Any]) -> list[object]:
    paper = published.SPHEREHEAD_ABLATION.get(name, {})
    numbers = [found["fd"][view]["value"] for view in VIEWS]
    numbers += [found["fd_low"]["all"]["value"], found["kd"]["all"]["value"], found["artefacts"]["fake_face_rate"]]
    numbers += [found["artefacts"]["high_quality_rate"], found["mirrored"]["score"], found["consistency"]["depth"]]
    numbers += [found["consistency"]["colour"], found["identity"]["auc"]]
    rounded = ["" if value is None else float(f"{value:.6g}") for value in numbers]
    return [name, *rounded, *(paper.get(key, "") for key in ("fid", "ff", "hq"))]


def _preview(chart: np.ndarray, sprites: Mapping[str, np.ndarray]) -> np.ndarray:
    """The first head of each variant from eight sides, above the curves."""
    width = chart.shape[1]
    rows = []
    for pictures in sprites.values():
        chosen = np.linspace(0, pictures.shape[1], PREVIEW_VIEWS, endpoint=False).round().astype(int)
        row = np.concatenate(list(pictures[0, chosen]), axis=1)
        height = round(row.shape[0] * width / row.shape[1])
        rows.append(cv2.resize(row, (width, height), interpolation=cv2.INTER_CUBIC))
    return np.concatenate([*rows, chart])
