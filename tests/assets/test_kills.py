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

import dagster as dg
import psutil
import pytest

from assets.project import ROOT_VARIABLE
from ops.locks import drop_dead_locks
from ops.versioning import DVC, environment

from .browser import wait_until
from .conftest import Project
from .servers import Servers

ROOT = Path(__file__).parents[2]
REPEATS = int(os.environ.get("LINEAMENT_REPEATS", "1"))
BY_DAGSTER = """
import sys, dagster as dg
from assets.definitions import defs
with dg.DagsterInstance.ephemeral() as instance:
    result = defs.get_job_def("demo").execute_in_process(instance=instance, raise_on_error=False)
sys.exit(0 if result.success else 1)
"""

# Three stages in a row, so that a run is short.
CHAIN = """
stages:
  first:
    cmd: python code/shards.py made/first.txt ${shards.word} photos/one.txt
    deps: [photos/one.txt, code/shards.py]
    params: [shards]
    outs: [made/first.txt]
  second:
    cmd: python code/train.py made/second.txt two made/first.txt
    deps: [made/first.txt, code/train.py]
    outs: [made/second.txt]
  third:
    cmd: python code/evaluate.py made/third.txt three made/second.txt
    deps: [made/second.txt, code/evaluate.py]
    outs: [made/third.txt]
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


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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
            wait_until(lambda folder=folder: not runs(int(folder.name)), 20, "it to be gone")
    drop_dead_locks(project.root)  # a lock file cut short, too
    recorded = {name for name in project.dag.units if name not in project.stale_by_dvc()}
    before = project.ran()
    no_stage_twice(before)
    finish(project)
    again = {unit.outs[0] for unit in project.dag.units.values() if unit.name in recorded}
    assert not again.intersection(project.ran()), "what was finished and recorded is not run again"
    assert project.stale_by_dvc() == set()
    project.tell()
    assert project.stale_by_dagster() == set()


def test_webserver_and_daemon_killed_at_random(project: Project, tmp_path: Path) -> None:
    """kill -9 of one of them while it starts or follows a run: the run goes on, or begins when the other is back."""
    kills = max(2, REPEATS)
    slow(project)
    (project.root / "dvc.yaml").write_text(CHAIN)
    made = [f"made/{name}.txt" for name in ("first", "second", "third")]
    home = tmp_path / "home"
    servers = Servers(project.root, home)
    try:
        wait_until(servers.is_loaded, 120, "the servers")
        word = "b"
        for number in range(kills):
            victim = ("daemon", "webserver")[number % 2]
            word, before = f"b{number}", word
            project.edit("params.yaml", f"word: {before}\n", f"word: {word}\n")
            run = servers.launch("demo")
            time.sleep(random.Random(200 + number).uniform(0, 8))
            servers.kill(victim)
            servers.begin(victim)
            wait_until(servers.is_loaded, 120, f"the {victim} to come back")
            wait_until(lambda run=run: servers.status(run) in ("SUCCESS", "FAILURE"), 120, "the run to end")
            assert servers.status(run) == "SUCCESS"
            assert project.ran() == made, f"{victim} killed: each stage runs once, in its order"
            assert (project.root / made[-1]).read_text() == f"three(two({word}(one)))"
            assert project.stale_by_dvc() == set()
        assert len(servers.runs()) == kills, "no run is started a second time"
    finally:
        servers.stop()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert Project(project.root, instance).stale_by_dagster() == set()
