"""The files that evaluate_giraffe leaves: tables, curves, strips, and a plain word on what differs from the paper."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ops.evaluate import plots, published
from ops.evaluate.identity import Recogniser
from ops.evaluate.strips import strip
from ops.store.pictures import encode_png

if TYPE_CHECKING:
    from ops.evaluate.giraffe import EvaluateGiraffeParams

AUC_COLUMNS = (
    "variant", "angle", "azimuth", "auc", "low", "high", "object_low", "object_high", "eer", "genuine", "impostor",
    "change", "paper",
)  # fmt: skip
STILL = 0.25  # side views that change less than this share of what two objects differ by; unpublished: our choice
ALIKE = 2.0  # grey levels; objects that differ by less are one object; unpublished: our choice
MAX_ROC_POINTS = 1000  # a curve in roc.csv; unpublished: our choice


@dataclass(frozen=True)
class Measured:
    """One checkpoint's numbers.

    Attributes:
        variant: its name.
        record: its ``config.json``.
        angles: by name (L60 …): azimuth, curve, by_pair, by_object, eer, genuine, impostor, change.
        between: mean absolute difference of the frontal thumbnails of two objects, grey levels.
        shown: (n, A, H, H, 3) uint8 pictures for the strip.
    """

    variant: str
    record: dict[str, Any]
    angles: dict[str, dict[str, Any]]
    between: float
    shown: np.ndarray

    @property
    def mean_auc(self) -> float:
        """Mean over the angles."""
        return float(np.mean([row["by_pair"].value for row in self.angles.values()]))

    @property
    def mean_interval(self) -> tuple[float, float]:
        """Interval of the mean, on the safe side: the angles share their objects, so they are taken as one."""
        areas = [row["by_object"] for row in self.angles.values()]
        return float(np.mean([area.low for area in areas])), float(np.mean([area.high for area in areas]))


def write_results(
    folder: Path, measured: Sequence[Measured], p: EvaluateGiraffeParams, recogniser: Recogniser, data_hash: str
) -> tuple[dict[str, Any], np.ndarray]:
    """Write ``auc.json``, ``auc.csv``, ``roc.csv`` and each variant's ROC and strip.

    Returns:
        the content of ``auc.json``, and a picture of all of it for the preview.
    """
    results = {
        "protocol": _protocol(measured, p, recogniser, data_hash),
        "variants": {m.variant: _entry(m, data_hash) for m in measured},
        "not_available": {name: "no checkpoint of it" for name in published.AAMNCE_AUC if name not in _names(measured)},
        "paper": {"source": published.AAMNCE_SOURCE, "auc": published.AAMNCE_AUC},
        "warnings": [line for m in measured for line in warnings(m)],
        "differs": differences(measured, p, recogniser, data_hash),
    }
    (folder / "auc.json").write_text(json.dumps(results, indent=2) + "\n")
    _write_csv(folder / "auc.csv", AUC_COLUMNS, (row for m in measured for row in _auc_rows(m)))
    columns = ("variant", "angle", "threshold", "false_accept", "true_accept")
    _write_csv(folder / "roc.csv", columns, (row for m in measured for row in _roc_rows(m)))
    for m in measured:
        canvas, (axes,) = plots.figure(5, 5)
        curves = {name: row["curve"] for name, row in m.angles.items()}
        plots.roc_axes(axes, curves, f"{_title(m.variant)}: side view against front, {recogniser.name}")
        (folder / f"roc_{m.variant}.png").write_bytes(plots.png(canvas))
        (folder / f"roc_{m.variant}.svg").write_bytes(plots.svg(canvas))
        (folder / f"strips_{m.variant}.png").write_bytes(encode_png(strip(m.shown, p.angles)))
    return results, _preview(measured, p, recogniser)


def warnings(m: Measured) -> list[str]:
    """What makes a variant's areas meaningless, if anything does."""
    change = float(np.mean([row["change"] for row in m.angles.values()]))
    if m.between < ALIKE:
        return [
            f"{_title(m.variant)} draws nearly the same picture for every object (they differ by {m.between:.1f} grey "
            "levels): its areas say nothing about identity."
        ]
    if change < STILL * m.between:
        return [
            f"{_title(m.variant)} hardly turns its objects: a side view differs from the front by {change:.1f} grey "
            f"levels, two objects by {m.between:.1f}. Its areas say little about identity."
        ]
    return []


