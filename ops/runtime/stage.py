"""What makes a function a stage: a command line, typed parameters, progress, metrics, a preview, an exit code.

    @stage("screen", ScreenParams)
    def main(s: Stage[ScreenParams], raw: Path, out: Path, *, split: str = "train") -> None:
        '''Look at every raw picture and say which are fit for use.'''

    if __name__ == "__main__":
        raise SystemExit(main())

Positional ``Path`` arguments are read from the command line in order; keyword-only ones become options.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import inspect
import json
import os
import resource
import sys
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from ops.runtime import gpus
from ops.runtime.errors import LineamentError, in_words
from ops.runtime.launch import is_first, launched, running_module
from ops.runtime.params import Params, load_params
from ops.runtime.preflight import check_room
from ops.runtime.progress import Reporter
from ops.runtime.publish import publish

P = TypeVar("P", bound=Params)
T = TypeVar("T")

WORK = Path("data/.work")
PREVIEW_WIDTH = 1200
INTERRUPTED = 130  # the shell's code for Ctrl-C


class Stage(Generic[P]):
    """One run of one stage.

    Attributes:
        name: the stage's name, as in ``dvc.yaml``.
        params: its typed parameters.
        params_file: where they were read, for a stage that looks at the declared sources too.
        work: a folder that outlives a killed run; finished pieces of work are kept there.
    """

    def __init__(self, name: str, params: P, key: str = "default", params_file: Path = Path("params.yaml")) -> None:
        self.name = name
        self.params = params
        self.params_file = params_file
        self.work = WORK / name / key
        self.reporter = Reporter(name)
        self._metrics: dict[str, Any] = {}
        self._preview: np.ndarray | None = None

    def log(self, message: str) -> None:
        """One line to the terminal and to the Dagster UI."""
        self.reporter.log(message)

    def progress(self, items: Iterable[T], total: int | None = None, desc: str = "", unit: str = "it") -> Iterator[T]:
        """The items, with a progress bar on a terminal and an occasional line elsewhere."""
        return self.reporter.progress(items, total, desc, unit)

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Small numbers about the result, written to ``--metrics`` at the end. No timings: the file is versioned."""
        self._metrics.update(values)

    def preview(self, image: np.ndarray) -> None:
        """A picture (H, W, 3) uint8 for ``--preview``: what a person would want to see of this stage's result."""
        self._preview = image

    def write_reports(self, metrics: Path | None, preview: Path | None) -> None:
        """Write what metrics() and preview() were given."""
        if metrics is not None:
            with publish(metrics) as path:
                path.write_text(json.dumps(self._metrics, indent=2, sort_keys=True) + "\n")
        if preview is not None:
            from ops.store.pictures import encode_png, shrink_to_width

            if self._preview is None:
                raise LineamentError(f"{preview}: stage {self.name} draws no preview; leave --preview out.")
            with publish(preview) as path:
                path.write_bytes(encode_png(shrink_to_width(self._preview, PREVIEW_WIDTH)))


@contextmanager
def only_run(folder: Path, name: str) -> Iterator[None]:
    """Hold the stage's lock; a second run of the same stage on the same output is refused.

    Raises:
        LineamentError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise LineamentError(
                f"another run of {name} on the same output is under way (process {lock.read().strip() or 'unknown'}). "
                "Wait for it, or stop it."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def stage(name: str, params: type[P]) -> Callable[[Callable[..., None]], Callable[..., int]]:
    """Make a function a stage; see the module's docstring.

    Returns:
        a decorator. The decorated function takes a list of command-line words (``sys.argv`` if none) and returns an
        exit code: 0 done, 1 a problem the user can mend, 130 interrupted. ``.body`` is the plain function,
        ``.params`` the parameter class.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., int]:
        def main(argv: Sequence[str] | None = None) -> int:
            def run() -> int:
                paths, options, parser = _command_line(name, params, body)
                arguments = parser.parse_args(argv)
                return _run(name, params, body, arguments, paths, options)

            return run() if argv is not None else _with_gpus(name, run)

        main.body = body  # type: ignore[attr-defined]
        main.params = params  # type: ignore[attr-defined]
        main.__doc__ = body.__doc__
        return main

    return decorate


