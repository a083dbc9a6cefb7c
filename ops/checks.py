"""Quality gates: what must hold of a result before anything is built on it. `python -m ops.checks` runs them all.

Each gate is a plain function of files that returns a :class:`Verdict`. Which gates a unit of the graph has follows
from what it makes: a label table, raw shards, training shards, a checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ops.dag import Dag, Unit, load_yaml
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params, validate
from ops.store import tables
from ops.store.reader import ShardDataset
from ops.store.tar import Shard, shard_paths
from ops.train.curves import read_curves
from ops.train.terms import PORTRAIT, courses

AVATARS, PORTRAITS = "data/evaluation/avatar", "data/checkpoints/portrait/"
HEADS = "data/evaluation/heads"
RAW, LABELS, SHARDS, CHECKPOINTS = "data/raw/", "data/labels/", "data/shards/", "data/checkpoints/"
SUMMARY = "dataset.json"


class CheckParams(Params):
    """Thresholds, section ``checks`` of params.yaml."""

    at_least: int = Field(1, ge=0)  # samples a stage keeps; unpublished: our choice
    at_least_of: dict[str, int] = Field(default_factory=dict)  # the same, for single stages
    radius: float = Field(2.7, gt=0)  # EG3D: distance from the camera to the pivot
    # the same, for single stages; AniPortraitGAN's portrait camera, in its own units
    radius_of: dict[str, float] = Field(default_factory=lambda: {"shards_portraits": 1.895088})
    radius_tolerance: float = Field(0.25, gt=0)  # share of the radius; unpublished: our choice
    decoded: int = Field(64, ge=1)  # samples decoded a check, evenly spread; unpublished: our choice


@dataclass(frozen=True)
class Verdict:
    """Whether a gate is passed, in words, and the numbers behind it."""

    passed: bool
    message: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """A gate on the results of a stage.

    Attributes:
        blocking: whether what comes after would be garbage if it fails.
    """

    name: str
    description: str
    blocking: bool
    run: Callable[[Dag, Unit, CheckParams], Verdict]


def gates_of(unit: Unit) -> list[Gate]:
    """The gates on what a unit makes; equal for all units of a stage."""
    kinds = {
        _READABLE: _out(unit, RAW) is not None,
        _COUNTS: _out(unit, LABELS, ".parquet") is not None and not _of_clips(unit),  # clips have a row a frame
        _CAMERA_TABLE: (_out(unit, LABELS, ".parquet") or "").endswith("/camera.parquet"),
        _SAMPLES: _out(unit, SHARDS) is not None,
        _CAMERA_SAMPLES: _out(unit, SHARDS) is not None,
        _ENOUGH: any(_out(unit, *where) for where in ((RAW,), (LABELS, ".parquet"), (SHARDS,))),
        _FINITE: _out(unit, CHECKPOINTS) is not None,
        _TERMS: _out(unit, PORTRAITS) is not None,
        _MORE_FRAMES: AVATARS in unit.outs,
        _HALVES: HEADS in unit.outs,
    }
    return [gate for gate, wanted in kinds.items() if wanted]


def load_thresholds(root: Path) -> CheckParams:
    """The thresholds in params.yaml; the defaults where there is no such section."""
    file = root / "params.yaml"
    section = load_yaml(file).get("checks") if file.is_file() else None
    return validate(CheckParams, section or {}, f"{file}: checks")


def run_gate(gate: Gate, dag: Dag, unit: Unit, params: CheckParams) -> Verdict:
    """Run a gate; what cannot be read fails it, with the reason."""
    try:
        return gate.run(dag, unit, params)
    except (LineamentError, ValueError, KeyError, OSError, pa.ArrowException) as error:
        return Verdict(False, f"{type(error).__name__}: {error}")


def counts_add_up(table: pa.Table, before: Sequence[str] | None) -> Verdict:
    """Each sample that the step before kept has exactly one row, in the same order; kept and rejected make the whole.

    Rows of several heads of a picture stand together for the picture's.

    Args:
        table: a label table.
        before: the ids that the step before kept; None for a table that starts a chain.
    """
    ids = table.column("id").to_pylist()
    keeping = pc.sum(pc.cast(table.column("kept"), pa.int64())).as_py() or 0
    rejected = len(table) - table.column("reason").null_count
    numbers = {"rows": len(ids), "kept": keeping, "rejected": rejected}
    if before is not None:
        numbers["before"] = len(before)
        ids = _samples_of(ids, before)
        if len(before) != len(ids):
            return Verdict(False, f"{len(ids)} rows, where the step before kept {len(before)}", numbers)
        if list(before) != ids:
            first = next(i for i, (a, b) in enumerate(zip(before, ids)) if a != b)
            return Verdict(False, f"row {first} is of {ids[first]}, where {before[first]} was kept before", numbers)
    if keeping + rejected != len(table):
        return Verdict(False, f"{keeping} kept and {rejected} rejected do not make {len(table)} rows", numbers)
    return Verdict(True, f"{len(table)} rows = {keeping} kept + {rejected} rejected", numbers)


def _samples_of(ids: Sequence[str], before: Sequence[str]) -> list[str]:
    """The samples of the step before that rows are of."""
    known = set(before)
    return [key for key, _ in itertools.groupby(key if key in known else tables.picture_of(key) for key in ids)]


def cameras_are_valid(labels: np.ndarray, params: CheckParams) -> Verdict:
    """Every (N, 25) label is a rotation, not mirrored, of a camera at the right distance."""
    import torch

    from models.camera import check_label, unpack_label

    if not len(labels):
        return Verdict(True, "no camera to look at", {"cameras": 0})
    label = torch.as_tensor(labels, dtype=torch.float64)
    check_label(label)
    radius = unpack_label(label)[0][..., :3, 3].norm(dim=-1)
    numbers = {"cameras": len(label), "radius.min": radius.min().item(), "radius.max": radius.max().item()}
    worst = (radius - params.radius).abs().max().item()
    bound = params.radius_tolerance * params.radius
    message = f"{len(label)} cameras at {numbers['radius.min']:.3f} to {numbers['radius.max']:.3f} from the pivot"
    return Verdict(worst <= bound, f"{message}, wanted {params.radius:g} +- {bound:.3g}", numbers)


def curves_are_finite(path: Path) -> Verdict:
    """No NaN or infinity among the numbers of a csv of training curves, and at least one row."""
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        return Verdict(False, f"{path.name} has no row")
    for number, row in enumerate(rows):
        for name, text in row.items():
            if not isinstance(text, str):
                return Verdict(False, f"row {number} of {path.name} has not as many values as there are columns")
            if not math.isfinite(_as_number(text)):
                return Verdict(False, f"'{name}' is {text} in row {number} of {path.name}", {"rows": len(rows)})
    return Verdict(True, f"{len(rows)} rows, all finite", {"rows": len(rows)})


def terms_fall(curves: Mapping[str, np.ndarray]) -> Verdict:
    """Every loss of AniPortraitGAN did what can be asked of it, which :mod:`ops.train.terms` says.

    Args:
        curves: columns of a ``curves.csv``.
    """
    found = courses(curves, PORTRAIT)
    if not found:
        return Verdict(False, "the curves hold none of AniPortraitGAN's losses")
    asked = [one for one in found if one.rule != "game"]
    numbers = {f"{one.name}.{part}": getattr(one, part) for one in found for part in ("first", "peak", "last")}
    wrong = [one for one in asked if not one.passed]
    games = ", ".join(one.name for one in found if one.rule == "game")
    words = "; ".join(one.words() for one in [*wrong, *(one for one in asked if one.passed)])
    return Verdict(not wrong, words + (f"; of the game's losses nothing is asked: {games}" if games else ""), numbers)


def more_frames_help(results: Mapping[str, Any]) -> Verdict:
    """Avatars of several frames draw frames that they were not made of no worse than those of the first one alone.

    Args:
        results: of evaluate_avatar; the recurrent encoders' are looked at, at the largest number of frames, by the mean
            gain in PSNR, picture by picture. Few people prove little: it fails only where the 95 % interval over
            people lies below 0, and says whether it lies above.
    """
    found = results["encoders"].get("recurrent")
    if found is None:
        return Verdict(True, "no recurrent encoders have been trained")
    counts = {int(n): row["psnr_gain"] for n, row in found["by_frames"]["ordered"].items() if "psnr_gain" in row}
    if not counts or counts[max(counts)]["interval"] is None:
        return Verdict(True, "not measured: more frames than one, of more people than one, are wanted")
    count = max(counts)
    gain, (low, high) = counts[count]["mean"], counts[count]["interval"]
    word = "better" if low > 0 else "worse" if high < 0 else "neither better nor worse, as far as these people show"
    message = f"{count} frames: {word}: {gain:+.3g} dB over one, 95 % interval {low:.3g} to {high:.3g}"
    return Verdict(high >= 0, message, {"frames": count, "gain": gain, "low": low, "high": high})


def distance_halves(results: Mapping[str, Any]) -> Verdict:
    """Heads come nearer to the data in training: the FD of the last snapshot is at most half of the first's.

    Args:
        results: of evaluate_heads; variants whose trainings kept no pictures of their snapshots are left out.
    """
    curves = {name: found["fd_curve"] for name, found in results["variants"].items() if found["fd_curve"]}
    if not curves:
        return Verdict(True, "no training has kept pictures of its snapshots (trainer.snapshot_pictures)")
    ends = {name: (curve[0]["fd"], curve[-1]["fd"]) for name, curve in curves.items()}
    words = [f"{name}: {first:.4g} to {last:.4g}, {last / first:.0%} left" for name, (first, last) in ends.items()]
    numbers = {f"{name}.left": last / first for name, (first, last) in ends.items()}
    return Verdict(all(last <= 0.5 * first for first, last in ends.values()), "; ".join(words), numbers)


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0  # a word, such as a loss's name, or an empty cell


def samples_are_whole(folder: Path, kept: set[str] | None, decoded: int) -> Verdict:
    """Shards hold what their dataset.json and the label tables say, and pictures that decode.

    Args:
        folder: training shards.
        kept: the ids of the pictures and clips that the label tables keep; None to leave that out.
        decoded: how many samples to decode, evenly spread.
    """
    from ops.store.pictures import decode

    said = json.loads((folder / SUMMARY).read_text())
    if not any(folder.glob("*.tar")) and said["samples"] == 0:
        return Verdict(True, "no sample, and none is spoken of", {"samples": 0})
    data = ShardDataset(folder)
    numbers = {"samples": len(data)}
    if said["samples"] != len(data):
        return Verdict(False, f"{SUMMARY} speaks of {said['samples']} samples, the shards hold {len(data)}", numbers)
    if said["hash"] != data.hash:
        return Verdict(False, f"the shards are not those that {SUMMARY} describes: their hash differs", numbers)
    ids = [key for shard in data.shards for key in shard.keys]
    if len(set(ids)) != len(ids):
        return Verdict(False, f"{len(ids) - len(set(ids))} samples are there more than once", numbers)
    strangers = {key.split("-")[0] for key in ids} - kept if kept is not None else set()
    if strangers:
        return Verdict(False, f"{len(strangers)} samples are in no label table, e.g. {min(strangers)}", numbers)
    size = said["resolution"]
    for number in _spread(len(data), decoded):
        for name, content in data.read(number).items():
            if name == "json":
                json.loads(content)
            elif (shape := decode(content).shape[:2]) != (size, size):
                return Verdict(False, f"{data.key(number)}.{name} is {shape}, not {size} x {size}", numbers)
    return Verdict(True, f"{len(data)} samples, {min(decoded, len(data))} decoded", numbers)


def _spread(total: int, wanted: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, total - 1, min(total, wanted))})


def _out(unit: Unit, folder: str, suffix: str = "") -> str | None:
    """The first output below a folder, with a suffix; a folder itself where no suffix is asked for."""
    return next((o for o in unit.outs if o.startswith(folder) and (not suffix or o.endswith(suffix))), None)


def _raw_ids(folder: Path) -> list[str]:
    return [key for path in shard_paths(folder) for key in Shard(path).keys]


def _before(dag: Dag, unit: Unit) -> tuple[str | None, list[str] | None]:
    """The step before that of a label table, and the ids that it kept.

    A unit may read tables beside that of the step before: it is the one whose kept ids the unit's rows are. Where none
    is, the one made last; the raw shards where no table is read.
    """
    made = list(dag.units)
    tables_read = [
        dep for dep in unit.deps if dep.startswith(LABELS) and dep.endswith(".parquet") and dep in dag.makers
    ]
    last: tuple[str | None, list[str] | None] = (None, None)
    ids = _table(dag, unit).column("id").to_pylist()
    for dep in sorted(tables_read, key=lambda dep: made.index(dag.makers[dep])):
        last = dep, tables.kept_ids(dag.root / dep)
        if last[1] is not None and _samples_of(ids, last[1]) == last[1]:
            return last
    raw = next((dep for dep in unit.deps if dep.startswith(RAW) and dep in dag.makers), None)
    return last if tables_read or raw is None else (None, _raw_ids(dag.root / raw))


def _of_clips(unit: Unit) -> bool:
    """Whether a unit's table or shards are of clips, which most projects have none of."""
    outs = (_out(unit, LABELS, ".parquet"), _out(unit, SHARDS))
    return any(Path(out).stem == "clips" for out in outs if out)


