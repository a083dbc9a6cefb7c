"""The lineage, several units at a time: what `dvc repro` does one after another.

Most stages keep one core busy, and few wait for each other. So every unit is a `dvc repro --single-item` of its own,
started when all it reads is made; DVC decides as ever whether anything is to be done, and dvc.lock is the only state.
Of those that could start, the one with the longest way to the end goes first.
"""

from __future__ import annotations

import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from ops.dag import Dag
from ops.locks import drop_dead_locks
from ops.runtime.errors import LineamentError
from ops.versioning import BUSY, DVC, LONGEST_PAUSE, PATIENCE, dvc_status, environment

JOBS = 2  # a unit takes up to 1.6 GB in the smoke profile
LAST_LINES = 40
LONG, SHORT = 60.0, 5.0  # seconds, about: units of a pool train networks; only the ratio matters


@dataclass(frozen=True)
class Outcome:
    """How one unit went: what DVC did, or None where it failed; seconds; its last lines."""

    name: str
    what: str | None
    seconds: float
    lines: Sequence[str]


def repro(
    root: Path, names: Sequence[str] = (), jobs: int = JOBS, say: Callable[[str], None] = print
) -> Outcome | None:
    """Bring units, and all they read from, up to date.

    After a failure nothing new starts, and what runs is let finish. Ctrl-C reaches the commands as well, which are
    waited for: a training writes its checkpoint.

    Args:
        root: the project.
        names: units or stages; all of the lineage if none are given.
        jobs: units at a time.
        say: gets a line at each end, and the stages' own lines.

    Returns:
        the unit that failed first, None if all is well.

    Raises:
        LineamentError: no such unit, or no jobs.
    """
    if jobs < 1:
        raise LineamentError(f"--jobs {jobs}: at least one unit has to run at a time.")
    dag = Dag.load(root)
    wanted = dag.upstream(_units(dag, names)) if names else list(dag.units)
    stale = set(dag.downstream(dvc_status(root, patience=PATIENCE)))  # one question instead of one for each unit
    if not stale.issuperset(wanted):
        say(f"{sum(name not in stale for name in wanted)} of {len(wanted)} units are up to date")
    wanted = [name for name in wanted if name in stale]
    urgency = _urgency(dag)
    sorter = TopologicalSorter({name: stale.intersection(dag.parents(name)) for name in wanted})
    sorter.prepare()
    ready: list[str] = []
    running: set[Future[Outcome]] = set()
    failed: Outcome | None = None
    ended = 0
    with ThreadPoolExecutor(jobs) as pool:
        while running or (sorter.is_active() and not failed):
            ready = sorted([*ready, *sorter.get_ready()], key=lambda name: -urgency[name])
            while ready and len(running) < jobs and not failed:
                running.add(pool.submit(_run, root, ready.pop(0), say))
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for outcome in (future.result() for future in finished):
                ended += 1
                say(f"{ended:3}/{len(wanted)}  {outcome.name}: {outcome.what or 'failed'}, {outcome.seconds:.1f} s")
                if outcome.what:
                    sorter.done(outcome.name)
                failed = failed or (None if outcome.what else outcome)
    return failed


def what_dvc_did(name: str, lines: Sequence[str]) -> str:
    """``ran``, ``skipped`` or ``restored`` (from its cache), from the lines that `dvc repro` printed."""
    text = "\n".join(lines)
    if f"Stage '{name}' didn't change, skipping" in text:
        return "skipped"
    if f"Stage '{name}' is cached - skipping run" in text:
        return "restored"
    return "ran"


def _units(dag: Dag, names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        if name not in dag.units and name not in dag.stages:
            raise LineamentError(f"dvc.yaml has no stage or unit '{name}'.")
        found += [name] if name in dag.units else [unit.name for unit in dag.stages[name].units.values()]
    return found


def _urgency(dag: Dag) -> dict[str, float]:
    """About how long it takes from each unit's start to the end of all that waits for it."""
    urgency = dict.fromkeys(dag.units, 0.0)
    for name in reversed(list(dag.units)):
        urgency[name] += LONG if dag.stages[dag.units[name].stage].meta.pool else SHORT
        for parent in dag.parents(name):
            urgency[parent] = max(urgency[parent], urgency[name])
    return urgency


def _run(root: Path, name: str, say: Callable[[str], None]) -> Outcome:
    """One unit. While another DVC command holds what it needs, it is tried again, each time after a longer pause."""
    started, pause = time.monotonic(), 0.5
    variables = environment()
    while True:
        process = subprocess.Popen(
            [*DVC, "repro", "--single-item", name],
            cwd=root,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        lines: deque[str] = deque(maxlen=LAST_LINES)
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("["):  # the stage's own words; DVC's and the libraries' are for those who look for why
                say(line.rstrip())
        code, seconds = process.wait(), time.monotonic() - started
        if code == 0:
            return Outcome(name, what_dvc_did(name, lines), seconds, lines)
        if not BUSY.search("\n".join(lines)) or seconds > PATIENCE:
            return Outcome(name, None, seconds, lines)
        drop_dead_locks(root)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
