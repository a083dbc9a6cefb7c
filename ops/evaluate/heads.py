"""Stage evaluate_heads: do generated heads look like the data from every side, and are they one solid head?

For every variant: Fréchet and kernel distances of pictures drawn from the data's cameras (all, front, back, and by
azimuth), their fall in the course of training, an automatic form of SphereHead's user study (fake faces behind,
mirrored features, heads without artefacts), agreement of neighbouring views in depth and colour, and identity.

python -m ops.evaluate.heads data/checkpoints/heads data/shards/heads data/truth data/weights/embedded
    data/evaluation/heads
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ops.evaluate import artefacts, intervals, published
from ops.evaluate.distances import Estimate, frechet_between, kid
from ops.evaluate.features import SIDE, load_features
from ops.evaluate.heads_measure import Work, measure
from ops.evaluate.heads_output import write_results
from ops.evaluate.heads_views import BINS, VIEWS, RealHeads, bin_of, chosen_numbers, in_view, read_real
from ops.evaluate.identity import cosine
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.shardwork import Piece, code_hash, digest, run_pieces
from ops.runtime.stage import Stage, stage
from ops.store.reader import ShardDataset

CODE = (
    "models.spherehead",
    "models.features",
    "models.planes",
    "models.render.volume",
    "ops.apply.heads",
    "ops.evaluate.consistency",
    "ops.evaluate.features",
    "ops.evaluate.heads_views",
)
FEWEST = 4  # pictures on a side, below which no distance is given


class EvaluateHeadsParams(Params):
    """How much is drawn. Defaults: the paper's numbers."""

    samples: int = Field(default=50_000, ge=8, description="pictures for the distances")  # section 5.4: FID-50k
    reference: int = Field(default=0, ge=0, description="real pictures at most; 0 for all")  # EG3D: all
    objects: int = Field(default=100, ge=2, description="heads for the judgement of artefacts")  # section 5.3
    views: int = Field(default=24, ge=8, description="cameras around each of them")  # unpublished: our choice
    truncation: float = Field(default=0.7, ge=0, le=1, description="of those heads")  # SphereHead's code
    seed: int = Field(default=0, ge=0)  # unpublished: our choice
    side: int = Field(default=SIDE, ge=32, description="pixels of the pictures that features are computed from")
    kd_subsets: int = Field(default=100, ge=2)  # Binkowski et al. 2018
    kd_size: int = Field(default=1000, ge=2)  # Binkowski et al. 2018
    sprites: int = Field(default=2, ge=1, description="heads shown from all sides")  # unpublished: our choice
    device: Literal["auto", "cpu", "cuda"] = "auto"


@stage("evaluate_heads", EvaluateHeadsParams)
def main(s: Stage[EvaluateHeadsParams], checkpoints: Path, shards: Path, truth: Path, weights: Path, out: Path) -> None:
    """Judge the heads that every trained variant draws: distances, artefacts, consistency, the course of training."""
    from ops.train.export import read_config

    p = s.params
    folders = find_variants(checkpoints)
    records = {name: read_config(folder) for name, folder in folders.items()}
    sides = {name: int(record["params"]["model"]["resolution"]) for name, record in records.items()}
    backbone, dataset = load_features(weights, p.side), ShardDataset(shards)
    real: dict[int, RealHeads] = {}
    paths: dict[int, Path] = {}
    for side in sorted(set(sides.values())):
        key = digest(dataset.hash, side, p.reference, backbone.digest, backbone.rule, code_hash(CODE))
        paths[side] = s.work / f"real-{key}.npz"
        if not paths[side].is_file():
            numbers = chosen_numbers(len(dataset), p.reference)
            seen = read_real(dataset, s.progress(numbers, desc="real heads"), truth, side, backbone, weights)
            with publish(paths[side]) as temporary:
                seen.save(temporary)
        real[side] = RealHeads.load(paths[side])
    calibrated = {side: artefacts.calibrate(found) for side, found in real.items()}
    pieces = [
        Piece(
            name, digest(records[name]["files"], paths[sides[name]].name), Work(folder, paths[sides[name]], weights, p)
        )
        for name, folder in folders.items()
    ]
    results: dict[str, Any] = {}
    sprites: dict[str, np.ndarray] = {}
    for name, path in zip(folders, run_pieces(s, pieces, measure, code=CODE, suffix=".npz", unit="variant")):
        with np.load(path, allow_pickle=False) as facts:
            found = dict(facts)
        sprites[name] = found.pop("sprites")
        results[name] = numbers_of(found, real[sides[name]], calibrated[sides[name]], p)
        results[name]["checkpoint"] = {key: records[name].get(key) for key in ("variant", "step", "images", "data")}
        results[name]["same_data"] = records[name].get("data") == dataset.hash
        s.log(f"{name}: fd_mobilenetv2 {results[name]['fd']['all']['value']:.1f} of {p.samples} samples")
    some = next(iter(sides.values()))
    about = protocol(p, dataset, real[some], calibrated[some], backbone.rule, backbone.digest)
    with publish(out, folder=True) as folder:
        preview = write_results(folder, {"protocol": about, "variants": results}, sprites)
    s.metrics(summary(results, about))
    s.preview(preview)


