"""Stage evaluate_avatar: animatable heads and the avatars made of frames, as the paper's tables ask and against truth.

Generators: distances from the data, key points of the driver (AKD), identity, parameters. Encoders: the same person and
another one drive an avatar of one frame; avatars of more and more frames, in order and not; pictures drawn again. The
clips are the studio's, of people that no training has seen: so views that no frame showed and expressions are measured
against what is true. Times are no part of this; ``python -m benchmarks avatar`` has them.

python -m ops.evaluate.avatar data/checkpoints data/shards data/priors data/weights/embedded data/evaluation/avatar
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from ops.apply.avatars import Prior, load_prior
from ops.apply.cameras import orbit
from ops.apply.pictures import grid
from ops.apply.source import Frame
from ops.evaluate import avatar_prior, intervals
from ops.evaluate.avatar_faces import Judge
from ops.evaluate.avatar_measure import (
    Method,
    against_truth,
    by_frames,
    cross_identity,
    drawn,
    find_encoders,
    load_methods,
    pictures,
    same_identity,
)
from ops.evaluate.avatar_takes import RATE, Take, shard_takes, spread, studio_takes, untrained_clips
from ops.evaluate.features import load_features
from ops.evaluate.identity import load_recogniser
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.stage import Stage, stage
from ops.store.clips import encode_clip
from ops.store.pictures import encode_png, resize
from ops.store.reader import ShardDataset
from ops.train.export import CONFIG

MAIN = "avatar"  # the variant that encoders are trained on
SHOWN = 96  # pixels of a picture in strips
STRIP = 8  # pictures a row of strips at most
FILM, FILMED = 48, 128  # frames of the film at most, and pixels of its pictures


class EvaluateAvatarParams(Params):
    """How much is drawn. Defaults: the paper's numbers."""

    samples: int = Field(default=50_000, ge=8, description="heads for the distances")  # section 4.2.1
    identities: int = Field(default=100, ge=1, description="heads that are animated")  # section 4.2.1
    motions: int = Field(default=100, ge=2, description="faces that animate each")  # section 4.2.1
    clips: int = Field(default=100, ge=1, description="held-out clips of the studio")  # section 4.2.3
    clip_frames: int = Field(default=300, ge=12, description="of each")  # section 4.2.3
    shard_clips: int = Field(default=0, ge=0, description="clips of the data, too, of those held back in training")
    tests: int = Field(default=100, ge=1, description="frames of a clip that judge")  # section 4.2.3
    frames: tuple[int, ...] = (1, 2, 4, 8, 16, 32)  # figures 6 and 12
    unseen: tuple[float, ...] = (-30.0, 30.0)  # degrees to the sides; unpublished: our choice
    reconstructed: int = Field(default=1000, ge=8, description="pictures drawn again")  # table 4
    recogniser: Literal["dlib_128d", "arcface_ir50"] = "dlib_128d"
    side: int = Field(default=224, ge=32, description="pixels of the pictures that features are computed from")
    kd_subsets: int = Field(default=100, ge=2)  # Binkowski et al. 2018
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"


