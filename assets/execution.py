"""Runs one unit: `dvc repro --single-item` under Dagster Pipes. DVC decides whether anything is to be done.

The Pipes variables pass through DVC into the stage's command, so its messages stream into the UI; its plain output
goes to the step's log. What DVC did (ran, skipped, restored from its cache) is read from what it prints.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from dagster_pipes import PIPES_PROTOCOL_VERSION, PipesFileMessageWriterChannel

from assets.launchers import launcher_of
from assets.metadata import describe
from assets.state import RECORD, Journal
from ops.dag import Unit
from ops.ledger import needs_dvc
from ops.versioning import BUSY, DVC, LONGEST_PAUSE, changed_deps, dvc_status, environment

# Dagster's own reader of messages uses a part of Dagster that is marked as a preview, and warns of it at each step.
warnings.filterwarnings("ignore", "Function `PipesMessageReader.expected_writer_count`")

Context = dg.OpExecutionContext | dg.AssetExecutionContext

LAST_LINES = 30
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
        dagster.Failure: the command failed, with its last lines; or DVC stayed busy for too long.
    """
    launcher = launcher_of(root, unit.stage)
    words = [*DVC, "repro", "--single-item", *(["--force"] if force else []), unit.name]
    reader = dg.PipesTempFileMessageReader()
    with dg.open_pipes_session(context, dg.PipesTempFileContextInjector(), reader) as session:
        variables = {**environment(), **launcher.environment(), **session.get_bootstrap_env_vars()}
        started = time.monotonic()
        code, lines = _until_free(context, root, unit, launcher.command(words), variables)
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


def what_dvc_did(name: str, lines: Sequence[str]) -> str:
    """``ran``, ``skipped`` or ``restored``, from the lines that `dvc repro` printed."""
    text = "\n".join(lines)
    if f"Stage '{name}' didn't change, skipping" in text:
        return "skipped"
    if f"Stage '{name}' is cached - skipping run" in text:
        return "restored"
    return "ran"


def _until_free(
    context: Context, root: Path, unit: Unit, words: Sequence[str], variables: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Run DVC; while another DVC command is in the way, wait and try again, each time longer."""
    deadline = time.monotonic() + float(os.environ.get(PATIENCE_VARIABLE, PATIENCE))
    pause = 0.5
    while True:
        code, lines = _stream(root, words, variables)
        if code == 0 or not BUSY.search("\n".join(lines)) or time.monotonic() + pause > deadline:
            return code, lines
        dropped = drop_dead_locks(root)
        context.log.info(
            f"DVC is busy with {unit.name}; trying again in {pause:g} s"
            + (f" (dropped the locks of dead processes {', '.join(map(str, sorted(dropped)))})" if dropped else "")
        )
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _stream(root: Path, words: Sequence[str], variables: Mapping[str, str]) -> tuple[int, list[str]]:
    """Run a command, its output passed on line by line; returns the exit code and the last few hundred lines. Whatever
    interrupts the wait (a cancelled run) ends the command and all it started."""
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
    try:
        for line in process.stdout:
            sys.stdout.write(line)
            lines.append(line.rstrip("\n"))
        sys.stdout.flush()
        return process.wait(), list(lines)
    except BaseException:
        _end(process)
        raise


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


def drop_dead_locks(root: Path) -> set[int]:
    """Take out of .dvc/tmp/rwlock the entries of processes that are gone.

    DVC does so itself where no process has the number; but numbers are given out again, after a restart of a
    container within seconds, and then an innocent process seems to hold the lock for ever. So a holder counts only if
    it is a DVC command. A lock file cut short by a kill is put aside.

    Returns:
        the process numbers taken out.
    """
    file = root / ".dvc/tmp/rwlock"
    dead: set[int] = set()
    with _guard(root) as ours:
        if not ours or not file.is_file():
            return dead
        try:
            locks = json.loads(file.read_text())
        except json.JSONDecodeError:
            file.replace(file.with_name("rwlock.damaged"))
            return dead
        readers = [entry for entries in locks.get("read", {}).values() for entry in entries]
        held: list[Any] = [*locks.get("write", {}).values(), *readers]
        dead = {entry["pid"] for entry in held if not _is_dvc(entry["pid"])}
        if dead:
            write = {path: entry for path, entry in locks.get("write", {}).items() if entry["pid"] not in dead}
            read = {
                path: [e for e in entries if e["pid"] not in dead] for path, entries in locks.get("read", {}).items()
            }
            kept = {"write": write, "read": {path: entries for path, entries in read.items() if entries}}
            temporary = file.with_name("rwlock.new")
            temporary.write_text(json.dumps(kept))
            temporary.replace(file)
    return dead


@contextmanager
def _guard(root: Path) -> Iterator[bool]:
    """DVC's own lock about its lock file; False if another process has it just now."""
    path = root / ".dvc/tmp/rwlock.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _is_dvc(pid: int) -> bool:
    try:
        return any("dvc" in word for word in psutil.Process(pid).cmdline()[:4])
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    except psutil.AccessDenied:
        return True


def _greet(reader_params: Mapping[str, Any]) -> None:
    """Speak for a command that DVC had no need to start, or the session would warn that nobody spoke."""
    channel = PipesFileMessageWriterChannel(reader_params["path"])
    for method in ("opened", "closed"):
        channel.write_message({"__dagster_pipes_version": PIPES_PROTOCOL_VERSION, "method": method, "params": {}})
