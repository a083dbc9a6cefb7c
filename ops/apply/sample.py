"""Pictures of heads by seed: stills from chosen cameras, and all of them as one grid."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from ops.apply.cameras import orbit
from ops.apply.heads import Heads
from ops.apply.pictures import grid, panels, write_png
from ops.runtime.progress import Reporter


def sample(arguments: argparse.Namespace) -> int:
    """``lineament sample``: one PNG an identity and camera, and ``grid.png`` with a row an identity."""
    heads, out = Heads(arguments.checkpoint, arguments.device), Path(arguments.out)
    seeds, azimuths = arguments.seeds, arguments.azimuths
    labels = torch.cat([orbit(azimuth, arguments.elevation, arguments.radius) for azimuth in azimuths])
    rows = []
    for seed in Reporter("sample").progress(seeds, unit="head"):
        ws = heads.styles(heads.latent(seed), arguments.truncation, arguments.cutoff)
        shown = []
        for output, part in zip(heads.views(ws, labels, arguments.precision), labels.split(heads.batch)):
            shown.append(panels(output, part, arguments.show, heads.resolution))
        pictures = np.concatenate(shown)
        for azimuth, picture in zip(azimuths, pictures):
            write_png(out / f"seed{seed:04d}_azimuth{azimuth:+04.0f}.png", picture)
        rows.append(pictures)
    write_png(out / "grid.png", grid(np.concatenate(rows), len(azimuths)))
    print(f"{len(seeds) * len(azimuths)} pictures and grid.png in {out}")
    return 0