def _table(dag: Dag, unit: Unit) -> pa.Table:
    return tables.read(dag.root / str(_out(unit, LABELS, ".parquet")))


def _readable(dag: Dag, unit: Unit, params: CheckParams) -> Verdict:
    ids = _raw_ids(dag.root / str(_out(unit, RAW)))
    twice = len(ids) - len(set(ids))
    return Verdict(not twice, f"{len(ids)} samples, {twice} of them there twice", {"samples": len(ids)})


def _counts(dag: Dag, unit: Unit, params: CheckParams) -> Verdict:
    return counts_add_up(_table(dag, unit), _before(dag, unit)[1])


def _camera_table(dag: Dag, unit: Unit, params: CheckParams) -> Verdict:
    cameras = tables.kept(_table(dag, unit)).column("camera").to_pylist()
    return cameras_are_valid(np.asarray(cameras, np.float64), params)


def _samples(dag: Dag, unit: Unit, params: CheckParams) -> Verdict:
    units = [dag.units[name] for name in dag.upstream([unit.name])]
    made = {str(_out(one, LABELS, ".parquet")): one for one in units if _out(one, LABELS, ".parquet")}
    earlier = {_before(dag, one)[0] for one in made.values() if not _of_clips(one)}
    kept = {key.split("-")[0] for out in made if out not in earlier for key in tables.kept_ids(dag.root / out)}
    return samples_are_whole(dag.root / str(_out(unit, SHARDS)), kept if made else None, params.decoded)


