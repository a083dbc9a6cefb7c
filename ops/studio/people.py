"""Who stands before the camera: identities with their colours, hair and clothes, drawn from a seed.

Every draw is a function of (seed, identity number) alone, so pictures do not depend on the order they are made in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.parametric.anny import Anny
from models.parametric.population import draw_code, draw_traits

STYLES = (
    "bald",
    "buzz",
    "receding",
    "crop",
    "side_part",
    "slick_back",
    "curly",
    "afro",
    "bob",
    "fringe_bob",
    "long",
    "wavy",
    "ponytail",
    "bun",
)
# How often each style is worn by men and by women; unpublished: our choice.
_WORN = {
    "men": (0.08, 0.13, 0.08, 0.20, 0.17, 0.10, 0.09, 0.04, 0.01, 0.0, 0.03, 0.04, 0.01, 0.02),
    "women": (0.01, 0.01, 0.0, 0.05, 0.05, 0.04, 0.07, 0.05, 0.13, 0.10, 0.17, 0.16, 0.09, 0.07),
}
# Linear-light albedo; unpublished: our choice, close to measured skin from fair to dark.
_SKIN = np.array(
    [[0.80, 0.53, 0.41], [0.69, 0.42, 0.29], [0.53, 0.29, 0.175], [0.31, 0.155, 0.088], [0.13, 0.060, 0.036]]
)
_HAIR = {
    "black": (0.012, 0.010, 0.009),
    "dark_brown": (0.035, 0.020, 0.013),
    "brown": (0.085, 0.045, 0.025),
    "light_brown": (0.16, 0.095, 0.05),
    "blond": (0.36, 0.25, 0.12),
    "red": (0.22, 0.07, 0.025),
    "grey": (0.27, 0.26, 0.25),
    "white": (0.58, 0.57, 0.55),
}
_IRIS = {
    "dark_brown": (0.035, 0.017, 0.009),
    "brown": (0.11, 0.05, 0.02),
    "hazel": (0.17, 0.11, 0.04),
    "green": (0.12, 0.17, 0.08),
    "blue": (0.11, 0.20, 0.34),
    "grey": (0.20, 0.24, 0.27),
}
_GLASSES = 0.2  # share of people who wear them; unpublished: our choice
_FRAME = (
    (0.012, 0.012, 0.013),
    (0.012, 0.012, 0.013),
    (0.10, 0.045, 0.02),
    (0.20, 0.19, 0.17),
    (0.30, 0.20, 0.07),
    (0.16, 0.02, 0.03),
)
GARMENTS = ("crew", "v_neck", "scoop", "turtleneck", "shirt")


@dataclass(frozen=True)
class Person:
    """One identity: everything that stays the same from picture to picture. Colours are linear-light RGB."""

    number: int
    code: np.ndarray  # (identity_size,) identity of the parametric model
    skin: np.ndarray
    blush: float
    freckles: float
    stubble: float
    lips: np.ndarray
    iris: np.ndarray
    brows: np.ndarray
    brow_weight: float
    hair: np.ndarray
    style: str
    parting: float  # -1 ... 1, to the subject's left
    volume: float
    length: float
    beard: float  # strand length, world units; 0 for none
    garment: str
    cloth: np.ndarray
    cloth_second: np.ndarray
    pattern: str
    glasses: str  # the shape of the frame; empty for none
    frame: np.ndarray
    dark_lenses: bool


def stream(seed: int, *numbers: int) -> np.random.Generator:
    """The random stream that belongs to a seed and a place in the studio's plan."""
    return np.random.default_rng([seed, *numbers])


