"""Means of a run's numbers over a window of its steps, gathered on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ops.train import ddp


class Window:
    """Sums of named scalars since the last reading, on the device, so that logging does not hold the device up."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor], weight: float = 1.0, new: bool = True) -> None:
        """Add scalars; ``weight`` and ``new=False`` are for the second and later micro-batches of one step."""
        for name, value in values.items():
            term = value.detach().double() * weight
            self._sums[name] = self._sums[name] + term if name in self._sums else term
            self._counts[name] = self._counts.get(name, 0) + int(new)

    def means(self) -> dict[str, float]:
        """The means over the window and the ranks, by name in alphabetical order."""
        names = sorted(self._sums)
        if not names:
            return {}
        values = torch.stack([self._sums[name] / self._counts[name] for name in names])
        return dict(zip(names, ddp.mean(values).tolist()))

    def clear(self) -> None:
        """Begin a new window."""
        self._sums.clear()
        self._counts.clear()

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold for the window to go on exactly; means over the ranks."""
        names = sorted(self._sums)
        sums = ddp.mean(torch.stack([self._sums[n] for n in names])).tolist() if names else []
        return {name: [total, self._counts[name]] for name, total in zip(names, sums)}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from state()."""
        self._sums = {n: torch.tensor(total, dtype=torch.float64, device=device) for n, (total, _) in state.items()}
        self._counts = {name: int(count) for name, (_, count) in state.items()}