def _camera_samples(dag: Dag, unit: Unit, params: CheckParams) -> Verdict:
    folder = dag.root / str(_out(unit, SHARDS))
    shards = [Shard(path) for path in sorted(folder.glob("*.tar"))]
    found = [json.loads(s.read(key, "json")).get("camera") for s in shards for key in s.keys]
    cameras = [np.asarray(camera, np.float64).reshape(-1, 25) for camera in found if camera is not None]
    radius = params.radius_of.get(unit.stage, params.radius)
    params = params.model_copy(update={"radius": radius})
    return cameras_are_valid(np.concatenate([np.empty((0, 25)), *cameras]), params)


def _finite(dag: Dag, unit: Unit, params: CheckParams) -> Verdict:
    return curves_are_finite(dag.root / str(_out(unit, CHECKPOINTS)) / "curves.csv")


def _terms(dag: Dag, unit: Unit, params: CheckParams) -> Verdict:
    return terms_fall(read_curves(dag.root / str(_out(unit, PORTRAITS)) / "curves.csv"))


def _more_frames(dag: Dag, unit: Unit, params: CheckParams) -> Verdict:
    return more_frames_help(json.loads((dag.root / AVATARS / "avatar.json").read_text()))


def _halves(dag: Dag, unit: Unit, params: CheckParams) -> Verdict:
    return distance_halves(json.loads((dag.root / HEADS / "heads.json").read_text()))