def differences(
    measured: Sequence[Measured], p: EvaluateGiraffeParams, recogniser: Recogniser, data_hash: str
) -> list[str]:
    """In plain words, all that keeps these numbers from being the paper's."""
    notes = []
    if recogniser.name != "lightcnn29":
        notes.append(
            f"The recogniser is {recogniser.name} ({recogniser.rule}); the paper used LightCNN. Areas of different "
            "recognisers cannot be compared one to one."
        )
    if p.objects != 1000:
        notes.append(f"{p.objects} objects a variant; the paper drew 1000. The intervals show what that costs.")
    seen = sorted({int(m.record["images"]) for m in measured})
    sides = sorted({int(m.record["params"]["model"]["resolution"]) for m in measured})
    notes.append(
        f"Trained on this run's face shards ({' and '.join(f'{n:,}' for n in seen)} pictures seen, "
        f"{' and '.join(map(str, sides))} px); the paper trained on 30,000 pictures of CelebA-HQ at 256 px and does "
        "not say for how long."
    )
    notes.append(
        "The paper does not say how many impostor pairs it compared nor which sign 'left' has. Here all pairs of "
        "different objects are compared, and L60 is the camera 60° on the subject's left."
    )
    notes.append(
        "The part of the picture that the recogniser sees is fixed, as the pose is known; the paper does not say how "
        "it aligned side views. No picture is left out."
    )
    notes.append(
        "A high area alone does not prove a good generator: one that ignores the camera scores 1. 'change' says how "
        "much a side view differs from the front, beside how much two objects differ."
    )
    other = [m.variant for m in measured if m.record.get("data") != data_hash]
    if other:
        notes.append(f"Trained on other shards than those at hand: {', '.join(other)}.")
    return notes


def _protocol(
    measured: Sequence[Measured], p: EvaluateGiraffeParams, recogniser: Recogniser, data_hash: str
) -> dict[str, Any]:
    some = next(iter(measured[0].angles.values()))
    return {
        "name": "AamNCE paper, section 4: side views verified against the frontal picture",
        "objects": p.objects,
        "angles": list(p.angles),
        "seed": p.seed,
        "recogniser": recogniser.name,
        "recogniser_sha256": recogniser.digest,
        "similarity": recogniser.rule,
        "genuine_pairs": some["genuine"],
        "impostor_pairs": some["impostor"],
        "confidence": p.confidence,
        "data": data_hash,
    }


def _entry(m: Measured, data_hash: str) -> dict[str, Any]:
    keys = ("system", "variant", "step", "images", "data", "revision", "parameters")
    return {
        "checkpoint": {key: m.record[key] for key in keys if key in m.record},
        "same_data": m.record.get("data") == data_hash,
        "mean_auc": _rounded(m.mean_auc),
        "mean_interval": [_rounded(bound) for bound in m.mean_interval],
        "change_between_objects": _rounded(m.between),
        "angles": {
            name: {
                "azimuth": row["azimuth"],
                "auc": _rounded(row["by_pair"].value),
                "interval": [_rounded(row["by_pair"].low), _rounded(row["by_pair"].high)],
                "object_interval": [_rounded(row["by_object"].low), _rounded(row["by_object"].high)],
                "eer": _rounded(row["eer"]),
                "change": _rounded(row["change"]),
            }
            for name, row in m.angles.items()
        },
    }


def _auc_rows(m: Measured) -> Iterable[Sequence[object]]:
    for name, row in m.angles.items():
        pair, whole = row["by_pair"], row["by_object"]
        numbers = (pair.value, pair.low, pair.high, whole.low, whole.high, row["eer"])
        paper = published.AAMNCE_AUC.get(m.variant, {}).get(name, "")
        yield (
            m.variant, name, f"{row['azimuth']:g}", *map(_rounded, numbers), row["genuine"], row["impostor"],
            _rounded(row["change"]), paper,
        )  # fmt: skip


def _roc_rows(m: Measured) -> Iterable[Sequence[object]]:
    for name, row in m.angles.items():
        curve = row["curve"]
        count = len(curve.thresholds)
        chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_ROC_POINTS)).round().astype(int))
        for i in chosen:
            values = (curve.thresholds[i], curve.false_accept[i], curve.true_accept[i])
            yield (m.variant, name, *map(_rounded, values))


def _preview(measured: Sequence[Measured], p: EvaluateGiraffeParams, recogniser: Recogniser) -> np.ndarray:
    """The first objects of each variant, one below the other, beside area against angle."""
    rows = np.vstack([strip(m.shown[:2], p.angles, tile=72) for m in measured])
    canvas, (axes,) = plots.figure(5, max(rows.shape[0] / 100, 3))
    angles = [row["azimuth"] for row in measured[0].angles.values()]
    areas = {_title(m.variant): [row["by_pair"].value for row in m.angles.values()] for m in measured}
    plots.area_axes(axes, angles, areas, f"side view against front, {recogniser.name}")
    chart = plots.pixels(canvas)
    pad = max(chart.shape[0] - rows.shape[0], 0)
    rows = cv2.copyMakeBorder(rows, 0, pad, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    return np.hstack([rows, chart[: rows.shape[0]]])


def _names(measured: Sequence[Measured]) -> set[str]:
    return {m.variant for m in measured}


def _title(variant: str) -> str:
    return published.TITLES.get(variant, variant)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
