"""Stages of one pool never run over its slots, however many runs ask for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from assets.project import ROOT_VARIABLE
from ops import instance
from ops.versioning import environment

from .conftest import Project

ROOT = Path(__file__).parents[2]
RUN = """
import sys
import dagster as dg
from assets.definitions import defs
job = defs.resolve_implicit_global_asset_job_def()
with dg.DagsterInstance.get() as instance:
    result = job.execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("train_tiny")], partition_key=sys.argv[1], raise_on_error=False)
sys.exit(0 if result.success else 1)
"""
# Waits for a second one to begin, which it must not while this one holds the slot.
TRAIN = """# train
import pathlib, time
log = pathlib.Path("gpu.log")
def note(word):
    with open(log, "a") as stream:
        stream.write(word + " ")
note("begin")
deadline = time.monotonic() + 6
while time.monotonic() < deadline and log.read_text().count("begin") < 2:
    time.sleep(0.1)
note("end")
"""


def test_a_slot_for_each_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEAMENT_GPUS", "3")
    assert instance.prepare(ROOT, tmp_path / "home")[1] == 3
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as found:
        assert found.get_concurrency_config().pool_config.default_pool_limit == 3


def test_two_trainings_share_one_slot(project: Project, tmp_path: Path) -> None:
    project.edit("code/train.py", "# train\n", TRAIN)
    home = tmp_path / "home"
    assert instance.prepare(ROOT, home)[1] == 1, "one GPU stage at a time where there is no GPU"
    variables = {**environment(), "DAGSTER_HOME": str(home), ROOT_VARIABLE: str(project.root), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", RUN]
    with dg.DagsterInstance.from_config(str(home)):
        pass  # its tables are made, so that both begin at once
    both = [
        subprocess.Popen([*words, variant], cwd=project.root, env=variables, stdout=-1, stderr=-2, text=True)
        for variant in ("plain", "fancy")
    ]
    said = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    log = (project.root / "gpu.log").read_text().split()
    assert log == ["begin", "end", "begin", "end"]
