"""The animatable generators themselves (tables 1 and 5): distance to the data, motion, identity, parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops.apply.avatars import Prior
from ops.apply.cameras import orbit
from ops.apply.generators import to_uint8
from ops.apply.source import Frame
from ops.evaluate import intervals
from ops.evaluate.avatar_faces import Judge
from ops.evaluate.backbones import distance_name
from ops.evaluate.distances import frechet_between, kid
from ops.evaluate.features import Embeds, levels_of
from ops.runtime.errors import LineamentError
from ops.store.pictures import decode, resize
from ops.store.reader import ShardDataset
from ops.train.objectives.avatar import pose_of


@dataclass(frozen=True)
class Driving:
    """Fitted faces of the data, which say how generated ones are posed."""

    frames: list[Frame]
    hash: str

    def codes(self, n: int) -> list[Tensor]:
        """identity (1, 80), expression (1, 52) and camera (1, 25) of one of them."""
        frame = self.frames[n % len(self.frames)]
        known = (frame.identity, frame.expression, frame.camera)
        return [torch.from_numpy(np.asarray(code, np.float32))[None] for code in known]


def read_faces(dataset: ShardDataset, count: int, side: int) -> Driving:
    """At most ``count`` fitted faces, evenly over the data set.

    Raises:
        LineamentError: the shards hold no fits.
    """
    fitted = _fitted(dataset)
    if not fitted:
        raise LineamentError(f"{dataset.folder}: no face there has a fit; run `dvc repro shards_faces` again.")
    picks = np.linspace(0, len(fitted) - 1, min(count, len(fitted))).round().astype(int)
    return Driving([_face(dataset, fitted[n], side) for n in picks], dataset.hash)


@lru_cache(maxsize=2)
def _fitted(dataset: ShardDataset) -> list[int]:
    return [n for n in range(len(dataset)) if json.loads(dataset.read(n)["json"]).get("fit")]


def _face(dataset: ShardDataset, number: int, side: int) -> Frame:
    fields = dataset.read(number)
    fit = json.loads(fields["json"])["fit"]
    codes = {name: np.array(fit[name], np.float32) for name in ("identity", "expression", "camera")}
    return Frame(dataset.key(number), None, resize(decode(fields["jpg"]), side), **codes, residual=fit["residual"])


@torch.inference_mode()
def render(prior: Prior, seed: int, codes: list[Tensor], told: Tensor | None = None) -> np.ndarray:
    """(R, R, 3) uint8: the head of a seed with a face's identity code, expression and camera.

    ``told`` is the camera that styles depend on: the picture's own if None, as in training.

    Raises:
        LineamentError: it is not finite.
    """
    net = prior.generator
    z = torch.randn(1, net.config.mapping.z_size, generator=torch.Generator().manual_seed(seed))
    identity, expression, label = (code.to(prior.device) for code in codes)
    surface = pose_of(prior.mesh, identity, expression)
    told = label if told is None else told.to(label)
    image = net(z.to(prior.device), label, surface, conditioning=told, noise="const", jitter=False).image
    if not image.isfinite().all():
        raise LineamentError(f"{prior.folder}: draws values that are not finite; its training diverged.")
    return to_uint8(image)[0]


def distances(
    prior: Prior, faces: Driving, backbone: Any, samples: int, seed: int, subsets: int = 100
) -> dict[str, Any]:
    """Fréchet and kernel distance of generated heads, posed and seen as the data is, from the data."""
    real = levels_of(backbone, (np.asarray(frame.picture) for frame in faces.frames))
    fake = levels_of(backbone, _drawn(prior, faces, samples, seed))
    size = min(1000, len(real[1]), len(fake[1]))  # Binkowski et al. 2018
    fd, kd = frechet_between(fake[1], real[1]), kid(fake[1], real[1], subsets, size, seed)
    found = {
        distance_name("fd", backbone.name): _estimate(fd),
        distance_name("kd", backbone.name): _estimate(kd),
    }
    if real[0].size:
        found[distance_name("fd", backbone.name) + "_low"] = _estimate(frechet_between(fake[0], real[0]))
    return found


def _drawn(prior: Prior, faces: Driving, samples: int, seed: int) -> Iterator[np.ndarray]:
    return (render(prior, seed * 1_000_003 + n, faces.codes(n)) for n in range(samples))


def _estimate(estimate: Any) -> dict[str, Any]:
    return {
        "value": float(f"{estimate.value:.6g}") if np.isfinite(estimate.value) else None,
        "se": estimate.se,
        "samples": list(estimate.samples),
        "note": estimate.note,
    }


def motion(prior: Prior, faces: Driving, judge: Judge, identities: int, motions: int, seed: int) -> dict[str, Any]:
    """``identities`` heads animated by ``motions`` faces each: AKD to the driver, cosine within an identity.

    Section 4.2.1. An identity's style is told one camera, the frontal one, so that it is one head in all its pictures.
    """
    front, moved, same, owners = orbit(0.0), [], [], []
    for number in range(identities):
        chosen = [number * motions + n for n in range(motions)]
        shown = [render(prior, seed * 1_000_003 + number, faces.codes(n), front) for n in chosen]
        drivers = [np.asarray(faces.frames[n % len(faces.frames)].picture) for n in chosen]
        moved += judge.motion(drivers, shown)["akd"]
        owners += [number] * motions
        same.append(judge.consistency(shown) if motions > 1 else float("nan"))
    akd = intervals.mean(np.array(moved), np.array(owners))
    return {
        "akd": akd,
        "faces": intervals.share(akd["n"], len(moved)),
        judge.csim: intervals.mean(np.array(same)),
        "parameters": sum(p.numel() for p in prior.generator.parameters()),
    }


def reconstruct(build: Any, faces: Driving, judge: Judge, backbone: Embeds) -> dict[str, Any]:
    """Table 4: pictures of the data inverted and drawn again as they were; distances pair by pair and of the sets."""
    from ops.evaluate.avatar_faces import summarise
    from ops.evaluate.avatar_measure import drawn, pictures

    true = pictures(faces.frames)
    shown = [drawn(build([frame]), [frame])[0] for frame in faces.frames]
    pairs = {**judge.likeness(true, shown), **judge.identity(true, shown)}
    found = summarise([{name: [values[n]] for name, values in pairs.items()} for n in range(len(true))])
    real, fake = (levels_of(backbone, iter(p))[1] for p in (true, shown))
    return {**found, distance_name("fd", getattr(backbone, "name", "")): _estimate(frechet_between(fake, real))}