def find_variants(checkpoints: Path) -> dict[str, Path]:
    """Published checkpoints by variant, in the order of the paper's table.

    Raises:
        LineamentError: there is none.
    """
    found = {path.parent.name: path.parent for path in sorted(checkpoints.glob("*/config.json"))}
    if not found:
        raise LineamentError(f"{checkpoints}: no checkpoint found. Train one first: dvc repro train_heads.")
    known = [name for name in published.SPHEREHEAD_ABLATION if name in found]
    return {name: found[name] for name in [*known, *(n for n in found if n not in known)]}


def numbers_of(
    found: dict[str, np.ndarray], real: RealHeads, calibrated: artefacts.Calibrated, p: EvaluateHeadsParams
) -> dict[str, Any]:
    """All numbers of one variant, from the facts of :func:`ops.evaluate.heads_measure.measure`."""
    low, features, azimuths = found["sample_low"], found["sample_features"], found["sample_azimuths"]
    fd, fd_low, kd = {}, {}, {}
    for view in VIEWS:
        ours, theirs = in_view(azimuths, view), in_view(real.azimuths, view)
        fd[view], kd[view] = _distances(features[ours], real.features[theirs], p)
        fd_low[view], _ = _distances(low[ours], real.low[theirs], p)
    by_azimuth = []
    for number in range(BINS):
        a, b = features[bin_of(azimuths) == number], real.features[bin_of(real.azimuths) == number]
        centre = (number * 360 // BINS + 180) % 360 - 180
        by_azimuth.append({"azimuth": centre, "kd": _distances(a, b, p)[1]})
    facts = artefacts.Facts(*(found[f"view_{name}"] for name in artefacts.Facts.__dataclass_fields__))
    shaped = found["view_features"].reshape(p.objects, p.views, -1)
    front, back = found["front_back"]
    curve = [
        {
            "step": int(name.removeprefix("snapshot_")),
            "fd": _plain(frechet_between(found[name], real.features))["value"],
            "fd_low": _plain(frechet_between(found[name.replace("snapshot", "low")], real.low))["value"],
            "samples": len(found[name]),
        }
        for name in sorted(found)
        if name.startswith("snapshot_")
    ]
    depth, colour, seen = (_mean(column) for column in found["agreement"].T)
    return {
        "fd": fd,
        "fd_low": fd_low,
        "kd": kd,
        "kd_by_azimuth": by_azimuth,
        "fd_curve": curve,
        "artefacts": artefacts.judge(facts, p.objects, calibrated),
        "face_in_front": _sure(facts.face_scores.reshape(p.objects, -1)[:, front], calibrated),
        "mirrored": artefacts.mirrored_score(shaped[:, back], shaped[:, front], found["front_flipped"]),
        "consistency": {"depth": depth, "colour": colour, "seen": seen},
        "identity": identity_of(found["identity_front"], found["identity_sides"]),
    }


def identity_of(front: np.ndarray, sides: np.ndarray) -> dict[str, float | int | str]:
    """Is a head, turned by 45 degrees, nearer to its own front (O, D) than to others'? ``sides`` is (O, S, D).

    ``auc`` is the share of (own, other) pairs of Euclidean distances in the right order; chance is 0.5.
    """
    apart = np.linalg.norm(sides[:, :, None].astype(np.float64) - front[None, None].astype(np.float64), axis=-1)
    own = np.stack([apart[i, :, i] for i in range(len(front))])  # (O, S)
    wins = [
        (own[i, s] < apart[i, s, j]) + 0.5 * (own[i, s] == apart[i, s, j])
        for i in range(len(front))
        for s in range(sides.shape[1])
        for j in range(len(front))
        if j != i
    ]
    return {"auc": float(np.mean(wins)), "pairs": len(wins), "recogniser": "dlib_128d"}


def protocol(
    p: EvaluateHeadsParams,
    dataset: ShardDataset,
    real: RealHeads,
    calibrated: artefacts.Calibrated,
    rule: str,
    backbone: str,
) -> dict[str, Any]:
    """What the numbers of all variants share, and what true pictures score."""
    per_view = 1 - calibrated.any_alarm
    azimuths, known = real.calibration_azimuths, int((~np.isnan(real.true_azimuths)).sum())
    pairs = _real_pairs(real)
    return {
        "backbone": "mobilenetv2",
        "backbone_sha256": backbone,
        "resize": rule,
        "samples": p.samples,
        "real": len(real.features),
        "heads": p.objects,
        "views": p.views,
        "truncation": p.truncation,
        "seed": p.seed,
        "data": dataset.hash,
        "calibration": {
            "limits": calibrated.limits.as_dict(),
            "false_alarms": {name: _round(rate) for name, rate in calibrated.false_alarms.items()},
            "any_alarm": _round(calibrated.any_alarm),
            "pictures": calibrated.samples[0],
            "back_views": calibrated.samples[1],
            "of_known_truth": known,
            "high_quality_of_true_views": _round(per_view**p.views),
            "face_in_front": _sure(real.face_scores[np.abs(azimuths) < 10], calibrated),
        },
        "mirrored_of_true_heads": pairs,
    }


def summary(results: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """The few numbers that git keeps."""
    variants = {}
    for name, found in results.items():
        curve = found["fd_curve"]
        variants[name] = {
            "fd_mobilenetv2": {view: found["fd"][view].get("value") for view in VIEWS},
            "fd_mobilenetv2_low": {view: found["fd_low"][view].get("value") for view in VIEWS},
            "kd_mobilenetv2": {view: found["kd"][view].get("value") for view in VIEWS},
            "kd_interval": intervals.of_estimate(found["kd"]["all"]),
            "fake_face_rate": found["artefacts"]["fake_face_rate"],
            "high_quality_rate": found["artefacts"]["high_quality_rate"],
            "mirrored": _round(found["mirrored"]["score"]),
            "depth_disagreement": found["consistency"]["depth"],
            "identity_auc": _round(found["identity"]["auc"]),
            "first_to_last": {key: [curve[0][key], curve[-1][key]] for key in ("fd", "fd_low")} if curve else None,
        }
    keys = ("samples", "real", "heads", "views", "resize", "seed")
    false = about["calibration"]["false_alarms"]["face_behind"]
    return {"variants": variants, **{key: about[key] for key in keys}, "fake_face_false_alarms": false}


def _distances(a: np.ndarray, b: np.ndarray, p: EvaluateHeadsParams) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fréchet and kernel distance, or in words why there is none."""
    if min(len(a), len(b)) < FEWEST:
        why = {"value": None, "samples": [len(a), len(b)], "note": f"fewer than {FEWEST} pictures on a side"}
        return why, why
    return (
        _plain(frechet_between(a, b)),
        _plain(kid(a, b, p.kd_subsets, p.kd_size, p.seed)),
    )


def _plain(e: Estimate) -> dict[str, Any]:
    se = None if e.se is None else _round(e.se)
    return {"value": _round(e.value), "se": se, "samples": list(e.samples), "note": e.note}


def _sure(scores: np.ndarray, calibrated: artefacts.Calibrated) -> float | None:
    """How often the face detector fires at its calibrated limit."""
    return _round(float((scores > calibrated.limits.least_face).mean())) if len(scores) else None


def _real_pairs(real: RealHeads) -> dict[str, float | int | None] | None:
    """What true heads score on the mirrored features: a back view of a person with a front view of the same one."""
    azimuths = np.abs(real.calibration_azimuths)
    back, front = [], []
    for name in np.unique(real.identities[real.identities != ""]):
        own = real.identities == name
        behind, ahead = np.flatnonzero(own & (azimuths > 150)), np.flatnonzero(own & (azimuths < 30))
        if len(behind) and len(ahead):
            back.append(behind[0])
            front.append(ahead[0])
    if not back:
        return None
    alike = np.diag(cosine(real.features[back], real.features[front]))
    return {"front_alone": _round(float(alike.mean())), "heads": len(back)}


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return _round(float(known.mean())) if len(known) else None


def _round(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.6g}")


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
