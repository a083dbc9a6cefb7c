"""Phases and schedules: which settings hold, and which values weights and rates have, after so many images.

Everything is counted in real images seen, not in steps, so that a plan survives another batch size.
"""

from __future__ import annotations

import bisect
from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, model_validator

from ops.runtime.params import Params

Setting = bool | float | str


class Curve(Params):
    """A value over images seen, piecewise linear or piecewise constant.

    ``knots`` are (images, value) pairs in rising order. Before the first and after the last knot the value stays as it
    is there; a constant curve jumps at each knot.
    """

    kind: Literal["linear", "constant"] = "linear"
    knots: tuple[tuple[int, float], ...]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        places = [images for images, _ in self.knots]
        if not places:
            raise ValueError("a curve needs at least one knot")
        if places[0] < 0 or any(b <= a for a, b in pairwise(places)):
            raise ValueError(f"the knots' images should rise from 0 on, not {places}")
        return self

    def at(self, images: int) -> float:
        """The value after ``images`` images."""
        places = [place for place, _ in self.knots]
        after = bisect.bisect_right(places, images)
        if after == 0:
            return self.knots[0][1]
        left, low = self.knots[after - 1]
        if after == len(places) or self.kind == "constant":
            return low
        right, high = self.knots[after]
        return low + (high - low) * (images - left) / (right - left)


class Phase(Params):
    """A named stretch of training with settings of its own; ``images`` is its length, None for all the rest."""

    name: str
    images: int | None = None
    settings: dict[str, Setting] = Field(default_factory=dict)


class Plan(Params):
    """The declared phases, one after the other, and the curves that run through them.

    A curve named ``lr.<optimizer>`` sets that optimiser's learning rate; one named ``lr`` is the share of their own
    rates that all optimisers keep. All else is for the objective to read from ``Moment.settings``.
    """

    phases: tuple[Phase, ...] = ()
    curves: dict[str, Curve] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"two phases have the same name: {names}")
        for phase in self.phases[:-1]:
            if phase.images is None:
                raise ValueError(f"phase '{phase.name}' has no length, so the phases after it would never come")
        for phase in self.phases:
            if phase.images is not None and phase.images <= 0:
                raise ValueError(f"phase '{phase.name}' lasts {phase.images} images: it should be more than 0")
            odd = set(phase.settings) ^ set(self.phases[0].settings)
            if odd:
                raise ValueError(f"'{min(odd)}' is not set in all phases: '{names[0]}' and '{phase.name}' differ")
            twice = set(phase.settings) & set(self.curves)
            if twice:
                raise ValueError(f"'{min(twice)}' is both a setting of the phases and a curve")
        return self

    def at(self, images: int) -> tuple[str, dict[str, Setting]]:
        """The phase in force after ``images`` images ("all" without phases), and all settings and values.

        A last phase of a given length goes on after its end.
        """
        values: dict[str, Setting] = {name: curve.at(images) for name, curve in self.curves.items()}
        if not self.phases:
            return "all", values
        end = 0
        for phase in self.phases:
            end += phase.images or 0
            if phase.images is None or images < end:
                break
        return phase.name, {**phase.settings, **values}
