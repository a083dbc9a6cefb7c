"""Stage evaluate_portrait: do generated portraits look like the data, and do they do what they are asked?

The paper's distances for whole portraits and for faces; and what it could not measure: expression, camera and the turn
of the head are estimated again from the pictures, by the networks that label photos, and compared with what was asked;
whether a character stays the same person while it moves; how suddenly the deformation changes from one point to the
next, with the processing network and without. Where the second stage of training has enlarged a variant, it is a row of
its own, and its distances stand beside those of the first stage's pictures, enlarged as they are.

python -m ops.evaluate.portrait data/checkpoints data/shards/portraits data/priors data/weights/embedded
    data/checkpoints/headpose data/checkpoints/coefficients/judge data/evaluation/portrait
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from models.portrait_pose import apply_transforms
from ops.apply.pictures import grid
from ops.apply.portraits import SYSTEM, Portraits, largest
from ops.apply.strips import draw_strips
from ops.curate.camera import CROP_FOCAL, angles, solve_camera
from ops.curate.crop import to_crop
from ops.curate.detect import DetectParams, find_faces
from ops.curate.landmarks import find_landmarks
from ops.evaluate import intervals
from ops.evaluate.distances import frechet_between, kid
from ops.evaluate.features import levels_of, load_features
from ops.evaluate.heads import identity_of
from ops.evaluate.identity import load_recogniser
from ops.evaluate.portrait_control import read_codes, silhouettes
from ops.fit.face import FitFaceParams, fit_crops, why_not
from ops.perception.headpose import look
from ops.perception.trained import headpose
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.stage import Stage, stage
from ops.store.pictures import decode, encode_png, resize
from ops.store.reader import ShardDataset
from ops.train.export import CONFIG

LOOK = 256  # pixels to which a picture is enlarged before a labelling network sees it; unpublished: our choice
COLUMNS, SHOWN = 6, 128  # of the strips: pictures a row, and their side in the report
VARIANTS = ("full", "whole_only", "no_torso", "crop", "nearest")


class EvaluatePortraitParams(Params):
    """How much is drawn. Defaults: the paper's numbers."""

    samples: int = Field(default=20_000, ge=8, description="pictures for the distances")  # Section 4: 20k; ablation 5k
    characters: int = Field(default=500, ge=4, description="whose control is measured")  # unpublished: our choice
    bodies: int = Field(default=8, ge=1, description="whose deformation is looked at")  # unpublished: our choice
    seed: int = Field(default=0, ge=0)
    side: int = Field(default=224, ge=32, description="pixels of the pictures that features are computed from")
    kd_subsets: int = Field(default=100, ge=2)  # Binkowski et al. 2018
    kd_size: int = Field(default=1000, ge=2)
    device: Literal["auto", "cpu", "cuda"] = "auto"


