"""What a command line takes: help that teaches, numbers within bounds, places that can be written.

Everything is looked at before any work begins, so that nobody waits a minute to hear of a slip of the keys.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

SEEDS = 2**62  # torch takes 64 bits with a sign; some commands count on from the seed
MOST_SEEDS = 10_000  # of one command; unpublished: our choice
MOST_FRAMES = 100_000  # of one video, an hour at 24 a second; unpublished: our choice
_EXAMPLES = "Examples:\n"


class Formatter(argparse.HelpFormatter):
    """Wraps text but leaves examples as they are typed."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


class Commands(argparse._SubParsersAction):
    """Sub-commands whose one line of help also stands at the head of their own page; they can be put in groups."""

    def add_parser(self, name: str, **kwargs: Any) -> Any:
        text = kwargs.get("help") or ""
        kwargs.setdefault("description", f"{text[:1].upper()}{text[1:]}{'' if text.endswith('?') else '.'}")
        return super().add_parser(name, **kwargs)

    def group(self, headings: Mapping[str, Sequence[str]]) -> None:
        """List the commands under headings; those in no group come last."""
        lines = {action.dest: action for action in self._choices_actions}
        self._choices_actions = []
        for heading, names in headings.items():
            self._choices_actions.append(self._ChoicesPseudoAction(f"\n  {heading}", (), ""))
            self._choices_actions += [lines.pop(name) for name in names]
        self._choices_actions += lines.values()


class CommandParser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and whose help ends with examples.

    Args:
        examples: lines by command (``sample``, ``source add``); sub-parsers share them.
    """

    examples: Mapping[str, Sequence[str]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": Formatter, **kwargs})
        self.register("action", "parsers", Commands)

    def format_help(self) -> str:
        lines = self.examples.get(self.prog.partition(" ")[2])
        if lines:
            self.epilog = _EXAMPLES + textwrap.indent("\n".join(lines), "  ")
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message)
        near = difflib.get_close_matches(wrong[1], re.findall("'([^']+)'", wrong[2]), n=1) if wrong else []
        if near:
            message = f"'{wrong[1]}' is not known. Did you mean '{near[0]}'?"  # type: ignore[index]
        print(f"error: {message.removeprefix('argument ')}\n`{self.prog} --help` says more.", file=sys.stderr)
        raise SystemExit(2)


def whole(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers from ``low`` to ``high``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text}' is no whole number from {low} to {high}.")
        return value

    return read


def number(low: float, high: float) -> Callable[[str], float]:
    """A reader of finite numbers from ``low`` to ``high``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text}' is no number from {low:g} to {high:g}.")
        return value

    return read


degrees = number(-360, 360)
seed = whole(0, SEEDS - 1)


def seeds(text: str) -> list[int]:
    """``0-3,7`` to [0, 1, 2, 3, 7].

    Raises:
        ArgumentTypeError: no such list, or a longer one than anybody wants.
    """
    found: list[int] = []
    for word in text.split(","):
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", word.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise argparse.ArgumentTypeError(f"'{text}' is no list of seeds; write 0-7 or 1,5,9.")
        if len(found) + last - first >= MOST_SEEDS:
            raise argparse.ArgumentTypeError(f"'{text}': more than {MOST_SEEDS:,} seeds; ask for fewer at a time.")
        found += range(first, last + 1)
    return found


def device(text: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:1``, if this machine has it."""
    if text == "cpu":
        return text
    match = re.fullmatch(r"cuda(?::(\d+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no device; write cpu, cuda or cuda:1.")
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(match[1] or 0) >= there:
        raise argparse.ArgumentTypeError(
            f"'{text}': PyTorch sees {there} GPUs here; use cpu, or see `lineament doctor`."
        )
    return text


def new_file(*endings: str) -> Callable[[str], Path]:
    """A reader of names of files to be written, with one of some endings; any if none is given."""

    def read(text: str) -> Path:
        path = Path(text)
        if endings and path.suffix.lower() not in endings:
            raise argparse.ArgumentTypeError(f"'{text}': its name must end in {' or '.join(endings)}.")
        if path.is_dir():
            raise argparse.ArgumentTypeError(f"'{text}' is a folder; name a file, which may lie in it.")
        return _writable(path)

    return read


def new_folder(text: str) -> Path:
    """The name of a folder to be written."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"'{text}' is a file; name a folder.")
    return _writable(path)


def _writable(path: Path) -> Path:
    place = path.absolute() if path.is_dir() else path.absolute().parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise argparse.ArgumentTypeError(f"'{path}': {place} is a file, so nothing can lie in it.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"'{path}': {place} cannot be written to; name another place.")
    return path
