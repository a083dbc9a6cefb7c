"""Rows of the benchmark table, and timing that compares two sides in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        name: what was measured, ``area/quantity``.
        value: the measurement.
        unit: of the value.
        reference: the same quantity for the plain or public side; None where there is none.
        ratio: how many times better than the reference; None where there is none.
        target: the bound the project set itself, in words.
        ok: whether the bound is met; None where nothing is demanded.
    """

    name: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    target: str = ""
    ok: bool | None = None

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(fast: Callable[[], object], reference: Callable[[], object], repeats: int = 5) -> tuple[float, float]:
    """Median seconds of both sides, run in turn so that a busy machine slows both alike; one warm-up each."""
    fast()
    reference()
    pairs = [(seconds(fast), seconds(reference)) for _ in range(repeats)]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def at_least(name: str, value: float, unit: str, bound: float, reference: float | None = None) -> Row:
    """A row whose value should be no less than ``bound``."""
    ratio = value / reference if reference else None
    return Row(name, value, unit, reference, ratio, f">= {bound:g} {unit}", value >= bound)


def at_most(name: str, value: float, unit: str, bound: float, reference: float | None = None) -> Row:
    """A row whose value should be no more than ``bound``."""
    ratio = reference / value if reference else None
    return Row(name, value, unit, reference, ratio, f"<= {bound:g} {unit}", value <= bound)


def speedup(name: str, fast: float, reference: float, bound: float) -> Row:
    """A row for a fast path against its plain reference, both in seconds: the ratio should reach ``bound``."""
    ratio = reference / fast
    return Row(name, fast, "s", reference, ratio, f">= {bound:g} x", ratio >= bound)