@stage("evaluate_portrait", EvaluatePortraitParams)
def main(
    s: Stage[EvaluatePortraitParams],
    checkpoints: Path,
    shards: Path,
    priors: Path,
    weights: Path,
    pose_network: Path,
    reader: Path,
    out: Path,
) -> None:
    """Judge generated portraits: distances, control against what was asked, identity, smoothness of the deformation."""
    p = s.params
    torch.set_num_threads(1)  # sums depend on the number of threads
    device = ("cuda" if torch.cuda.is_available() else "cpu") if p.device == "auto" else p.device
    dataset = ShardDataset(shards)
    results: dict[str, Any] = {}
    sheets: dict[str, np.ndarray] = {}
    for name, folder in s.progress(find_generators(checkpoints).items(), desc="variants"):
        portraits = Portraits(folder, priors, device)
        results[name] = {
            "distances": distances(portraits, dataset, weights, p, first_of(portraits, checkpoints, priors)),
            "control": control(portraits, weights, pose_network, p),
            "silhouettes": silhouettes(portraits, p.characters, p.seed),
            "read": read_codes(portraits, reader, dataset, p.characters, p.seed),
            "identity": identity(portraits, p),
            "deformation": roughness(portraits, p),
            "checkpoint": {key: portraits.record.get(key) for key in ("variant", "step", "images", "data")},
            "same_data": portraits.record.get("data") == dataset.hash,
        }
        rows = draw_strips(portraits, p.seed, COLUMNS, truncation=1.0)
        sheets[name] = grid(np.stack([resize(image, SHOWN) for row in rows for image in row]), COLUMNS)
    about = {"samples": p.samples, "characters": p.characters, "seed": p.seed, "data": dataset.hash}
    with publish(out, folder=True) as folder:
        record = {"protocol": about, "variants": results}
        (folder / "portrait.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for name, sheet in sheets.items():
            (folder / f"strips_{name}.png").write_bytes(encode_png(sheet))
    s.metrics({"variants": {name: summary(found) for name, found in results.items()}, **about})
    s.preview(next(iter(sheets.values())))


def find_variants(checkpoints: Path) -> list[str]:
    """Variants whose first stage has been trained, in the paper's order.

    Raises:
        LineamentError: there is none.
    """
    found = sorted(path.parent.name for path in (checkpoints / SYSTEM).glob(f"*/{CONFIG}"))
    if not found:
        raise LineamentError(f"{checkpoints / SYSTEM}: no checkpoint found. Train one: dvc repro train_portrait.")
    return [*(n for n in VARIANTS if n in found), *(n for n in found if n not in VARIANTS)]


def find_generators(checkpoints: Path) -> dict[str, Path]:
    """Checkpoints of the first stage by variant, each followed by its ``VARIANT_superresolution``."""
    found = {}
    for name in find_variants(checkpoints):
        found[name] = checkpoints / SYSTEM / name
        if (best := largest(checkpoints, name)) != found[name]:
            found[f"{name}_superresolution"] = best
    return found


def first_of(portraits: Portraits, checkpoints: Path, priors: Path) -> Portraits | None:
    """The first stage that a super-resolution was trained upon; None for a first stage, or where it is another now."""
    folder = checkpoints / SYSTEM / portraits.record["variant"]
    if not portraits.large or not (folder / CONFIG).is_file():
        return None
    first = Portraits(folder, priors, portraits.device)
    return first if first.record["files"]["generator.safetensors"]["sha256"] == portraits.record["base"] else None


def distances(
    portraits: Portraits, data: ShardDataset, weights: Path, p: EvaluatePortraitParams, first: Portraits | None = None
) -> dict[str, Any]:
    """Fréchet and kernel distance of whole portraits and of faces; by MobileNetV2's last and first layers.

    With ``first``, ``whole_before`` and ``face_before`` are those of its pictures, resized to the same sides.
    """
    backbone = load_features(weights, p.side)
    found = {}
    for what, field in (("whole", "jpg"), ("face", "face.jpg")):
        side = portraits.sides["portrait" if what == "whole" else "face"]
        numbers = np.linspace(0, len(data) - 1, min(len(data), p.samples)).round().astype(int)
        real = levels_of(backbone, (resize(decode(data.read(int(n))[field]), side) for n in numbers))
        for key, generator in ((what, portraits), (f"{what}_before", first)):
            if generator is not None:
                pictures = (resize(one, side) for one in drawn(generator, p.samples, p.seed, face=what == "face"))
                found[key] = _apart(levels_of(backbone, pictures), real, p)
    return found


def _apart(
    fake: tuple[np.ndarray, np.ndarray], real: tuple[np.ndarray, np.ndarray], p: EvaluatePortraitParams
) -> dict[str, Any]:
    size = min(p.kd_size, len(real[1]), len(fake[1]))
    kd = kid(fake[1], real[1], p.kd_subsets, size, p.seed)
    return {
        "fd_mobilenetv2": _plain(frechet_between(fake[1], real[1]).value),
        "fd_mobilenetv2_low": _plain(frechet_between(fake[0], real[0]).value),
        "kd_mobilenetv2": _plain(kd.value),
        "kd_error": None if kd.se is None else _plain(kd.se),
        "samples": [len(fake[1]), len(real[1])],
    }


def drawn(portraits: Portraits, count: int, seed: int, face: bool) -> Iterator[np.ndarray]:
    """Characters of the priors, each by its own camera, untruncated."""
    for number in range(count):
        yield portraits.render(*portraits.characters([seed * 1_000_003 + number]), face=face)[0]


def control(portraits: Portraits, weights: Path, pose_network: Path, p: EvaluatePortraitParams) -> dict[str, Any]:
    """What the labelling networks find in the pictures, against what was asked for.

    Returns:
        ``seen``: share of face pictures in which a face is found and fitted. ``expression``: correlation of face units,
        asked and fitted. ``camera``: of the azimuth of the face camera. ``turn``: of the head's azimuth in whole
        portraits, to which body pose and camera add up, by the 360 degree estimator; with mean errors in degrees.
    """
    network = headpose(pose_network)
    asked_units, found_units, asked_azimuth, found_azimuth, asked_turn, found_turn = [], [], [], [], [], []
    for number in range(p.characters):
        latents, label = portraits.characters([p.seed * 1_000_003 + number])
        face = resize(portraits.render(latents, label, face=True)[0], LOOK)
        azimuth = portraits.head_azimuth(latents, label)
        fitted = fit_picture(face, weights)
        if fitted is not None:
            asked_units.append(latents.expression[0].cpu().numpy())
            found_units.append(fitted[0])
            asked_azimuth.append(azimuth)
            found_azimuth.append(fitted[1])
        head = look(resize(portraits.render(latents, label)[0], LOOK), network)
        asked_turn.append(azimuth)
        found_turn.append(head.azimuth)
    units = np.array(asked_units).reshape(-1), np.array(found_units).reshape(-1)
    return {
        "seen": intervals.share(len(asked_units), p.characters),
        "expression": intervals.correlation(*units),
        "camera": _angles(asked_azimuth, found_azimuth),
        "turn": _angles(asked_turn, found_turn),
    }


def fit_picture(face: np.ndarray, weights: Path) -> tuple[np.ndarray, float] | None:
    """Face units (52,) and azimuth in degrees of an aligned face picture; None where no face is found or fitted."""
    params = FitFaceParams.model_validate({})
    faces = find_faces(face, weights, DetectParams.model_validate({}))
    if not faces:
        return None
    points, _ = find_landmarks(face, faces[0].box, faces[0].points, weights, 1)
    side = face.shape[0]
    quad = np.array([[0, 0], [0, side], [side, side], [side, 0]], float)
    pose, _ = solve_camera(to_crop(points[:, :2], quad), CROP_FOCAL)
    row = {
        "points": points.ravel().tolist(),
        "quad": quad.ravel().tolist(),
        "distance": float(np.linalg.norm(pose[:3, 3])),
    }
    camera = np.concatenate([pose.ravel(), [CROP_FOCAL, 0, 0.5, 0, CROP_FOCAL, 0.5, 0, 0, 1]])
    columns = fit_crops([{**row, "camera": camera.tolist()}], params)[0]
    if why_not(columns, params) is not None:
        return None
    found = np.array(columns["camera"], np.float64)
    return np.array(columns["expression"]), angles(found[:16].reshape(4, 4))[0]


def identity(portraits: Portraits, p: EvaluatePortraitParams) -> dict[str, float | int | str]:
    """Is a moved character nearer to its own neutral picture than to others' (:func:`identity_of`)?"""
    recogniser = load_recogniser("dlib_128d")
    count = min(p.characters, 100)
    fronts, moved = [], []
    camera = portraits.camera(0.0)
    for number in range(count):
        latents, _ = portraits.characters([p.seed * 1_000_003 + number])
        other, _ = portraits.characters([p.seed * 1_000_003 + count + number])
        asked = replace(latents, expression=other.expression, pose=other.pose)
        pictures = [portraits.render(one, camera, face=True)[0] for one in (portraits.neutral(latents), asked)]
        front, side = recogniser.embed(pictures)
        fronts.append(front)
        moved.append(side[None])
    return identity_of(np.stack(fronts), np.stack(moved))


@torch.inference_mode()
def roughness(portraits: Portraits, p: EvaluatePortraitParams) -> dict[str, Any]:
    """How far neighbouring samples of a portrait are torn apart on the way to the neutral pose.

    The distance of two neighbours across the picture's rows and columns after the deformation, over that before it: 1
    for a rigid motion. The 99th percentile, with D^p (``processed``) and by the nearest vertex alone (``nearest``).
    """
    net, config = portraits.net, portraits.config
    side = portraits.sides["portrait"]
    values: dict[str, list[float]] = {"processed": [], "nearest": []}
    for number in range(p.bodies):
        latents, label = portraits.characters([p.seed * 1_000_003 + number])
        body, portrait = portraits.body(latents), portraits.portrait_camera(label)
        points, _, _ = net.sample_rays(portrait, config.portrait_view, side)
        lookup = net.pose.lookup(body)
        plain = apply_transforms(lookup.at(points.flatten(1, 3)), points.flatten(1, 3)).view_as(points)
        found = {"nearest": plain, "processed": net.pose(points, lookup)}
        for name, moved in found.items():
            ratios = []
            for axis in (1, 2):
                before, after = points.diff(dim=axis).norm(dim=-1), moved.diff(dim=axis).norm(dim=-1)
                ratios.append((after / before.clamp_min(1e-9)).flatten())
            values[name].append(float(np.quantile(torch.cat(ratios).cpu().numpy(), 0.99)))
    return {name: intervals.mean(np.array(found)) for name, found in values.items()}


def _angles(asked: list[float], found: list[float]) -> dict[str, Any]:
    a, b = np.array(asked), np.array(found)
    error = np.abs((a - b + 180) % 360 - 180)
    return {"correlation": intervals.correlation(a, b), "error_degrees": intervals.mean(error)}


def _plain(value: float) -> float | None:
    return None if not np.isfinite(value) else float(f"{value:.6g}")


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """The few numbers that git keeps of a variant."""
    control_ = found["control"]
    return {
        **{f"{name}_{what}": found["distances"][what][name] for what in found["distances"]
           for name in ("fd_mobilenetv2", "fd_mobilenetv2_low", "kd_mobilenetv2")},
        "kd_interval": intervals.of_estimate(
            {"value": found["distances"]["whole"]["kd_mobilenetv2"], "se": found["distances"]["whole"]["kd_error"]}
        ),
        "faces_seen": control_["seen"]["mean"],
        "expression": control_["expression"]["mean"],
        "camera": control_["camera"]["correlation"]["mean"],
        "turn": control_["turn"]["correlation"]["mean"],
        "silhouette": found["silhouettes"]["asked"]["mean"],
        "silhouette_another": found["silhouettes"]["another"]["mean"],
        "expression_read": found["read"]["generated"]["mean"],
        "expression_read_photos": found["read"]["photos"]["mean"],
        "identity_auc": found["identity"]["auc"],
        "torn_processed": found["deformation"]["processed"]["mean"],
        "torn_nearest": found["deformation"]["nearest"]["mean"],
    }  # fmt: skip


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
