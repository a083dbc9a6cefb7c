"""Cron lines, read strictly where they are declared: one wrong line would take all of Dagster's view down with it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_MACROS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, _MONTHS),
    (0, 7, _DAYS),
)


def checked(text: str) -> str:
    """The line itself.

    Raises:
        ValueError: it is no cron line of five fields.
    """
    fields = text.split()
    good = len(fields) == 5 and all(_is_field(field, *limits) for field, limits in zip(fields, _FIELDS))
    if not good and text not in _MACROS:
        raise ValueError("no cron line; write five fields, minute hour day month weekday, e.g. '0 3 * * *' for 3 a.m.")
    return text


def _is_field(text: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    for part in text.split(","):
        match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d{1,2}))?", part)
        if match is None or (match[3] is not None and (int(match[3]) == 0 or (match[1] and not match[2]))):
            return False
        if match[1]:
            first = _number(match[1], low, names)
            last = first if match[2] is None else _number(match[2], low, names)
            if first is None or last is None or not low <= first <= last <= high:
                return False
    return True


def _number(text: str, low: int, names: tuple[str, ...]) -> int | None:
    if text.isdigit():
        return int(text)
    return names.index(text.lower()) + low if text.lower() in names else None


Cron = Annotated[str, AfterValidator(checked)]
