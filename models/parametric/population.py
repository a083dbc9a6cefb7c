"""Who may stand before a camera: the distribution of anny's identities that the project draws people from.

All numbers are unpublished: our choice, for plausible adults.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.parametric.anny import PHENOTYPES, Anny


class Traits(NamedTuple):
    """What an identity's colours and hair depend on too: age 0 young adult to 1 old; origin (3,) shares."""

    woman: bool
    age: float
    origin: np.ndarray  # african, asian, caucasian


def draw_traits(rng: np.random.Generator) -> Traits:
    """The traits of one person."""
    return Traits(rng.random() < 0.5, float(rng.beta(1.3, 2.2)), rng.dirichlet([0.45, 0.45, 0.6]))


def draw_code(rng: np.random.Generator, model: Anny, traits: Traits) -> np.ndarray:
    """(identity_size,) float32 code of one person with these traits."""
    phenotypes = {
        "gender": rng.uniform(0.82, 1.0) if traits.woman else rng.uniform(0.0, 0.18),
        "age": 0.60 + 0.36 * traits.age,
        "muscle": rng.uniform(0.38, 0.68),
        "weight": rng.uniform(0.34, 0.74),
        "height": rng.uniform(0.4, 0.62),
        "proportions": rng.uniform(0.4, 0.8),
        "cupsize": rng.uniform(0.3, 0.6),
        "firmness": rng.uniform(0.4, 0.7),
        "african": traits.origin[0],
        "asian": traits.origin[1],
        "caucasian": traits.origin[2],
    }
    # Local changes at full strength are caricatures; ears, eyes and neck bear less than the rest.
    spread = np.array(
        [0.10 if label.startswith(("ear", "eye-", "neck", "head-age")) else 0.20 for label in model.local_labels]
    )
    local = np.clip(rng.normal(0, 1, len(spread)), -2.2, 2.2) * spread
    # anny's lids are heavy at rest; people look into cameras with open eyes.
    local += np.array([0.30 if label.startswith(("eye-height", "eye-scale")) else 0.0 for label in model.local_labels])
    return np.concatenate([[phenotypes[name] for name in PHENOTYPES], local]).astype(np.float32)


def draw_codes(model: Anny, count: int, seed: int = 0) -> np.ndarray:
    """(count, identity_size) float32 codes of a crowd; the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    return np.stack([draw_code(rng, model, draw_traits(rng)) for _ in range(count)])
