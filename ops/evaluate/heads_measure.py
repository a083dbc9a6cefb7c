"""What one head checkpoint draws, and the facts of its pictures; numbers are made of them in ops.evaluate.heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.spherehead import HeadOutput
from ops.apply.cameras import turntable
from ops.apply.generators import to_uint8
from ops.apply.heads import Heads
from ops.evaluate import consistency
from ops.evaluate.backbones import Backbone
from ops.evaluate.features import levels_of, load_features
from ops.evaluate.heads_views import RealHeads, azimuths_of, face_score, in_view, mask_facts, sharpness
from ops.evaluate.identity import load_recogniser
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.errors import LineamentError
from ops.store.pictures import resize
from ops.train import checkpoint

if TYPE_CHECKING:
    from ops.evaluate.heads import EvaluateHeadsParams

SPRITE_SIDE = 96  # pixels of a turntable's picture in the report; unpublished: our choice
FACE_ANGLES = (-45.0, 45.0)  # views whose identity is compared with the front; beyond, a recogniser sees no face


@dataclass(frozen=True)
class Work:
    """One piece of work: a checkpoint."""

    folder: Path
    real: Path
    weights: Path
    params: EvaluateHeadsParams


def measure(work: Work, out: Path) -> None:
    """Draw what evaluation needs of a checkpoint and write its facts, an ``npz``."""
    torch.set_num_threads(1)  # sums depend on the number of threads: one, wherever the piece is done
    use_fast_allocator()
    p = work.params
    device = ("cuda" if torch.cuda.is_available() else "cpu") if p.device == "auto" else p.device
    heads, backbone = Heads(work.folder, device), load_features(work.weights, p.side, device)
    real = RealHeads.load(work.real)
    found = {
        **draw_samples(heads, real, backbone, p),
        **look_around(heads, backbone, work.weights, p),
        **_snapshots(heads, backbone),
    }
    with out.open("wb") as file:
        np.savez(file, **found)  # type: ignore[arg-type]


def draw_samples(heads: Heads, real: RealHeads, backbone: Backbone, p: EvaluateHeadsParams) -> dict[str, np.ndarray]:
    """Features of pictures from the data's cameras, untruncated, as in training and in EG3D's FID."""
    rng = np.random.default_rng(p.seed)
    cameras = real.cameras[rng.integers(len(real.cameras), size=p.samples)].astype(np.float32)
    low, features = [], []
    for start in range(0, p.samples, heads.batch):
        part = torch.from_numpy(cameras[start : start + heads.batch]).to(heads.device)
        z = torch.cat([heads.latent(p.seed * 1_000_003 + start + i) for i in range(len(part))])
        with torch.inference_mode():
            output = heads.checked(heads.net(z, part, noise="const", jitter=False))
        first, last = levels_of(backbone, to_uint8(output.image))
        low.append(first)
        features.append(last)
    return {
        "sample_low": np.concatenate(low),
        "sample_features": np.concatenate(features),
        "sample_azimuths": azimuths_of(cameras),
    }


def look_around(heads: Heads, backbone: Backbone, weights: Path, p: EvaluateHeadsParams) -> dict[str, np.ndarray]:
    """Heads from all sides: facts for the artefact detectors, features, agreement of neighbouring views, sprites."""
    labels = turntable(p.views)
    azimuths = azimuths_of(labels.numpy())
    facts: dict[str, list[float]] = {name: [] for name in ("face_scores", "sharpness", "coverage", "pieces")}
    features, agreements, sprites, same = [], [], [], []
    fronts = []
    recogniser = load_recogniser("dlib_128d")
    front, back = (int(np.argmin(np.abs(np.abs(azimuths) - angle))) for angle in (0, 180))
    sides = [int(np.argmin(np.abs(azimuths - angle))) for angle in FACE_ANGLES]
    flips = []
    for number in range(p.objects):
        ws = heads.styles(heads.latent(p.seed * 1_000_003 + number), p.truncation)
        outputs = list(heads.views(ws, labels))
        images = np.concatenate([to_uint8(output.image) for output in outputs])
        masks = None if outputs[0].mask is None else torch.cat([o.mask for o in outputs if o.mask is not None])
        for view, image in enumerate(images):
            looked = view == front or in_view(azimuths, "back")[view]
            facts["face_scores"].append(face_score(image, weights) if looked else np.nan)
            facts["sharpness"].append(sharpness(image))
            coverage, pieces = mask_facts(None if masks is None else masks[view, 0].cpu().numpy() > consistency.SOLID)
            facts["coverage"].append(coverage)
            facts["pieces"].append(pieces)
        features.append(backbone.embed(images))
        flips.append(backbone.embed([np.ascontiguousarray(images[front][:, ::-1])])[0])
        agreements.append(_agreement(outputs, labels.to(heads.device)))
        embedded = recogniser.embed([images[front], *images[sides]])
        fronts.append(embedded[0])
        same.append(embedded[1:])
        if number < p.sprites:
            sprites.append(np.stack([resize(image, min(SPRITE_SIDE, heads.resolution)) for image in images]))
    return {
        **{f"view_{name}": np.array(values) for name, values in facts.items()},
        "view_azimuths": np.tile(azimuths, p.objects),
        "view_features": np.concatenate(features),
        "front_flipped": np.stack(flips),
        "front_back": np.array([front, back]),
        "agreement": np.array(agreements),
        "identity_front": np.stack(fronts),
        "identity_sides": np.stack(same),
        "sprites": np.stack(sprites),
    }


def _agreement(outputs: Sequence[HeadOutput], labels: Tensor) -> tuple[float, float, float]:
    """(depth, colour, seen) of every view with the next one around, pictures at the size of the depth."""
    depth = torch.cat([output.depth for output in outputs])
    side = depth.shape[-1]
    picture = torch.cat([F.interpolate(o.image.float(), (side, side), mode="area") for o in outputs])
    if outputs[0].mask is None:  # no mask: all that lies within the head's sphere counts
        solid = (depth - labels[:, 3:12:4].norm(dim=1).view(-1, 1, 1, 1)).abs() < 0.5
    else:
        solid = torch.cat([o.mask for o in outputs if o.mask is not None]) > consistency.SOLID
    partner = torch.arange(1, len(depth) + 1, device=depth.device) % len(depth)
    found = consistency.reproject(depth, picture, solid, labels, partner)
    return found.depth, found.colour, found.seen


def _snapshots(heads: Heads, backbone: Backbone) -> dict[str, np.ndarray]:
    """Features of the pictures that training kept at each snapshot, by number of pictures seen."""
    found = {}
    remedy = f"Restore it with `dvc checkout {heads.folder}`, or train again."
    for name in sorted(heads.record["files"]):
        if not name.startswith("snapshots/"):
            continue
        tensors = checkpoint.read_file(heads.folder, name, heads.record, remedy)
        step = int(Path(name).stem.removeprefix("step-"))
        if "images" not in tensors:
            raise LineamentError(f"{heads.folder / name}: holds no pictures. {remedy}")
        found[f"low_{step:09d}"], found[f"snapshot_{step:09d}"] = levels_of(backbone, tensors["images"].numpy())
    return found
