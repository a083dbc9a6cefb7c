"""What protocols measure, by name: each takes checkpoints to numbers with intervals and counts.

A measure is ``(protocol, checkpoints, Setting) -> {row: {metric: Number}}``. Metrics carry the name of the backbone
they were made with: ``fid`` with the FID's own weights, ``fd_mobilenetv2`` with MobileNetV2's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ops.evaluate import intervals
from ops.evaluate.protocol import Protocol
from ops.runtime.errors import LineamentError

if TYPE_CHECKING:
    from ops.apply.heads import Heads


@dataclass(frozen=True)
class Setting:
    """How a protocol is run here.

    Attributes:
        backbone: features or embeddings.
        samples: generated pictures or objects a checkpoint; the protocol's own if not given.
        shards: real pictures.
        weights: folder of the embedded networks.
        work: where features are cached.
        device: of generators and networks.
        truth: what the studio knows, if there is any.
        priors, pose_network: of portraits, and the network that tells how a head is turned.
        inversions: what stage ``invert_heads`` found.
    """

    backbone: str
    samples: int
    shards: Path
    weights: Path
    work: Path
    device: str = "cpu"
    truth: Path = Path("data/truth")
    priors: Path = Path("data/priors")
    pose_network: Path = Path("data/checkpoints/headpose")
    inversions: Path = Path("data/inversions/heads")


@dataclass(frozen=True)
class Number:
    """A measured number.

    Attributes:
        value: the number.
        low, high: 95 % interval; None where there is none.
        samples: how many pictures, objects or pairs went into it.
        note: what a reader must know.
    """

    value: float
    low: float | None
    high: float | None
    samples: int
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For json; numbers that are not finite become None."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}


FEWEST = 8  # samples, below which nothing is measured; unpublished: our choice
Rows = dict[str, dict[str, Number]]
Measure = Callable[[Protocol, dict[str, Path], Setting], Rows]


def verification(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> Rows:
    """Areas under the ROC curve by angle, as stage ``evaluate_giraffe`` measures them."""
    from ops.apply.generators import load_generator
    from ops.evaluate.giraffe import EvaluateGiraffeParams, measure
    from ops.evaluate.identity import load_recogniser

    recogniser = load_recogniser(setting.backbone)  # type: ignore[arg-type]
    p = EvaluateGiraffeParams(objects=setting.samples, recogniser=recogniser.name, seed=protocol.seed)  # type: ignore[arg-type]
    rows: Rows = {}
    for row, folder in checkpoints.items():
        generator = load_generator(folder, setting.device)
        images = generator.render([protocol.seed * 1_000_003 + i for i in range(p.objects)], p.angles)
        flat = images.reshape(-1, *images.shape[2:])
        embeddings = recogniser.embed(list(flat)).reshape(*images.shape[:2], -1)
        found = measure(row, generator.record, embeddings, images[:, :, ::2, ::2], images[:1], p, recogniser)
        rows[row] = {
            name: Number(area.value, area.low, area.high, entry["genuine"] + entry["impostor"])
            for name, entry in found.angles.items()
            for area in [entry["by_object"]]
        }
    return rows


def heads(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> Rows:
    """Distance to the data and the automatic user study, as stage ``evaluate_heads`` measures them."""
    from ops.apply.heads import Heads
    from ops.evaluate import artefacts
    from ops.evaluate.backbones import distance_name, load_backbone
    from ops.evaluate.distances import frechet_between
    from ops.evaluate.heads import EvaluateHeadsParams
    from ops.evaluate.heads_measure import draw_samples, look_around
    from ops.evaluate.heads_views import chosen_numbers, read_real
    from ops.store.reader import ShardDataset

    backbone, dataset = load_backbone(setting.backbone, setting.weights, setting.device), ShardDataset(setting.shards)
    study = min(setting.samples, STUDY)
    p = EvaluateHeadsParams(samples=setting.samples, objects=study, seed=protocol.seed, sprites=1)
    rows: Rows = {}
    for row, folder in checkpoints.items():
        generator = Heads(folder, setting.device)
        numbers = chosen_numbers(len(dataset), max(setting.samples, REAL))
        real = read_real(dataset, numbers, setting.truth, generator.resolution, backbone, setting.weights)
        distance = frechet_between(draw_samples(generator, real, backbone, p)["sample_features"], real.features)
        seen = look_around(generator, backbone, setting.weights, p)
        facts = artefacts.Facts(*(seen[f"view_{name}"] for name in artefacts.Facts.__dataclass_fields__))
        found = artefacts.judge(facts, study, artefacts.calibrate(real))
        rows[row] = {
            distance_name("fd", backbone.name): Number(
                distance.value, *_interval(distance.value, distance.se), distance.samples[0], distance.note
            ),
            "fake_face": _share(found["fake_face_rate"], int(found["back_views"])),  # type: ignore[call-overload]
            "high_quality": _share(found["high_quality_rate"], study),
        }
    return rows


STUDY = 100  # SphereHead section 5.3: heads of the user study
REAL = 64  # real pictures at least, for the calibration of the study; unpublished: our choice


def inversion(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> Rows:
    """The picture given and the views nobody gave: as stage ``invert_heads`` found them for this very checkpoint.

    Where it has not been inverted there, it is now, with PanoHead's settings.
    """
    from ops.apply.heads import Heads

    stored = setting.inversions / "inversions.json"
    record = json.loads(stored.read_text(encoding="utf-8"))["variants"] if stored.is_file() else {}
    known = {found["checkpoint"]: found["heads"] for found in record.values()}
    rows: Rows = {}
    for row, folder in checkpoints.items():
        generator = Heads(folder, setting.device)
        entries = known.get(generator.digest)
        note = f"inverted by stage invert_heads: {stored}" if entries else ""
        entries = entries or _inverted(generator, setting)
        rows[row] = {}
        for name in entries[0]["tuned"][0]:
            given = np.array([entry["tuned"][0][name] for entry in entries])
            unseen = np.array([np.mean([view[name] for view in entry["tuned"][1:]]) for entry in entries])
            rows[row][name] = number_of(intervals.mean(given), note)
            rows[row][f"unseen_{name}"] = number_of(intervals.mean(unseen), note)
    return rows


def _inverted(generator: Heads, setting: Setting) -> list[dict[str, Any]]:
    from ops.evaluate.features import load_features
    from ops.evaluate.held_out import held_out_heads
    from ops.evaluate.invert_heads import InvertHeadsParams, compare, inversions
    from ops.evaluate.perceptual import perceptual

    p = InvertHeadsParams()
    backbone = load_features(setting.weights, p.inversion.perceptual_side, setting.device)
    apart = perceptual(backbone, setting.device)
    truths = held_out_heads(setting.samples, [p.azimuth, *p.unseen], generator.resolution)
    made = inversions(generator, truths, p.inversion, backbone, lambda steps, what: steps)
    return [compare(truth, views, apart) for truth, _, views in made]


def portrait(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> Rows:
    """Distances of faces and whole portraits, as stage ``evaluate_portrait`` measures them, by MobileNetV2."""
    from ops.apply.portraits import Portraits
    from ops.evaluate.portrait import EvaluatePortraitParams, distances
    from ops.store.reader import ShardDataset

    p = EvaluatePortraitParams(samples=setting.samples, seed=protocol.seed)
    rows: Rows = {}
    for row, folder in checkpoints.items():
        found = distances(
            Portraits(folder, setting.priors, setting.device), ShardDataset(setting.shards), setting.weights, p
        )
        rows[row] = {}
        for what in ("face", "whole"):
            numbers = found[what]
            rows[row][f"fd_mobilenetv2_{what}"] = Number(numbers["fd_mobilenetv2"], None, None, setting.samples)
            kd, error = numbers["kd_mobilenetv2"], numbers["kd_error"]
            rows[row][f"kd_mobilenetv2_{what}"] = Number(kd, *_interval(kd, error), setting.samples)
    return rows


def control(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> Rows:
    """Whether portraits do what they are asked, as stage ``evaluate_portrait`` measures it."""
    from ops.apply.portraits import Portraits
    from ops.evaluate.portrait import EvaluatePortraitParams, identity
    from ops.evaluate.portrait import control as measured

    p = EvaluatePortraitParams(samples=setting.samples, characters=setting.samples, seed=protocol.seed)
    rows: Rows = {}
    for row, folder in checkpoints.items():
        portraits = Portraits(folder, setting.priors, setting.device)
        found, same = measured(portraits, setting.weights, setting.pose_network, p), identity(portraits, p)
        rows[row] = {
            "expression": number_of(found["expression"]),
            "pose": number_of(found["turn"]["correlation"]),
            "camera": number_of(found["camera"]["error_degrees"]),
            "identity_drift": Number(1 - float(same["auc"]), None, None, int(same["pairs"])),
        }
    return rows


def _interval(value: float, error: float | None) -> tuple[float | None, float | None]:
    return (None, None) if error is None else (value - 1.96 * error, value + 1.96 * error)


def _share(rate: object, of: int) -> Number:
    """A share of cases with its interval; without anything to count, no number."""
    if not isinstance(rate, int | float) or of == 0:
        return Number(float("nan"), None, None, of, "nothing to count")
    return number_of(intervals.share(round(rate * of), of))


def number_of(found: dict[str, Any], note: str = "") -> Number:
    """A number of ``ops.evaluate.intervals``."""
    if found["mean"] is None:
        return Number(float("nan"), None, None, found["n"], f"only {found['n']} pictures could be measured")
    low, high = found["interval"] or (None, None)
    return Number(found["mean"], low, high, found["n"], note)


def _avatars(measure: str) -> Measure:
    """A measure of animatable heads; their networks are imported when it is run."""

    def run_it(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> Rows:
        from ops.evaluate import avatar_tables

        return getattr(avatar_tables, measure)(protocol, checkpoints, setting)

    return run_it


MEASURES: dict[str, Measure] = {
    "verification": verification,
    "heads": heads,
    "inversion": inversion,
    "portrait": portrait,
    "control": control,
    **{name: _avatars(name) for name in ("avatar", "reenactment", "frames", "frame_curve", "reconstruction")},
}


Known = dict[tuple[str, str, int, Setting], dict[str, Number]]


def run(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting, known: Known | None = None) -> Rows:
    """Measure all checkpoints.

    Args:
        protocol, checkpoints, setting: what, on what, and how.
        known: what was measured already, by measure, checkpoint, seed and setting; is added to. Tables that ask the
            same of a checkpoint share one measurement.

    Raises:
        LineamentError: the measure is not in this version, or a checkpoint is of another system.
    """
    from ops.apply.generators import checkpoint_digest
    from ops.train.export import read_config

    if setting.samples < FEWEST:
        raise LineamentError(f"{setting.samples} samples say nothing; give at least {FEWEST} (--samples).")
    if protocol.measure not in MEASURES:
        raise LineamentError(
            f"this version has no measure '{protocol.measure}' ({protocol.paper}, {protocol.source}); "
            "`lineament evaluate --list` says which protocols can be run."
        )
    records = {row: read_config(folder) for row, folder in checkpoints.items()}
    for row, record in records.items():
        if record.get("system") != protocol.system:
            raise LineamentError(
                f"{checkpoints[row]}: a checkpoint of {record.get('system')!r}; this protocol judges "
                f"{protocol.system!r}."
            )
    known = {} if known is None else known
    rows: Rows = {}
    for row, folder in checkpoints.items():
        way = protocol.variants.get(row, "").partition("#")[2]
        key = f"{protocol.measure}#{way}", checkpoint_digest(records[row]), protocol.seed, setting
        if key not in known:
            known[key] = MEASURES[protocol.measure](protocol, {row: folder}, setting)[row]
        rows[row] = known[key]
    return rows
