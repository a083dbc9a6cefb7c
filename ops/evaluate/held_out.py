"""Heads that no source shows, from all sides: one person, one light, one expression, known from every camera.

The studio draws them from a seed of its own, so no training has seen them; and unlike photographs they can be looked at
from behind, which is what an inversion has to guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ops.apply.cameras import orbit
from ops.store.pictures import resize

SEED = 902_541  # of the held-out people; sources count theirs from 0. Unpublished: our choice


@dataclass(frozen=True)
class TrueHead:
    """One person from V cameras.

    Attributes:
        pictures: (V, S, S, 3) uint8; masks: (V, S, S) uint8, 255 for the person; parsings: (V, S, S) uint8.
        cameras: (V, 25) float32.
    """

    pictures: np.ndarray
    masks: np.ndarray
    parsings: np.ndarray
    cameras: np.ndarray


def held_out_heads(count: int, azimuths: Sequence[float], side: int, seed: int = SEED) -> list[TrueHead]:
    """``count`` people, each from the same azimuths (degrees) at the data's distance and focal length.

    Light and expression are one person's first view's; backgrounds are alike, as a camera before a screen sees them.
    """
    from ops.studio.crawl import Studio
    from ops.studio.params import StudioParams
    from ops.studio.render import photograph
    from ops.studio.scene import draw_view

    params = StudioParams(people=count, views=1, size=max(128, side), seed=seed, azimuth_front_share=1.0)
    studio, found = Studio(params), []
    for identity in range(count):
        view, avatar = draw_view(params, studio.model, identity, 0), studio.avatar(identity)
        cameras = np.concatenate([orbit(azimuth).numpy() for azimuth in azimuths])
        shots = [photograph(studio.model, avatar, replace(view, camera=camera)) for camera in cameras]
        parsings = [shot.parsing for shot in shots]
        step = params.size // side
        found.append(
            TrueHead(
                np.stack([resize(shot.picture, side) for shot in shots]),
                np.stack([resize(shot.mask, side) for shot in shots]),
                np.stack([p[step // 2 :: step, step // 2 :: step][:side, :side] for p in parsings]),
                cameras,
            )
        )
    return found
