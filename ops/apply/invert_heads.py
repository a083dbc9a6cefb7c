"""A photo's head as a checkpoint of its own: tuned weights, styles, pictures and a video."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from models.headcache import HeadCache
from ops.apply.cameras import orbit, turntable
from ops.apply.generators import to_uint8
from ops.apply.heads import SYSTEM, Heads
from ops.apply.invert import Inversion, InversionParams, Target, invert
from ops.apply.photo import Portrait, read_portrait
from ops.apply.pictures import PANELS, grid
from ops.apply.video import film
from ops.evaluate.features import load_features
from ops.runtime.params import validate
from ops.runtime.progress import Reporter
from ops.runtime.publish import publish
from ops.store.pictures import encode_png
from ops.store.tar import file_sha256
from ops.train import checkpoint
from ops.train.checkpoint import Checkpoint

SIDES = (-60.0, -30.0, 0.0, 30.0, 60.0, 120.0, 180.0)  # views shown beside the photo; unpublished: our choice


def invert_heads(arguments: argparse.Namespace) -> int:
    """``lineament invert-heads``: find the head of a photo."""
    names = ("space", "steps", "tuning_steps", "mask")
    chosen = {name: getattr(arguments, name) for name in names}
    p = validate(InversionParams, chosen, "invert-heads")
    heads = Heads(arguments.checkpoint, arguments.device)
    network = load_features(arguments.weights).network
    portrait = read_portrait(arguments.photo, heads.resolution, arguments.weights)
    reporter = Reporter("invert-heads")

    def watch(steps: Iterable[int], what: str) -> Iterable[int]:
        return reporter.progress(steps, desc=what, unit="step")

    found = invert(heads, target_of(portrait, p), network, p, watch)
    with publish(arguments.out, folder=True) as folder:
        write(folder, heads, found, portrait, {"photo": file_sha256(arguments.photo), **p.model_dump(mode="json")})
        if arguments.frames:
            cache = HeadCache(found.net, found.styles, precision="half")
            frames = reporter.progress(turntable(arguments.frames).split(1), desc="video", unit="frame")
            film(heads, cache, frames, folder / "video.mp4", PANELS)
    print(
        f"{arguments.out}: the head of {arguments.photo}, loss {found.losses[0]:.3f} -> {found.losses[-1]:.3f}. "
        f"It is a checkpoint of its own: lineament video {arguments.out} OUT.mp4"
    )
    return 0


def target_of(portrait: Portrait, p: InversionParams) -> Target:
    """The portrait as tensors; with a mask where it is asked for."""
    picture = torch.from_numpy(portrait.crop).permute(2, 0, 1)[None].float() / 127.5 - 1
    mask = torch.from_numpy(portrait.mask)[None, None].float() / 255 if p.mask else None
    return Target(picture, torch.from_numpy(portrait.camera).float()[None], mask)


def write(folder: Path, heads: Heads, found: Inversion, portrait: Portrait, how: dict[str, object]) -> None:
    """Write an inversion: a loadable checkpoint with the styles, and ``inversion.png``.

    The picture shows the crop, the average head, the head of the styles alone, and the tuned one; below, its sides.
    """
    record = {key: value for key, value in heads.record.items() if key not in ("files", "format")}
    tensors = {"generator": dict(found.net.state_dict()), "styles": {"ws": found.styles}}
    checkpoint.write_into(
        folder,
        "config.json",
        Checkpoint(tensors, {**record, "system": SYSTEM, "inversion": {"of": heads.digest, **how}}),
    )
    (folder / "inversion.png").write_bytes(encode_png(sheet(heads, found, portrait.crop, portrait.camera)))


@torch.no_grad()
def sheet(heads: Heads, found: Inversion, crop: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """The stages of an inversion in the first row, sides of the result in the second."""
    label = torch.from_numpy(camera).float()[None].to(heads.device)
    tuned = HeadCache(found.net, found.styles, occupancy=None)
    first = [heads.cache(ws, occupancy=False).view(label) for ws in (found.average, found.styles)]
    shown = [to_uint8(output.image)[0] for output in (*first, tuned.view(label))]
    sides = [to_uint8(tuned.view(orbit(angle).to(heads.device)).image)[0] for angle in SIDES]
    blank = [np.full_like(crop, 255)] * (len(SIDES) - len(shown) - 1)
    return grid(np.stack([crop, *shown, *blank, *sides]), len(SIDES))
