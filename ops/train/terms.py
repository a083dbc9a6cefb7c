"""How each loss of a training went from its beginning to its end, and what can be asked of it.

Not all losses can be asked to fall. One that starts at its least, because the network starts as the very thing that
the loss wants, can only rise at first: it has to come down from its peak again. And each loss of a game against
discriminators is the other side's gain: of those nothing is asked.

Where the loss of a batch depends on who was drawn, a reference beside it (what a network that has learnt nothing would
give on the same people) takes that chance out: their ratio is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

import numpy as np

SHARE = 0.2  # of the rows that are averaged at the beginning, at the end, and in between for the peak; our choice

Rule = Literal["falls", "comes down", "game"]
PORTRAIT: Mapping[str, Rule] = {
    "landmarks": "falls",
    "imitation": "falls",
    "shape": "falls",
    "consistency": "falls",
    "minimal": "comes down",  # D^e starts as no deformation at all: exactly 0
    "expression_smooth": "comes down",  # likewise
    "pose_smooth": "comes down",  # D^p starts as the average that the loss wants: exactly 0
    "generator_*": "game",
    "discriminator_*": "game",
}
UNTAUGHT = "_untaught"  # behind a loss's name: its reference


@dataclass(frozen=True)
class Course:
    """How a loss went: means over the first, the highest and the last rows, of the ratio where there is a reference.

    Attributes:
        relative: whether it is the ratio to the reference.
    """

    name: str
    rule: Rule
    relative: bool
    first: float
    peak: float
    last: float

    @property
    def passed(self) -> bool:
        """Whether it did what can be asked of it."""
        below = {"falls": self.first, "comes down": self.peak, "game": np.inf}
        return bool(self.last < below[self.rule])

    def words(self) -> str:
        """In a few words."""
        what = f"{self.name}, of an untaught network's," if self.relative else self.name
        if self.rule == "comes down":
            verdict = "came down again" if self.passed else "has not come down"
            return f"{what} {verdict}: 0 before training, {self.peak:.3g} at its highest, {self.last:.3g}"
        verdict = "is a game's" if self.rule == "game" else "fell" if self.passed else "did not fall"
        return f"{what} {verdict}: {self.first:.3g} to {self.last:.3g}"


def courses(curves: Mapping[str, np.ndarray], rules: Mapping[str, Rule]) -> list[Course]:
    """How the losses went, in the order of the rules; those that were never in force are left out.

    Args:
        curves: columns of a ``curves.csv``.
        rules: of each loss, by its name or a pattern of names.
    """
    found = []
    for pattern, rule in rules.items():
        for name in sorted(name for name in curves if fnmatch(name, pattern)):
            values, beside = curves[name], curves.get(name + UNTAUGHT)
            if beside is not None:
                values = values / beside
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            count = max(1, round(SHARE * len(values)))
            means = np.convolve(values, np.full(count, 1 / count), "valid")
            first, peak, last = float(means[0]), float(means.max()), float(means[-1])
            found.append(Course(name, rule, beside is not None, first, peak, last))
    return found
