"""Control strips: one property of a character varies along a row, all others stay (AniPortraitGAN, Figure 3)."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from models.portrait import Latents
from ops.apply.pictures import grid, write_png
from ops.apply.portraits import Portraits
from ops.runtime.progress import Reporter

PROPERTIES = ("identity", "expression", "pose", "camera", "noise")
AZIMUTHS = 40.0  # degrees to either side that a row of cameras spans; unpublished: our choice


def strips(arguments: argparse.Namespace) -> int:
    """``lineament strips``: a row a property, the same character in the first column of each."""
    portraits = Portraits(arguments.checkpoint, arguments.priors, arguments.device, arguments.precision)
    rows = draw_strips(portraits, arguments.seed, arguments.columns, arguments.face, arguments.truncation)
    write_png(arguments.out, grid(np.concatenate(rows), arguments.columns))
    print(f"{arguments.out}: from top to bottom {', '.join(PROPERTIES)} vary, all else stays")
    return 0


def draw_strips(
    portraits: Portraits, seed: int, columns: int, face: bool = False, truncation: float = 0.7
) -> list[np.ndarray]:
    """(columns, R, R, 3) uint8 pictures for each of PROPERTIES."""
    own, label = portraits.characters([seed])
    others, _ = portraits.characters([seed + 1 + n for n in range(columns - 1)])
    rows = []
    for name in Reporter("strips").progress(PROPERTIES, unit="strip"):
        latents, labels = vary(portraits, own, others, label, name)
        rows.append(portraits.render(latents, labels, face, truncation))
    return rows


def vary(portraits: Portraits, own: Latents, others: Latents, label: Tensor, name: str) -> tuple[Latents, Tensor]:
    """One character as often as there are others and once more, with one property taken from each of them.

    Args:
        own: (1) the character. others: (N) whose property is lent. label: (1, 25) its camera.
        name: one of PROPERTIES.

    Returns:
        (N + 1) characters and cameras, the first unchanged.
    """
    count = len(others.identity) + 1
    same = Latents(*(part.expand(count, *[-1] * (part.ndim - 1)) for part in vars(own).values()))
    labels = label.expand(count, -1)
    if name == "camera":
        swing = torch.linspace(-AZIMUTHS, AZIMUTHS, count).tolist()
        return same, torch.cat([label, *(portraits.camera(azimuth) for azimuth in swing[1:])])
    return replace(same, **{name: torch.cat([getattr(own, name), getattr(others, name)])}), labels
