"""GPUs are shared out among stages: no two see the same one, who wants many is served, and the dead hold nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.runtime import gpus
from ops.runtime.errors import LineamentError

STAGE = """
import json, os, pathlib, signal, sys, time
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage

class Nothing(Params):
    pass

def note(word):
    with open("log", "a") as log:
        log.write(json.dumps([word, os.environ.get("RANK", "0"), os.environ.get("CUDA_VISIBLE_DEVICES")]) + "\\n")

@stage("train_tiny", Nothing)
def main(s: Stage[Nothing], out: pathlib.Path) -> None:
    '''Hold what is given for a moment.'''
    note("begin " + out.name)
    deadline = time.monotonic() + float(os.environ["SECONDS"])
    while time.monotonic() < deadline and not pathlib.Path("go").exists():
        time.sleep(0.02)
    note("end " + out.name)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    raise SystemExit(main())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.py").write_text(STAGE)
    (tmp_path / "params.yaml").write_text("train_tiny: {}\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n  train_tiny:\n    cmd: none\n    meta: {pool: gpu}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINEAMENT_GPUS", "2")
    monkeypatch.setenv("LINEAMENT_GPU_LOCKS", str(tmp_path / "locks"))
    for name in (gpus.VISIBLE_VARIABLE, gpus.HELD_VARIABLE, gpus.LAUNCH_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])]))
    return tmp_path


def begin(name: str, processes: int = 1, seconds: float = 20.0) -> subprocess.Popen[str]:
    launch = f"torch.distributed.run --standalone --nproc-per-node={processes}" if processes > 1 else ""
    variables = {**os.environ, "LINEAMENT_LAUNCH": launch, "SECONDS": str(seconds)}
    words = [sys.executable, "-m", "tiny", name]
    return subprocess.Popen(words, env=variables, stdout=-1, stderr=subprocess.STDOUT, text=True)


def log(folder: Path) -> list[list[str]]:
    file = folder / "log"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for(folder: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while len(log(folder)) < lines:
        assert time.monotonic() < deadline, log(folder)
        time.sleep(0.05)


def test_two_gpus_two_trainings_and_a_third_waits(folder: Path) -> None:
    first = [begin("a"), begin("b")]
    wait_for(folder, 2)
    third = begin("c")
    said = third.stdout.readline()  # type: ignore[union-attr]
    assert "waiting for 1 of the GPUs 0, 1: 0 free" in said
    assert len(log(folder)) == 2
    (folder / "go").touch()
    for process in (*first, third):
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert sorted(device for word, _, device in log(folder) if word in ("begin a", "begin b")) == ["0", "1"]


def test_two_processes_take_two_gpus_and_are_not_overtaken(folder: Path) -> None:
    one = begin("one")
    wait_for(folder, 1)
    two = begin("two", processes=2)
    assert "waiting for 2 of the GPUs 0, 1: 1 free" in two.stdout.readline()  # type: ignore[union-attr]
    late = begin("late")  # wants one, and one is free; but it came later
    assert "others came before" in late.stdout.readline()  # type: ignore[union-attr]
    assert len(log(folder)) == 1
    (folder / "go").touch()
    for process in (one, two, late):
        said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said
    order = [word for word, _, _ in log(folder) if word.startswith("begin")]
    assert order == ["begin one", "begin two", "begin two", "begin late"]
    assert {(rank, device) for word, rank, device in log(folder) if word == "begin two"} == {("0", "0,1"), ("1", "0,1")}


def test_more_than_there_are_is_refused(folder: Path) -> None:
    said, _ = (process := begin("many", processes=3)).communicate(timeout=60)
    assert process.returncode == 1
    assert "3 GPUs are wanted, one a process, and there are 2 here (0, 1)" in said
    assert log(folder) == []


def test_the_dead_hold_nothing_and_who_waits_can_be_interrupted(folder: Path) -> None:
    holders = [begin("a"), begin("b")]
    wait_for(folder, 2)
    waiting = begin("c")
    assert "waiting" in waiting.stdout.readline()  # type: ignore[union-attr]
    waiting.send_signal(signal.SIGINT)
    said, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, "interrupted before it began" in said) == (130, True)
    for process in holders:
        process.kill()
        process.communicate()
    said, _ = (process := begin("d", seconds=0)).communicate(timeout=60)
    assert process.returncode == 0, said
    assert "waiting" not in said


def test_what_a_stage_takes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus.wanted("train_tiny") == 1
    assert gpus.wanted("another") == 0, "not of the pool"
    monkeypatch.setenv(gpus.LAUNCH_VARIABLE, "torch.distributed.run --nproc_per_node 2")
    assert gpus.wanted("train_tiny") == 2
    monkeypatch.setenv(gpus.LAUNCH_VARIABLE, "torch.distributed.run --nproc-per-node=gpu")
    assert gpus.wanted("train_tiny") == 2
    monkeypatch.setenv(gpus.LAUNCH_VARIABLE, "ops.runtime.slurm -m torch.distributed.run --nproc-per-node=2")
    assert gpus.wanted("train_tiny") == 0, "Slurm gives them"
    monkeypatch.delenv(gpus.LAUNCH_VARIABLE)
    monkeypatch.setenv(gpus.VISIBLE_VARIABLE, "")
    assert gpus.wanted("train_tiny") == 0, "the user hides them"
    monkeypatch.setenv(gpus.VISIBLE_VARIABLE, "1")
    assert gpus.visible() == ["1"]
    with gpus.held(1, print) as locks:
        assert len(locks) == 1
        assert gpus.wanted("train_tiny") == 0, "held already"
        with pytest.raises(LineamentError, match="2 GPUs are wanted"), gpus.held(2, print):
            pass
    assert os.environ[gpus.VISIBLE_VARIABLE] == "1"
    assert gpus.HELD_VARIABLE not in os.environ