@stage("evaluate_avatar", EvaluateAvatarParams)
def main(
    s: Stage[EvaluateAvatarParams], checkpoints: Path, shards: Path, priors: Path, weights: Path, out: Path
) -> None:
    """Judge animatable heads and the avatars that encoders make of frames."""
    p = s.params
    torch.set_num_threads(1)  # sums depend on the number of threads
    device = ("cuda" if torch.cuda.is_available() else "cpu") if p.device == "auto" else p.device
    found = sorted(path.parent for path in (checkpoints / MAIN).glob(f"*/{CONFIG}"))
    if not found:
        raise LineamentError(f"{checkpoints / MAIN}: no checkpoint found. Train one first: dvc repro train_avatar.")
    generators = {folder.name: load_prior(folder, priors, device) for folder in found}
    backbone = load_features(weights, p.side, device)
    judge = Judge(weights, backbone, load_recogniser(p.recogniser), device)
    dataset = ShardDataset(shards / "faces")
    results: dict[str, Any] = {"generators": {}, "encoders": {}, "why_not": ""}
    sheets: dict[str, np.ndarray] = {}
    for name, prior in s.progress(list(generators.items()), desc="generators"):
        faces = avatar_prior.read_faces(dataset, max(p.samples, p.identities * p.motions), prior.config.resolution)
        results["generators"][name] = {
            "distances": avatar_prior.distances(prior, faces, backbone, p.samples, p.seed, p.kd_subsets),
            **avatar_prior.motion(prior, faces, judge, p.identities, p.motions, p.seed),
            "checkpoint": {key: prior.record.get(key) for key in ("variant", "step", "images", "data")},
            "same_data": prior.record.get("data") == dataset.hash,
        }
        sheets[f"heads_{name}"] = animated(prior, faces, p.seed)
    encoders = find_encoders(checkpoints)
    takes: list[Take] = []
    film: list[np.ndarray] = []
    if MAIN not in generators or not encoders:
        results["why_not"] = "no encoders have been trained; dvc repro train_recurrent trains them"
    else:
        prior = generators[MAIN]
        methods = load_methods(prior, encoders)
        side = prior.config.resolution
        takes = studio_takes(p.clips, p.clip_frames, side, weights, p.unseen)
        left = untrained_clips(shards / "clips", encoders) if p.shard_clips else []
        if len(left) < p.shard_clips:
            s.log(f"{shards / 'clips'}: {len(left)} clips were held back in training, {p.shard_clips} are wanted")
        takes += shard_takes(shards / "clips", left[-p.shard_clips :] if p.shard_clips else [], p.clip_frames, side)
        faces = avatar_prior.read_faces(dataset, p.reconstructed, side)
        for method in s.progress(methods, desc="encoders"):
            results["encoders"][method.name] = measure(method, takes, faces, judge, p)
        rows = driven(methods[0], takes)
        sheets["reenactment"] = reenactment(rows)
        film = [np.hstack([resize(image, FILMED) for image in moment]) for moment in zip(*rows[0])]
        sheets["frames"] = more_frames(methods[0], takes, p.frames)
    about = {**p.model_dump(mode="json"), "data": dataset.hash, "takes": [about_take(take) for take in takes]}
    about |= {"backbone_sha256": backbone.digest, "resize": backbone.rule, "identity": judge.csim}
    with publish(out, folder=True) as folder:
        text = json.dumps({"protocol": about, **results}, indent=2)
        (folder / "avatar.json").write_text(text + "\n", encoding="utf-8")
        for name, sheet in sheets.items():
            (folder / f"{name}.png").write_bytes(encode_png(sheet))
        if film:
            (folder / "reenactment.mp4").write_bytes(encode_clip(film, RATE))
    s.metrics(summary(results, judge))
    s.preview(next(sheets[name] for name in ("reenactment", f"heads_{MAIN}", *sheets) if name in sheets))


def measure(
    method: Method, takes: list[Take], faces: avatar_prior.Driving, judge: Judge, p: EvaluateAvatarParams
) -> dict[str, Any]:
    """All that is asked of one way from frames to avatars."""
    counts = (1,) if method.latent_only else p.frames
    return {
        "same": same_identity(method, takes, judge, p.tests),
        "cross": cross_identity(method, takes, judge, p.tests),
        "by_frames": by_frames(method, takes, judge, counts, p.tests, p.seed),
        "truth": against_truth(method, takes, judge, counts, p.tests),
        "reconstruction": avatar_prior.reconstruct(method.build, faces, judge, judge.backbone),
    }


def about_take(take: Take) -> dict[str, Any]:
    """What a reader must know of a clip."""
    return {"name": take.name, "frames": len(take.frames)}


def animated(prior: Prior, faces: avatar_prior.Driving, seed: int) -> np.ndarray:
    """The faces that drive in the first row; below, heads with their expressions and cameras (Figure 4)."""
    chosen = spread(range(len(faces.frames)), STRIP)
    rows = [np.asarray(faces.frames[n].picture) for n in chosen]
    for number in range(3):
        rows += [avatar_prior.render(prior, seed + number, faces.codes(n), orbit(0.0)) for n in chosen]
    return _sheet(rows, len(chosen))


