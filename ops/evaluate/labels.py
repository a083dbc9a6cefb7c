"""Stage ``evaluate_labels``: every label against the studio's truth, by angle, with counts and intervals.

Sources without truth have nothing to measure by; they are named and left out. Labels of other backends are measured
beside the embedded ones wherever their tables hold the same columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from ops.crawl.sources import load_sources
from ops.curate.crop import crop_quad
from ops.curate.sheets import contact_sheet
from ops.evaluate import filters, intervals, plots
from ops.evaluate import label_errors as errors
from ops.evaluate.label_errors import Truth
from ops.runtime.errors import LineamentError, PictureError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.stage import Stage, stage
from ops.store import pictures, tables
from ops.store.parsing import CLASSES
from ops.store.tar import Shard, shard_paths

STAGES = (
    "screen",
    "detect",
    "landmarks",
    "align",
    "camera",
    "segment",
    "fit_face",
    "fit_body",
    "heads",
    "parse",
    "balance",
    "clips",
)
BIN = 15  # degrees of the distance from the front
UNITS = {
    "yaw": "°",
    "pitch": "°",
    "roll": "°",
    "landmarks": "%",
    "residual": "%",
    "head_vertices_mm": "mm",
    "head_to_torso": "°",
}
SEEN_MM = 1.0  # by which a unit's spread must move some landmark to count as seen; unpublished: our choice
MOVES = 0.03  # standard deviation from which an expression unit counts as used; unpublished: our choice


class EvaluateLabelsParams(Params):
    overlays: int = Field(6, ge=1, description="fits drawn a row: best, middle, worst")  # unpublished: our choice
    near_front: float = Field(30.0, gt=0, description="degrees of azimuth")  # unpublished: our choice


class Found:
    """What is gathered of one source: long rows, sums of the parsing, pairs of expressions."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.rows: list[dict[str, Any]] = []
        self.parsing: list[tuple[np.ndarray, np.ndarray, int]] = []
        self.expressions: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, key: str, truth: Truth, method: str, quantity: str, value: float) -> None:
        """One number."""
        row = {"source": self.source, "id": key, "method": method, "quantity": quantity, "value": value}
        self.rows.append({**row, "azimuth": truth.row["azimuth"], "identity": truth.row["identity"]})

    @property
    def table(self) -> pa.Table:
        """All numbers."""
        return pa.Table.from_pylist(self.rows, schema=errors.SCHEMA)


def measure(source: str, truth_folder: Path, labels: Path) -> Found:
    """Everything that one source's labels say, against its truth."""
    found = Found(source)
    truths = errors.read_truth(truth_folder)
    sides = {row["id"]: row["width"] for row in errors.kept_rows(labels / "screen.parquet")}
    quads = {row["id"]: _quad(row) for row in errors.kept_rows(labels / "align.parquet")}
    for row in errors.kept_rows(labels / "landmarks.parquet"):
        if (truth := truths.get(row["id"])) is not None:
            for quantity, value in errors.landmark_rows(row, truth, sides[row["id"]]):
                found.add(row["id"], truth, "facemesh", quantity, value)
    for path in sorted(labels.glob("*.parquet")):
        for key, quad, row in _cameras(path, quads):
            if key in truths:
                for quantity, value in errors.camera_rows(row, quad, truths[key]):
                    found.add(key, truths[key], path.stem, quantity, value)
    for row in errors.kept_rows(labels / "fit_face.parquet"):
        if (truth := truths.get(row["id"])) is not None:
            found.add(row["id"], truth, "fit_face", "residual", row["residual"])
            for method, quantity, value in errors.identity_rows(row, truth):
                found.add(row["id"], truth, method, quantity, value)
            _pair(found, "fit_face", row, truth)
    for row in errors.kept_rows(labels / "fit_body.parquet"):
        if (truth := truths.get(row["id"])) is not None:
            for method, quantity, value in errors.pose_rows(row, truth):
                found.add(row["id"], truth, method, quantity, value)
    _pixels(found, truths, truth_folder, labels, quads)
    _clips(found, truth_folder, labels)
    return found


