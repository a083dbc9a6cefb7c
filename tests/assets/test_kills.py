"""Two at once, and deaths at random: the state stays consistent, and nothing is run twice.

LINEAMENT_REPEATS says how often each is tried; the benchmark of orchestration takes 20.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assets.locks import drop_dead_locks
from assets.project import ROOT_VARIABLE
from ops.versioning import DVC, environment

from .conftest import Project

ROOT = Path(__file__).parents[2]
REPEATS = int(os.environ.get("LINEAMENT_REPEATS", "1"))
BY_DAGSTER = """
import sys, dagster as dg
from assets.definitions import defs
with dg.DagsterInstance.ephemeral() as instance:
    result = defs.get_job_def("demo").execute_in_process(instance=instance, raise_on_error=False)
sys.exit(0 if result.success else 1)
"""


def slow(project: Project) -> None:
    """Every stage takes a moment, so that there is something to collide with."""
    for name in ("shards", "train", "evaluate"):
        project.edit(f"code/{name}.py", f"# {name}", f"# {name}\nimport time; time.sleep(0.3)")


def begin(project: Project, *words: str) -> subprocess.Popen[str]:
    variables = {**environment(), ROOT_VARIABLE: str(project.root), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        words, cwd=project.root, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(project: Project) -> None:
    """What anyone does after an accident: run it again."""
    drop_dead_locks(project.root)
    project.repro()


def no_stage_twice(ran: list[str]) -> None:
    assert sorted(ran) == sorted(set(ran)), f"run twice: {ran}"


@pytest.mark.parametrize("number", range(REPEATS))
def test_dvc_repro_started_twice(project: Project, number: int) -> None:
    slow(project)
    both = [begin(project, *DVC, "repro") for _ in range(2)]
    for process in both:
        process.communicate(timeout=120)
    finish(project)
    no_stage_twice(project.ran())
    assert project.stale_by_dvc() == set()


@pytest.mark.parametrize("number", range(REPEATS))
def test_dagster_and_dvc_at_once(project: Project, number: int) -> None:
    slow(project)
    dagster = begin(project, sys.executable, "-c", BY_DAGSTER)
    time.sleep(random.Random(number).uniform(1.5, 4))
    by_hand = begin(project, *DVC, "repro")
    said, _ = dagster.communicate(timeout=180)
    by_hand.communicate(timeout=120)
    assert dagster.returncode == 0, said[-2000:]
    finish(project)
    no_stage_twice(project.ran())
    assert project.stale_by_dvc() == set()
    project.tell()
    assert project.stale_by_dagster() == set()


@pytest.mark.parametrize("number", range(REPEATS))
def test_a_run_killed_at_random(project: Project, number: int) -> None:
    """kill -9 of a run and all it started; the next one goes on and does only what was not finished."""
    slow(project)
    process = begin(project, sys.executable, "-c", BY_DAGSTER)
    time.sleep(random.Random(100 + number).uniform(2.5, 7))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for folder in Path("/proc").glob("[0-9]*"):  # DVC's processes are leaders of their own groups
        try:
            ours = os.readlink(folder / "cwd") == str(project.root)
        except OSError:
            continue
        if ours:
            os.kill(int(folder.name), signal.SIGKILL)
    recorded = {name for name in project.dag.units if name not in project.stale_by_dvc()}
    before = project.ran()
    no_stage_twice(before)
    finish(project)
    again = {unit.outs[0] for unit in project.dag.units.values() if unit.name in recorded}
    assert not again.intersection(project.ran()), "what was finished and recorded is not run again"
    assert project.stale_by_dvc() == set()
    project.tell()
    assert project.stale_by_dagster() == set()