def driven(method: Method, takes: list[Take]) -> list[list[list[np.ndarray]]]:
    """For each of two clips, frame by frame: its own pictures, the avatar of its first frame, and that of another
    person driven by it, if there is one."""
    found = []
    for number, take in enumerate(takes[:2]):
        frames, other = take.frames[:FILM], takes[(number + 1) % len(takes)]
        sources = [take] if other is take else [take, other]
        found.append([pictures(frames), *(drawn(method.build(source.frames[:1]), frames) for source in sources)])
    return found


def reenactment(clips: list[list[list[np.ndarray]]]) -> np.ndarray:
    """Some moments of what :func:`driven` drew, one below the other."""
    columns = min(STRIP, *(len(row) for clip in clips for row in clip))
    return _sheet([image for clip in clips for row in clip for image in spread(row, columns)], columns)


def more_frames(method: Method, takes: list[Take], counts: tuple[int, ...]) -> np.ndarray:
    """A frame that judges, the truth first, then drawn by avatars of 1, 2, 4 … frames (Figures 5 and 9)."""
    rows: list[np.ndarray] = []
    able = [count for count in counts if all(count <= len(take.split()[0]) for take in takes)]
    for take in takes[:3]:
        build, judged = take.split()
        frame: list[Frame] = [take.frames[judged[len(judged) // 2]]]
        rows += pictures(frame)
        for count in able:
            rows += drawn(method.build([take.frames[n] for n in spread(build, count)]), frame)
    return _sheet(rows, 1 + len(able))


def _sheet(images: list[np.ndarray], columns: int) -> np.ndarray:
    return grid(np.stack([resize(image, SHOWN) for image in images]), columns)


def summary(results: dict[str, Any], judge: Judge) -> dict[str, Any]:
    """The few numbers that git keeps."""
    generators = {
        name: {
            **{key: found["distances"][key]["value"] for key in found["distances"]},
            "kd_interval": next(
                (intervals.of_estimate(value) for key, value in found["distances"].items() if key.startswith("kd_")),
                None,
            ),
            "akd": found["akd"]["mean"],
            "akd_n": found["akd"]["n"],
            judge.csim: found[judge.csim]["mean"],
            "parameters": found["parameters"],
        }
        for name, found in results["generators"].items()
    }
    encoders = {}
    for name, found in results["encoders"].items():
        same, cross = found["same"], found["cross"]
        ordered = found["by_frames"]["ordered"]
        encoders[name] = {
            **{f"same_{key}": value["mean"] for key, value in same.items()},
            **{f"cross_{key}": value["mean"] for key, value in cross.items()},
            "psnr_by_frames": {count: row["psnr"]["mean"] for count, row in ordered.items()},
            "perceptual_by_frames": {count: row["perceptual_mobilenetv2"]["mean"] for count, row in ordered.items()},
            "few_shot": few_shot(ordered),
            "psnr_gain": _with_interval({n: row["psnr_gain"] for n, row in ordered.items() if "psnr_gain" in row}),
            "unseen_psnr": {count: row["mean"] for count, row in found["truth"]["unseen_psnr"].items()},
            "unseen_gain": _with_interval(found["truth"]["unseen_gain"]),
            "expression_error": found["truth"]["expression"]["mean"],
            "expression_floor": found["truth"]["expression_floor"]["mean"],
        }
    return {"generators": generators, "encoders": encoders}


def few_shot(ordered: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What is left of the perceptual distance with the most frames that were given, by which encoders are judged."""
    count = max(ordered, key=int)
    found = ordered[count]["perceptual_mobilenetv2"]
    return {"frames": int(count), "perceptual_mobilenetv2": found["mean"], "interval": found["interval"]}


def _with_interval(rows: dict[str, Any]) -> dict[str, Any]:
    return {count: {key: row[key] for key in ("mean", "interval", "n")} for count, row in rows.items()}


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