def _with_gpus(name: str, run: Callable[[], int]) -> int:
    """Run a command, under the launcher that is asked for, once it holds the GPUs that it takes."""
    try:
        with gpus.held(gpus.wanted(name), lambda text: print(f"[{name}] {text}", file=sys.stderr)) as locks:
            code = launched(running_module(), sys.argv[1:], locks)
            return run() if code is None else code
    except LineamentError as error:
        print(f"error in {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted before it began.", file=sys.stderr)
        return INTERRUPTED


def _command_line(
    name: str, params: type[Params], body: Callable[..., None]
) -> tuple[list[str], list[str], argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(
        prog=f"python -m {body.__module__}" if body.__module__ != "__main__" else None,
        description=inspect.getdoc(body),
        epilog=_params_help(name, params),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    hints = typing.get_type_hints(body)
    paths, options = [], []
    for argument in list(inspect.signature(body).parameters.values())[1:]:
        kind = hints[argument.name]
        if argument.kind is inspect.Parameter.KEYWORD_ONLY:
            options.append(argument.name)
            to_type = next((t for t in (typing.get_args(kind) or (kind,)) if t is not type(None)), str)
            flag = f"--{argument.name.replace('_', '-')}"
            if to_type is bool:
                parser.add_argument(flag, action="store_true")
            elif argument.default is inspect.Parameter.empty:
                parser.add_argument(flag, type=to_type, required=True)
            else:
                parser.add_argument(flag, type=to_type, default=argument.default, help="default: %(default)s")
        else:
            paths.append(argument.name)
            parser.add_argument(argument.name, type=Path)
    parser.add_argument("--params", dest="params_file", type=Path, default=Path("params.yaml"), metavar="FILE")
    parser.add_argument("--metrics", dest="metrics_file", type=Path, metavar="FILE", help="write the counts here")
    parser.add_argument("--preview", dest="preview_file", type=Path, metavar="FILE", help="write a picture here")
    return paths, options, parser


def _params_help(name: str, params: type[Params]) -> str:
    lines = [f"parameters, from section '{name}' of params.yaml:"]
    for key, field in params.model_fields.items():
        default = "required" if field.is_required() else f"default {field.get_default(call_default_factory=True)!r}"
        lines.append(f"  {key}: {default}" + (f"  {field.description}" if field.description else ""))
    return "\n".join(lines)


def _run(
    name: str,
    params: type[P],
    body: Callable[..., None],
    arguments: argparse.Namespace,
    paths: list[str],
    options: list[str],
) -> int:
    given = {key: getattr(arguments, key) for key in [*paths, *options]}
    started = time.monotonic()
    run: Stage[P] | None = None
    try:
        typed = load_params(params, name, arguments.params_file)
        run = Stage(name, typed, _key(given, paths), arguments.params_file)
        if is_first():
            check_room(name, arguments.params_file)
        with only_run(run.work, name) if is_first() else nullcontext():
            body(run, *(given[key] for key in paths), **{key: given[key] for key in options})
            if is_first():
                run.write_reports(arguments.metrics_file, arguments.preview_file)
                _write_timings(run, time.monotonic() - started)
    except KeyboardInterrupt:
        print(f"{name}: interrupted. Nothing is half-written; run the same command to go on.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        text = in_words(error)
        if text is None:
            raise
        print(f"error in {name}: {text}", file=sys.stderr)
        if run is not None:
            run.log(f"failed: {text}")
        return 1
    finally:
        if run is not None:
            run.reporter.close()
    return 0


def _key(given: Mapping[str, Any], paths: list[str]) -> str:
    """A readable name of this stage's output, so that runs on different outputs do not share a work folder."""
    if not paths:
        return "default"
    out = Path(given[paths[-1]])
    digest = hashlib.sha256(str(out).encode()).hexdigest()[:6]
    return f"{out.parent.name}-{out.stem}-{digest}"


def _write_timings(run: Stage[Any], elapsed: float) -> None:
    """Seconds and peak memory of the last real run: for the report, never among the versioned outputs."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    record = {"stage": run.name, "seconds": round(elapsed, 3), "peak_mb": round(max(peak, children) / 1024, 1)}
    with publish(run.work / "timings.json") as path:
        path.write_text(json.dumps(record) + "\n")