def _enough(dag: Dag, unit: Unit, params: CheckParams) -> Verdict:
    wanted = params.at_least_of.get(unit.stage, 0 if _of_clips(unit) else params.at_least)
    if _out(unit, LABELS, ".parquet"):
        found = tables.kept(_table(dag, unit)).num_rows
    elif _out(unit, SHARDS):
        found = sum(len(Shard(path)) for path in (dag.root / str(_out(unit, SHARDS))).glob("*.tar"))
    else:
        found = len(_raw_ids(dag.root / str(_out(unit, RAW))))
    return Verdict(found >= wanted, f"{found} samples, at least {wanted} wanted", {"samples": found})


_READABLE = Gate("shards_are_readable", "Every raw shard agrees with its index; no sample twice.", True, _readable)
_COUNTS = Gate("counts_add_up", "One row for each sample that the step before kept, in its order.", True, _counts)
_CAMERA_TABLE = Gate("cameras_are_valid", "Proper rotations, at the right distance.", True, _camera_table)
_SAMPLES = Gate("samples_match_labels", "Samples decode, and are those of the label tables.", True, _samples)
_CAMERA_SAMPLES = Gate("cameras_are_valid", "Proper rotations, at the right distance.", True, _camera_samples)
_ENOUGH = Gate("enough_samples", "At least as many samples as params.yaml asks for (checks.at_least).", True, _enough)
_FINITE = Gate("losses_are_finite", "No NaN or infinity in the training curves.", True, _finite)

_TERMS = Gate("loss_terms_fall", "Losses fall, or come down again where they start at their least.", False, _terms)
_MORE_FRAMES = Gate("more_frames_help", "More frames do not make avatars worse; whether better.", False, _more_frames)
_HALVES = Gate("distance_halves", "Heads' distance to the data falls by half in training.", False, _halves)


def main(words: Sequence[str] | None = None) -> int:
    """Run every gate on what is there; prints a line each and returns 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m ops.checks", description=main.__doc__)
    parser.add_argument("root", type=Path, nargs="?", default=Path("."), help="the project's folder")
    root = parser.parse_args(words).root
    try:
        dag, params = Dag.load(root), load_thresholds(root)
    except LineamentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    failed = 0
    for unit in dag.units.values():
        wanting = [out for name in (unit.name, *dag.parents(unit.name)) for out in dag.units[name].outs]
        if missing := [out for out in wanting if not (root / out).exists()]:
            print(f"  --  {unit.name}: not checked, as {missing[0]} has not been made")
            continue
        for gate in gates_of(unit):
            verdict = run_gate(gate, dag, unit, params)
            failed += not verdict.passed
            print(f"{' ok ' if verdict.passed else 'FAIL'}  {unit.name}: {gate.name}: {verdict.message}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
