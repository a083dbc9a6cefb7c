"""The measures of InvertAvatar's tables and figures, as protocols ask for them (:mod:`ops.evaluate.measures`).

What the papers measured on clips of HDTF and VFHQ is measured here on held-out people of the studio. Numbers bear the
names of the networks that made them, and how many pictures they are of.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from ops.apply.avatars import Prior, load_prior
from ops.apply.inverters import load_inverter
from ops.apply.saved_avatars import find_prior
from ops.evaluate import avatar_prior
from ops.evaluate.avatar_faces import Judge
from ops.evaluate.avatar_measure import LATENT_ONLY, Method, by_frames, cross_identity, same_identity
from ops.evaluate.avatar_takes import Take, studio_takes
from ops.evaluate.backbones import load_backbone
from ops.evaluate.features import load_features
from ops.evaluate.identity import load_recogniser
from ops.evaluate.measures import Number, Rows, Setting, number_of
from ops.evaluate.protocol import Protocol
from ops.store.reader import ShardDataset
from ops.train.export import read_config

CLIPS, SHORTEST = 100, 12  # section 4.2.3: 100 clips; the fewest frames that are a clip here
COUNTS = (1, 2, 4, 8, 16, 32)  # figures 6 and 12


def avatar(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> Rows:
    """Tables 1 and 5."""
    backbone, judge = load_backbone(setting.backbone, setting.weights, setting.device), _judge(setting)
    identities = max(2, min(100, setting.samples // 4))
    motions = max(2, min(100, setting.samples // identities))
    rows: Rows = {}
    for row, folder in checkpoints.items():
        prior = load_prior(folder, setting.priors, setting.device)
        faces = avatar_prior.read_faces(ShardDataset(setting.shards), setting.samples, prior.config.resolution)
        distances = avatar_prior.distances(prior, faces, backbone, setting.samples, protocol.seed)
        moved = avatar_prior.motion(prior, faces, judge, identities, motions, protocol.seed)
        rows[row] = {name: _estimated(found) for name, found in distances.items()}
        rows[row] |= {name: number_of(moved[name]) for name in ("akd", judge.csim)}
        rows[row]["parameters"] = Number(float(moved["parameters"]), None, None, 1)
    return rows


def reenactment(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> Rows:
    """Table 2: driven by the same person, and by another."""
    rows: Rows = {}
    for row, method, takes, judge, tests in _each(protocol, checkpoints, setting):
        same, cross = (drive(method, takes, judge, tests) for drive in (same_identity, cross_identity))
        rows[row] = {name: number_of(found) for name, found in same.items() if name != "faces"}
        rows[row] |= {f"cross_{name}": number_of(cross[name]) for name in (judge.csim, "akd") if name in cross}
    return rows


def frames(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> Rows:
    """Table 3: two frames and four."""
    rows: Rows = {}
    for row, method, takes, judge, tests in _each(protocol, checkpoints, setting):
        found = by_frames(method, takes, judge, (2, 4), tests, protocol.seed)["ordered"]
        rows[row] = {
            f"{name}_{count}": number_of(value)
            for count, values in found.items()
            for name, value in values.items()
            if name not in ("l1", "gaze", "faces", "psnr_gain")
        }
    return rows


def frame_curve(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> Rows:
    """Figures 6 and 12: the perceptual distance by the number of frames, in order and not."""
    rows: Rows = {}
    for row, method, takes, judge, tests in _each(protocol, checkpoints, setting):
        rows[row] = {
            f"{name}_{order}_{count}": number_of(value)
            for order, entries in by_frames(method, takes, judge, COUNTS, tests, protocol.seed, True).items()
            for count, values in entries.items()
            for name, value in values.items()
            if name.startswith(("perceptual", "lpips"))
        }
    return rows


def reconstruction(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> Rows:
    """Table 4: pictures of the data inverted and drawn again."""
    backbone, judge = load_backbone(setting.backbone, setting.weights, setting.device), _judge(setting)
    rows: Rows = {}
    for row, folder in checkpoints.items():
        method = _method(protocol, row, folder, setting)
        faces = avatar_prior.read_faces(ShardDataset(setting.shards), setting.samples, method.prior.config.resolution)
        found = avatar_prior.reconstruct(method.build, faces, judge, backbone)
        rows[row] = {name: _estimated(value) if "value" in value else number_of(value) for name, value in found.items()}
    return rows


def _each(protocol: Protocol, checkpoints: dict[str, Path], setting: Setting) -> list[Any]:
    """Row, method, clips, judge and frames of each clip that judge, which are ``samples`` together."""
    clips = max(2, min(CLIPS, setting.samples // 8))
    tests = max(1, setting.samples // clips)
    each = []
    for row, folder in checkpoints.items():
        method = _method(protocol, row, folder, setting)
        length = max(SHORTEST, min(300, 3 * tests))
        takes = _takes(clips, length, method.prior.config.resolution, setting.weights)
        each.append((row, method, takes, _judge(setting), tests))
    return each


@lru_cache(maxsize=2)
def _takes(clips: int, frames: int, side: int, weights: Path) -> list[Take]:
    return studio_takes(clips, frames, side, weights)


@lru_cache(maxsize=2)
def _judge(setting: Setting) -> Judge:
    recogniser = "arcface_ir50" if setting.backbone == "arcface_ir50" else "dlib_128d"
    features = load_features(setting.weights, device=setting.device)
    return Judge(setting.weights, features, load_recogniser(recogniser), setting.device)  # type: ignore[arg-type]


def _method(protocol: Protocol, row: str, folder: Path, setting: Setting) -> Method:
    latent_only = protocol.variants.get(row, "").endswith(f"#{LATENT_ONLY}")
    prior = _prior(folder, setting)
    return Method(row, prior, load_inverter(prior, folder), latent_only)


def _prior(folder: Path, setting: Setting) -> Prior:
    """The generator that encoders belong to, which lies beside them."""
    made_by = {"digest": read_config(folder)["prior"], "variant": "avatar"}
    return load_prior(find_prior(made_by, folder, folder.parent / "avatar"), setting.priors, setting.device)


def _estimated(found: dict[str, Any]) -> Number:
    value = float("nan") if found["value"] is None else found["value"]
    low, high = (None, None) if found["se"] is None else (value - 1.96 * found["se"], value + 1.96 * found["se"])
    return Number(value, low, high, found["samples"][0], found["note"])