def draw_person(seed: int, number: int, model: Anny) -> Person:
    """The identity of this number."""
    rng = stream(seed, 1, number)
    traits = draw_traits(rng)
    woman, age, origin = traits
    code = draw_code(rng, model, traits)
    melanin = float(np.clip(origin @ [0.86, 0.36, 0.14] + rng.normal(0, 0.09), 0, 1))
    skin = _ramp(_SKIN, melanin) * rng.uniform(0.93, 1.07) * (1 + rng.normal(0, 0.025, 3))
    hair_name = _hair_name(rng, melanin, age)
    hair = np.array(_HAIR[hair_name]) * np.exp(rng.normal(0, 0.15))
    style = str(rng.choice(STYLES, p=_WORN["women" if woman else "men"]))
    red = np.array([1.04, 0.55, 0.55])
    made_up = woman and rng.random() < 0.45
    lips = skin * red * (0.86 if not made_up else 0.75)
    if made_up:
        lips = 0.5 * lips + 0.5 * np.array([rng.uniform(0.30, 0.55), rng.uniform(0.03, 0.10), rng.uniform(0.05, 0.13)])
    irises = list(_IRIS)
    light_eyed = np.clip(1.1 - 2.6 * melanin, 0.02, 1)
    weights = np.array([0.3, 0.3, 0.14 * light_eyed, 0.14 * light_eyed, 0.4 * light_eyed, 0.2 * light_eyed])
    cloth, second = _cloth_colours(rng)
    while np.abs(np.log(cloth / skin)).max() < 0.6:  # nobody wears their own skin
        cloth, second = _cloth_colours(rng)
    return Person(
        number=number,
        code=code,
        skin=skin,
        blush=float(rng.uniform(0.4, 1.0)),
        freckles=float(rng.uniform(0.3, 1.0) if melanin < 0.35 and rng.random() < 0.25 else 0.0),
        stubble=0.0 if woman else float(np.clip(rng.normal(0.3, 0.3), 0, 1)),
        lips=np.clip(lips, 0.01, 1),
        iris=np.array(_IRIS[str(rng.choice(irises, p=weights / weights.sum()))]) * rng.uniform(0.8, 1.25),
        brows=hair * 0.75 if hair_name not in ("white", "grey") else np.array(_HAIR["grey"]) * 0.6,
        brow_weight=float(rng.uniform(0.7, 1.0) if not woman else rng.uniform(0.5, 0.9)),
        hair=hair,
        style=style,
        parting=float(rng.choice([-1, 1]) * rng.uniform(0.15, 0.6)) if rng.random() < 0.7 else 0.0,
        volume=float(rng.uniform(0.75, 1.25)),
        length=float(rng.uniform(0.8, 1.2)),
        beard=0.0 if woman or rng.random() > 0.3 else float(rng.uniform(0.012, 0.055)),
        garment=str(rng.choice(GARMENTS)),
        cloth=cloth,
        cloth_second=second,
        pattern=str(rng.choice(["plain", "plain", "stripes", "checks", "knit"])),
        glasses=str(rng.choice(["round", "rectangle", "oval", "cat", "square"])) if rng.random() < _GLASSES else "",
        frame=np.array(_FRAME[rng.integers(len(_FRAME))]) * rng.uniform(0.7, 1.3),
        dark_lenses=bool(rng.random() < 0.12),
    )


def _ramp(colours: np.ndarray, place: float) -> np.ndarray:
    """Colour at ``place`` in [0, 1] along evenly spaced stops."""
    stops = np.linspace(0, 1, len(colours))
    return np.array([np.interp(place, stops, colours[:, channel]) for channel in range(3)])


def _hair_name(rng: np.random.Generator, melanin: float, age: float) -> str:
    if rng.random() < np.clip((age - 0.35) * 1.6, 0, 0.85):
        return str(rng.choice(["grey", "white"], p=[0.6, 0.4]))
    if melanin > 0.45:
        return str(rng.choice(["black", "dark_brown"], p=[0.75, 0.25]))
    if melanin > 0.28:
        return str(rng.choice(["black", "dark_brown", "brown"], p=[0.5, 0.35, 0.15]))
    return str(rng.choice(["dark_brown", "brown", "light_brown", "blond", "red"], p=[0.25, 0.25, 0.2, 0.2, 0.1]))


def _cloth_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A garment's two colours: mostly muted, at times strong, at times black or white."""
    hue, value = rng.random(), rng.uniform(0.05, 0.6)
    saturation = rng.choice([rng.uniform(0, 0.15), rng.uniform(0.2, 0.8)])
    colours = []
    for shift, scale in ((0.0, 1.0), (rng.choice([0.0, 0.5]), rng.choice([0.35, 2.0]))):
        phase = 2 * np.pi * (hue + shift + np.array([0, 1 / 3, 2 / 3]))
        colours.append(np.clip(value * scale * (1 + saturation * np.cos(phase)), 0.01, 0.8))
    return colours[0], colours[1]
