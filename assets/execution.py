"""Runs one unit: `dvc repro --single-item` under Dagster Pipes. DVC decides whether anything is to be done.

The Pipes variables pass through DVC into the stage's command, so its messages stream into the UI; its plain output
goes to the step's log. What DVC did (ran, skipped, restored from its cache) is read from what it prints.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_pipes import PIPES_PROTOCOL_VERSION, PipesFileMessageWriterChannel

from assets.kubernetes import run_in_pod
from assets.launchers import Kubernetes, Launcher, launcher_of
from assets.metadata import describe
from assets.state import RECORD, Journal
from ops.dag import Unit
from ops.ledger import needs_dvc
from ops.locks import drop_dead_locks
from ops.repro import what_dvc_did
from ops.versioning import BUSY, DVC, LONGEST_PAUSE, changed_deps, dvc_status, environment

# Dagster's own reader of messages uses a part of Dagster that is marked as a preview, and warns of it at each step.
warnings.filterwarnings("ignore", "Function `PipesMessageReader.expected_writer_count`")

Context = dg.OpExecutionContext | dg.AssetExecutionContext

LAST_LINES = 30
# What DVC prints of a command that a signal ended, and what those who start others say of it.
KILLED = re.compile(r"exited with (?:-(?:9|15)|137|143)\b|Signal 9 \(SIGKILL\)|worker process died|NODE_FAIL|NodeDied")
PATIENCE_VARIABLE = "LINEAMENT_PATIENCE"
PATIENCE = 24 * 3600.0  # seconds to wait for another DVC run of the same stage; a training may be long
GRACE = 60.0  # seconds between asking a command to end and killing it


@dataclass(frozen=True)
class Outcome:
    """What DVC did for a unit: ``ran``, ``skipped`` (up to date) or ``restored`` (from its cache), and how long."""

    what: str
    seconds: float


def run_unit(context: Context, root: Path, unit: Unit, force: bool = False) -> Outcome:
    """Bring one unit up to date; its inputs are taken as they are.

    Args:
        force: run its command even if nothing changed, and take nothing from the run cache.

    Raises:
        dagster.Failure: the command failed, with its last lines; it ran longer than its launcher allows; or DVC stayed
            busy for too long.
    """
    launcher = launcher_of(root, unit.stage)
    words = ["repro", "--single-item", *(["--force"] if force else []), unit.name]
    started = time.monotonic()
    if isinstance(launcher, Kubernetes):
        what = run_in_pod(context, root, unit, launcher, words, force)
        return Outcome(what, time.monotonic() - started)
    with _pipes(context, root, launcher) as session:
        variables = {**environment(), **launcher.environment(), **session.get_bootstrap_env_vars()}
        attempt = 1
        while True:
            code, lines = stream_patiently(context, root, unit.name, [*DVC, *words], variables, launcher.hours)
            killed = KILLED.search("\n".join(lines)) if code else None
            if not killed or attempt >= launcher.attempts:
                break
            pause = min(2.0**attempt, LONGEST_PAUSE)
            context.log.warning(f"{unit.name} was killed ({killed[0]}); attempt {attempt + 1} in {pause:g} s")
            time.sleep(pause)
            attempt += 1
        what = what_dvc_did(unit.name, lines)
        if what != "ran":
            _greet(session.message_reader_params)
    if code:
        last = "\n".join(lines[-LAST_LINES:])
        raise dg.Failure(
            f"{unit.name} failed with exit code {code}. Its last lines:\n{last}",
            metadata={"last lines": dg.MetadataValue.md(f"```\n{last}\n```"), "exit code": code},
        )
    return Outcome(what, time.monotonic() - started)


@contextmanager
def _pipes(context: Context, root: Path, launcher: Launcher) -> Iterator[dg.PipesSession]:
    """A conversation with the stage's command: through files of this machine, or through the project's folder where
    the command may run on another one."""
    if not launcher.elsewhere:
        reader = dg.PipesTempFileMessageReader()
        with dg.open_pipes_session(context, dg.PipesTempFileContextInjector(), reader) as session:
            yield session
        return
    folder = root / "data/.work/pipes" / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        injector = dg.PipesFileContextInjector(str(folder / "context"))
        with dg.open_pipes_session(context, injector, dg.PipesFileMessageReader(str(folder / "messages"))) as session:
            yield session
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def result_of(context: Context, root: Path, unit: Unit, outcome: Outcome) -> tuple[dict[str, Any], dict[str, str]]:
    """Metadata and tags of the event that records a finished run. Reports first what Dagster did not know of its
    inputs, so that the event points to what was consumed."""
    journal = Journal.open(context.instance, root)
    above = [name for name in journal.dag.upstream([unit.name]) if name != unit.name and name in journal.lock]
    unknown = [n for n in above if (e := journal.newest(n)) is None or e.tags.get(RECORD) != journal.lock[n].digest]
    asked = [name for name in unknown if needs_dvc(journal.dag, name)]
    if asked:
        journal.changed = changed_deps(dvc_status(root, asked))
    journal.tell(unknown)
    metadata = describe(root, unit)
    if "changes" in metadata:
        context.log.info(f"{unit.name}: {metadata['changes'].value}")
    metadata |= {"dvc": dg.MetadataValue.text(outcome.what), "seconds": dg.MetadataValue.float(outcome.seconds)}
    return metadata, journal.tags(unit.name)


def stream_patiently(
    context: Context,
    root: Path,
    what: str,
    words: Sequence[str],
    variables: Mapping[str, str],
    hours: float | None = None,
) -> tuple[int, list[str]]:
    """Run DVC, its output passed on; while another DVC command is in the way, wait and try again, each time longer.

    Returns:
        the exit code and the last few hundred lines.
    """
    deadline = time.monotonic() + float(os.environ.get(PATIENCE_VARIABLE, PATIENCE))
    pause = 0.5
    while True:
        code, lines = _stream(root, words, variables, hours)
        if code == 0 or not BUSY.search("\n".join(lines)) or time.monotonic() + pause > deadline:
            return code, lines
        dropped = drop_dead_locks(root)
        context.log.info(
            f"DVC is busy with {what}; trying again in {pause:g} s"
            + (f" (dropped the locks of dead processes {', '.join(map(str, sorted(dropped)))})" if dropped else "")
        )
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _stream(
    root: Path, words: Sequence[str], variables: Mapping[str, str], hours: float | None = None
) -> tuple[int, list[str]]:
    """Run a command, its output passed on line by line; returns the exit code and the last few hundred lines. Whatever
    interrupts the wait (a cancelled run), or the end of its time, ends the command and all it started."""
    process = subprocess.Popen(
        words,
        cwd=root,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    lines: deque[str] = deque(maxlen=400)
    assert process.stdout is not None
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _end(process)

    clock = threading.Timer(3600 * hours, expire) if hours else None
    if clock:
        clock.start()
    try:
        for line in process.stdout:
            sys.stdout.write(line)
            lines.append(line.rstrip("\n"))
        sys.stdout.flush()
        code = process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        if clock:
            clock.cancel()
    if expired.is_set():
        raise dg.Failure(
            f"ended after {hours:g} hours, the launcher's limit. What it had finished is kept: run it again to go on.",
            allow_retries=False,
        )
    return code, list(lines)


def _end(process: subprocess.Popen[str]) -> None:
    """Ask a process group to stop as Ctrl-C does, so that a training writes its checkpoint; insist in the end."""
    for number, patience in ((signal.SIGINT, GRACE), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _greet(reader_params: Mapping[str, Any]) -> None:
    """Speak for a command that DVC had no need to start, or the session would warn that nobody spoke."""
    channel = PipesFileMessageWriterChannel(reader_params["path"])
    for method in ("opened", "closed"):
        channel.write_message({"__dagster_pipes_version": PIPES_PROTOCOL_VERSION, "method": method, "params": {}})