def _cameras(path: Path, quads: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """Id, square and row of each label of a table that holds cameras of pictures."""
    names = pq.read_schema(path).names
    own = "quad" in names and "clip" not in names
    if "camera" not in names or not (own or path.stem in errors.OF_ALIGN):
        return
    for row in errors.kept_rows(path):
        quad = _quad(row) if own else quads.get(row["id"])
        if quad is not None and row["camera"] is not None:
            yield row["id"], quad, row


def _quad(row: dict[str, Any]) -> np.ndarray:
    return np.asarray(row["quad"], np.float64).reshape(4, 2)


def _pair(found: Found, method: str, row: dict[str, Any], truth: Truth) -> None:
    true = truth.array("expression", -1)
    if true is not None:
        found.expressions.setdefault(method, []).append((np.asarray(row["expression"]), true))


def _pixels(
    found: Found, truths: dict[str, Truth], truth_folder: Path, labels: Path, quads: dict[str, np.ndarray]
) -> None:
    """Masks and parsings against the true ones."""
    true = errors.side_cars(truth_folder) if truths else {}
    masks, parsings = errors.side_cars(labels / "masks"), errors.side_cars(labels / "parsing")
    heads = {row["id"]: _quad(row) for row in errors.kept_rows(labels / "heads.parquet")}
    for key in [key for key in truths if key in true]:
        for method, car, squares, name in (("segment", masks, quads, "png"), ("parse", parsings, heads, "mask.png")):
            if key in car and key in squares and name in car[key].fields(key):
                mask = errors.read_grey(true[key], key, "mask.png")
                overlap = errors.mask_overlap(errors.read_grey(car[key], key, name), mask, squares[key])
                found.add(key, truths[key], method, "mask_iou", overlap)
        if key in parsings and key in heads:
            seen, real = errors.read_grey(parsings[key], key, "png"), errors.read_grey(true[key], key, "parsing.png")
            found.parsing.append((*errors.class_overlaps(seen, real, heads[key]), truths[key].row["identity"]))


def _clips(found: Found, truth_folder: Path, labels: Path) -> None:
    """Frames of clips against theirs."""
    path = truth_folder / "clips.parquet"
    if not path.is_file():
        return
    truths = {(row["id"], row["frame"]): Truth(row) for row in pq.read_table(path).to_pylist()}
    for row in errors.kept_rows(labels / "clips.parquet"):
        truth = truths.get((row["clip"], row["frame"]))
        if truth is None:
            continue
        for quantity, value in errors.camera_rows(row, _quad(row), truth):
            found.add(row["id"], truth, "track_clips", quantity, value)
        found.add(row["id"], truth, "track_clips", "residual", row["residual"])
        _pair(found, "track_clips", row, truth)


def summarise(found: Found, params: EvaluateLabelsParams) -> dict[str, Any]:
    """Means with intervals, overall and by angle."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found.rows:
        groups.setdefault((row["method"], row["quantity"]), []).append(row)
    entries = []
    for (method, quantity), rows in sorted(groups.items()):
        far, value, who = (np.array([row[name] for row in rows]) for name in ("azimuth", "value", "identity"))
        far = np.abs(far)

        def within(low: float, high: float, far: Any = far, value: Any = value, who: Any = who) -> dict[str, Any]:
            inside = (far >= low) & (far < high)
            return intervals.mean(value[inside], who[inside])

        entries.append(
            {
                "method": method,
                "quantity": quantity,
                "unit": UNITS.get(quantity, "°" if quantity.startswith("joint") else ""),
                "all": within(0, 181),
                "near_front": within(0, params.near_front),
                "within_60": within(0, 60),
                "bins": [{"from": low, "to": low + BIN, **within(low, low + BIN)} for low in range(0, 180, BIN)],
            }
        )
    return {
        "errors": entries,
        "expression": {method: _expression(pairs) for method, pairs in found.expressions.items()},
        "parsing": _parsing(found),
    }


def _expression(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Correlation of each unit that the truth uses, their mean, and that of those which show.

    A unit shows (``seen``) where its standard deviation in the truth moves some landmark by SEEN_MM or more.
    """
    from ops.fit.target import millimetres, target

    fitted, true = (np.stack(side) for side in zip(*pairs))
    names, reach = target().model.expression_names, millimetres(target().face.expression.norm(dim=-1).amax(1)).numpy()
    units = {
        names[k]: {**intervals.correlation(fitted[:, k], true[:, k]), "moves_mm": round(float(reach[k] * spread), 2)}
        for k, spread in enumerate(true.std(0))
        if spread > MOVES
    }

    def mean(some: Sequence[dict[str, Any]]) -> float | None:
        known = [0.0 if unit["mean"] is None else unit["mean"] for unit in some]
        return round(float(np.mean(known)), 4) if known else None

    seen = [unit for unit in units.values() if unit["moves_mm"] >= SEEN_MM]
    everything = {"mean": mean(list(units.values())), "seen": mean(seen), "seen_units": len(seen)}
    return {**everything, "n": len(pairs), "units": units}


def _parsing(found: Found) -> list[dict[str, Any]]:
    if not found.parsing:
        return []
    inside, union, who = (np.stack(side) for side in zip(*found.parsing))
    return [{"class": name, **value} for name, value in zip(CLASSES, intervals.ratios(inside, union, who))]


@stage("evaluate_labels", EvaluateLabelsParams)
def main(s: Stage[EvaluateLabelsParams], raw: Path, truth: Path, labels: Path, out: Path) -> None:
    """Compare every label with the studio's truth."""
    results: dict[str, Any] = {"bin": BIN, "near_front": s.params.near_front, "sources": {}, "skipped": {}}
    parts = []
    with publish(out, folder=True) as folder:
        for source in load_sources(s.params_file):
            if not (labels / source).is_dir():
                raise LineamentError(f"{labels / source}: no labels there. Run the labelling of {source} first.")
            sheet = overlays(raw / source, labels / source, s.params.overlays)
            if sheet is not None:
                (folder / f"overlays_{source}.png").write_bytes(pictures.encode_png(sheet))
            lost = filters.losses(labels / source, STAGES)
            kinds = filters.read_kinds(truth / source)
            if not kinds:
                s.log(f"{source}: no truth, so nothing is measured; its losses are listed")
                results["skipped"][source] = {"why": "there is no truth of these pictures", "losses": lost}
                continue
            found = measure(source, truth / source, labels / source)
            parts.append(found.table)
            judged = filters.judge(labels / source, kinds)
            results["sources"][source] = {**summarise(found, s.params), "losses": lost, "filters": judged}
        pq.write_table(pa.concat_tables(parts or [errors.SCHEMA.empty_table()]), folder / "samples.parquet")
        (folder / "results.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    s.metrics({source: headline(entry) for source, entry in results["sources"].items()})
    s.preview(preview(results))


def headline(entry: dict[str, Any]) -> dict[str, Any]:
    """The few numbers of a source that git keeps."""
    found: dict[str, Any] = {}
    for error in entry["errors"]:
        short = {part: _brief(error[part]) for part in ("all", "near_front", "within_60") if error[part]["n"]}
        found.setdefault(error["quantity"], {})[error["method"]] = short
    found["expression_correlation"] = {
        method: {key: one[key] for key in ("n", "mean", "seen", "seen_units")}
        for method, one in entry["expression"].items()
    }
    found["parsing_iou"] = {row["class"]: _brief(row) for row in entry["parsing"] if row["n"]}
    found["filters"] = {
        row["reason"]: {part: _brief(row[part]) for part in ("precision", "recall")} for row in entry["filters"]
    }
    found["lost"] = {row["stage"]: _brief(row["lost"]) for row in entry["losses"]}
    return found


def _brief(value: dict[str, Any]) -> dict[str, Any]:
    return {key: value[key] for key in ("n", "mean", "interval")}


def overlays(raw: Path, labels: Path, count: int) -> np.ndarray | None:
    """Rows of fitted heads over their pictures: smallest residuals, middle ones, largest; then those not kept."""
    from ops.fit.overlay import overlay
    from ops.fit.target import target

    path = labels / "fit_face.parquet"
    if not path.is_file():
        return None
    table = tables.read(path).to_pylist()
    finite = [row for row in table if row["residual"] is not None and np.isfinite(row["residual"])]
    kept = sorted((row for row in finite if row["kept"]), key=lambda row: row["residual"])
    if not kept:
        return None
    middle = max(0, len(kept) // 2 - count // 2)
    chosen = [kept[:count], kept[middle : middle + count], kept[-count:], [r for r in finite if not r["kept"]][:count]]
    quads = {row["id"]: _quad(row) for row in tables.read(labels / "align.parquet").to_pylist()}
    where = {key: shard for shard in map(Shard, shard_paths(raw)) for key in shard.keys}
    images, captions = [], []
    for row_of_fits in chosen:
        for row in row_of_fits:
            images.append(
                _overlay(
                    where[tables.picture_of(row["id"])], row, quads[row["id"]], partial(overlay, model=target().model)
                )
            )
            captions.append(f"{row['residual']:.2f} %" if row["kept"] else f"{row['reason']}")
        blanks = count - len(row_of_fits) if row_of_fits else 0
        images += [np.full((8, 8, 3), 250, np.uint8)] * blanks
        captions += [""] * blanks
    return contact_sheet(images, captions, count, tile=180)


def _overlay(shard: Shard, row: dict[str, Any], quad: np.ndarray, draw: Any) -> np.ndarray:
    picture = tables.picture_of(row["id"])
    try:
        crop = crop_quad(pictures.decode(shard.read(picture, shard.original_field(picture))), quad, 240)
    except PictureError:
        return np.full((64, 64, 3), 160, np.uint8)
    return draw(crop, identity=row["identity"], expression=row["expression"], camera=row["camera"])


def preview(results: dict[str, Any]) -> np.ndarray:
    """Errors of the cameras and of the landmarks by the angle of view."""
    canvas, (left, right) = plots.figure(10, 4, panels=2)
    for source, entry in results["sources"].items():
        for error in entry["errors"]:
            axis = {"yaw": left, "landmarks": right, "residual": right}.get(error["quantity"])
            if axis is not None:
                some = [b for b in error["bins"] if b["n"]]
                x, y = [b["from"] + BIN / 2 for b in some], [b["mean"] for b in some]
                name = f"{source}: {error['method']} {error['quantity']}"
                axis.plot(x, y, marker="o", markersize=4, label=name)
    for axis, title in ((left, "yaw error, degrees"), (right, "landmarks, % of the outer eye distance")):
        axis.set(title=title, xlabel="true azimuth, degrees from the front", xlim=(0, 180), ylim=(0, None))
        if axis.lines:
            axis.legend(fontsize=8, frameon=False)
    return plots.pixels(canvas)


if __name__ == "__main__":
    raise SystemExit(main())
