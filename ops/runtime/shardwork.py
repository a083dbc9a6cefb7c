"""Work shard by shard: a finished shard is kept under a key of all it depends on, and never made again.

The key is the hash of the input's bytes, the step's parameters and the step's code. Finished pieces lie in the stage's
work folder, outside the versioned outputs: a killed run goes on where it was, a refresh makes only what is new.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ops.runtime.errors import LineamentError
from ops.runtime.parallel import run_tasks
from ops.runtime.publish import publish
from ops.runtime.stage import Stage


@dataclass(frozen=True)
class Piece:
    """One piece of work.

    Attributes:
        name: readable, e.g. the shard's number; pieces of one stage have different names.
        identity: hash of the input's content.
        payload: what the function gets; picklable.
    """

    name: str
    identity: str
    payload: Any


def digest(*parts: object) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def code_hash(modules: Iterable[str]) -> str:
    """The hash of the source text of the named modules."""
    total = hashlib.sha256()
    for name in sorted(set(modules)):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise LineamentError(f"the module {name}, on which finished work depends, has no source file.")
        total.update(Path(spec.origin).read_bytes())
    return total.hexdigest()[:24]


def run_pieces(
    s: Stage[Any],
    pieces: Iterable[Piece],
    function: Callable[[Any, Path], None],
    *,
    code: Sequence[str] = (),
    loads: Sequence[str] = (),
    suffix: str = "",
    workers: int | None = None,
    unit: str = "shard",
    total: int | None = None,
) -> list[Path]:
    """Do every piece that is not done yet; return the results' paths in the order of ``pieces``.

    Args:
        s: the stage; its parameters are part of every key.
        pieces: the work; a generator is asked for the next piece when its turn has come, so that none but those under
            way are in memory.
        function: picklable; ``function(payload, path)`` writes its result, a file or a folder, to ``path``.
        code: names of modules whose text is part of every key, besides the function's own.
        loads: names of modules that the function loads when it is called: the workers are given them at their start.
        suffix: of the result files, e.g. ``.parquet``.
        workers: processes; see ops.runtime.parallel.
        unit: what a piece is called on the progress bar.
        total: at most so many pieces will come, where ``pieces`` is a generator.

    Raises:
        LineamentError: from the function, or when a worker died. Pieces that were finished stay finished.
    """
    origin = function.func if isinstance(function, partial) else function
    version = digest(s.params.model_dump(mode="json"), code_hash([origin.__module__, *code]))
    done = s.work / "pieces"
    paths: list[Path] = []
    skipped = 0

    def todo() -> Iterator[tuple[Any, Path]]:
        nonlocal skipped
        for piece in pieces:
            path = done / f"{piece.name}-{digest(piece.identity, version)}{suffix}"
            paths.append(path)
            if path.exists():
                skipped += 1
            else:
                yield piece.payload, path

    def ticks() -> Iterator[None]:
        """One for each piece, those that earlier runs did among them."""
        told = 0
        for made, _ in enumerate(run_tasks(partial(_do, function), todo(), workers, loads), start=1):
            yield from itertools.repeat(None, made + skipped - told)
            told = made + skipped
        yield from itertools.repeat(None, len(paths) - told)

    for _ in s.progress(ticks(), total=len(pieces) if isinstance(pieces, Sequence) else total, desc=s.name, unit=unit):
        pass
    if skipped:
        s.log(f"{skipped} of {len(paths)} {unit}s were done already")
    _forget(done, set(paths))
    return paths


def _do(function: Callable[[Any, Path], None], item: tuple[Any, Path]) -> None:
    payload, path = item
    with publish(path) as temporary:
        function(payload, temporary)


def _forget(folder: Path, wanted: set[Path]) -> None:
    """Drop results of earlier parameters or inputs, so that the work area stays as large as one run."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in wanted and not path.name.startswith("."):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
