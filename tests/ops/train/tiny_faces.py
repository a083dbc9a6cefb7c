"""Shards of faces with fits and of clips, for a tiny animatable prior: a project in which encoders can be trained."""

import json

import numpy as np
import torch
import yaml

from models.camera import intrinsics, pack_label, pose_on_sphere
from ops.store.pictures import encode_jpeg
from ops.store.tar import ShardWriter
from tests.ops.apply.tinyavatars import INVERSION, write_generator, write_priors

SIDE = 64
TRAINER = {
    "images": 8, "batch": 2, "device": "cpu", "threads": 1, "workers": 0, "log_every": 2, "checkpoint_every": 2,
    "snapshot_every": 4, "grid_rows": 2, "grid_columns": 6, "tensorboard": False, "ema": 0.5,
}  # fmt: skip
LIKENESS = {"perceptual": "none", "identity": "none"}
MODEL = json.loads(INVERSION.model_dump_json())
SECTIONS = {
    "train_latent_encoder": {
        "trainer": TRAINER, "model": MODEL,
        "objective": {"likeness": LIKENESS, "second_style": 4, "next_style": 2, "pool": 3, "r1_every": 2},
    },
    "train_image_encoders": {
        "trainer": TRAINER, "model": MODEL,
        "objective": {"likeness": LIKENESS, "adversarial_after": 4, "mapping_layers": 2, "r1_every": 1},
    },
    "train_recurrent": {
        "trainer": TRAINER, "model": {**MODEL, "later_frames": "head"},
        "objective": {
            "likeness": LIKENESS, "adversarial_after": 4, "mapping_layers": 2, "r1_every": 1, "together": 2,
            "longest": 4, "targets": 2, "unseen": 1, "held_out": 0.3,
        },
        "curve": {"frames": [1, 2, 4], "targets": 2, "orders": 1, "people": 1},
    },
}  # fmt: skip


def fit(rng):
    """Random codes before a camera near the front."""
    angle = torch.from_numpy(rng.normal(0, 0.2, 2)).float()
    return {
        "identity": rng.normal(0, 1, 80).tolist(),
        "expression": (rng.random(52) * 0.3).tolist(),
        "camera": pack_label(pose_on_sphere(angle[0], angle[1]), intrinsics(3.47)).tolist(),
        "residual": 1.0,
    }


def picture(rng):
    """Soft noise."""
    return encode_jpeg(np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8))


def write_faces(folder, count=6, fits=True):
    rng = np.random.default_rng(0)
    with ShardWriter(folder, per_shard=8) as writer:
        for number in range(count):
            found = fit(rng)
            record = {"camera": found["camera"], "fit": found} if fits else {"camera": found["camera"]}
            writer.add(f"{number:016x}", {"jpg": picture(rng), "json": json.dumps(record).encode()})


def write_clips(folder, count=3, frames=7):
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    with ShardWriter(folder, per_shard=2) as writer:
        for number in range(count):
            moves = [fit(rng) for _ in range(frames)]
            label = {"identity": moves[0]["identity"]} | {k: [m[k] for m in moves] for k in ("expression", "camera")}
            fields = {f"f{n:04d}.jpg": picture(rng) for n in range(frames)}
            writer.add(f"{number:016x}-0000", {**fields, "json": json.dumps(label).encode()})
    summary = {"samples": count, "frames": count * frames, "resolution": SIDE, "hash": f"clips {count}"}
    (folder / "dataset.json").write_text(json.dumps(summary))


def write_params(root, stage=None, **changes):
    """Parameters of all three stages; ``changes`` by part for one of them."""
    sections = dict(SECTIONS)
    if stage is not None:
        parts = sections[stage]
        sections[stage] = {**parts, **{k: {**parts[k], **v} for k, v in changes.items()}}
    (root / "params.yaml").write_text(yaml.safe_dump(sections))


def write_project(root):
    write_priors(root / "data/priors")
    write_generator(root / "data/checkpoints/avatar/avatar")
    write_faces(root / "data/shards/faces")
    write_clips(root / "data/shards/clips")
    write_params(root)
