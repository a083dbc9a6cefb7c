"""Files of numbers that the report reads: what is not there, damaged or of other code says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.report.page import Missing


class Record(dict[str, Any]):
    """A mapping out of a file. What it lacks is :class:`Missing`, by the file's name and the key's place in it: a file
    that older code wrote does not hold all that a page shows.

    Args:
        values: the mapping.
        file: its file's name.
        place: of the mapping in the file, "" for all of it.
    """

    def __init__(self, values: Mapping[str, Any], file: str, place: str = "") -> None:
        self.file, self.place = file, place
        super().__init__({key: _known(value, file, f"{place}{key}") for key, value in values.items()})

    def __missing__(self, key: str) -> Any:
        raise Missing(f"{self.file} lacks {self.place}{key}; dvc repro writes it anew if other code wrote it")

    def first(self) -> str:
        """The first key.

        Raises:
            Missing: there is none.
        """
        for key in self:
            return key
        raise Missing(f"{self.file} holds nothing in {self.place.rstrip('.') or 'it'}; dvc repro writes it anew")


def read_json(path: Path) -> Record:
    """A JSON mapping.

    Raises:
        Missing: there is none, or it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise Missing(f"{path.name} has not been made; dvc repro makes it") from None
    except ValueError as error:
        raise Missing(f"{path.name} is damaged ({error}); dvc checkout or dvc repro restores it") from None
    if not isinstance(found, dict):
        raise Missing(f"{path.name} holds no mapping")
    return Record(found, path.name)


def _known(value: Any, file: str, place: str) -> Any:
    if isinstance(value, dict):
        return Record(value, file, f"{place}.")
    if isinstance(value, list):
        return [_known(each, file, f"{place}.{number}") for number, each in enumerate(value)]
    return value
