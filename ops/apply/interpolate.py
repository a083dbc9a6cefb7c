"""From one head to another: stills in a row, or a video, through the latent space z or the style space w."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ops.apply.cameras import orbit, turntable
from ops.apply.heads import Heads, pictures
from ops.apply.pictures import Film, grid, panels, write_png
from ops.runtime.errors import LineamentError
from ops.runtime.progress import Reporter

Space = Literal["z", "w"]


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Along the great circle between the directions of two latents (1, D), lengths mixed; latents fill a shell."""
    cosine = (torch.nn.functional.normalize(a) * torch.nn.functional.normalize(b)).sum().clamp(-1, 1)
    angle = torch.acos(cosine)
    if torch.sin(angle) < 1e-4:
        return a.lerp(b, share)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)


def between(
    heads: Heads, seeds: Sequence[int], steps: int, space: Space, truncation: float, cutoff: int | None = None
) -> list[Tensor]:
    """Styles (1, w_count, w_size) from seed to seed, ``steps`` from each to the next, ends included once.

    Raises:
        LineamentError: fewer than two seeds, or no step.
    """
    if len(seeds) < 2 or steps < 1:
        raise LineamentError(f"interpolation needs two seeds or more and a step, not {len(seeds)} and {steps}.")
    latents = [heads.latent(seed) for seed in seeds]
    styles = [heads.styles(z, truncation, cutoff) for z in latents]
    found = []
    for number in range(len(seeds) - 1):
        for share in np.arange(steps) / steps:
            if space == "w":
                found.append(styles[number].lerp(styles[number + 1], float(share)))
            else:
                z = slerp(latents[number], latents[number + 1], float(share))
                found.append(heads.styles(z, truncation, cutoff))
    return [*found, styles[-1]]


def interpolate(arguments: argparse.Namespace) -> int:
    """``lineament interpolate``: a PNG with the steps in a row, or an mp4."""
    heads, out = Heads(arguments.checkpoint, arguments.device), arguments.out
    seeds = arguments.seeds
    moving = out.suffix == ".mp4"
    steps = arguments.steps or (48 if moving else 8)
    styles = between(heads, seeds, steps, arguments.space, arguments.truncation, arguments.cutoff)
    progress = Reporter("interpolate").progress
    still = orbit(arguments.azimuth, arguments.elevation, arguments.radius)
    if moving:
        labels = turntable(len(styles), arguments.elevation) if arguments.turn else still.expand(len(styles), -1)
        side = max(heads.resolution, 256)
        with Film(out, arguments.rate) as frames:
            for ws, label in progress(list(zip(styles, labels.split(1))), unit="frame"):
                for output in heads.views(ws, label):
                    frames.add(panels(output, label, arguments.show, side)[0])
        print(f"{len(styles)} frames in {out}")
        return 0
    images = np.concatenate([pictures(heads.views(ws, still)) for ws in progress(styles, unit="head")])
    write_png(out, grid(images, steps + 1 if len(seeds) == 2 else steps))
    print(f"{len(styles)} heads in {out}")
    return 0
