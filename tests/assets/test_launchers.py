"""Launchers start a stage's module elsewhere: its output, exit code and interruption come through all the same."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from assets.launchers import Kubernetes, Local, Ray, Slurm, Torchrun, launcher_of
from ops.runtime.errors import LineamentError

from .servers import free_port

ROOT = Path(__file__).parents[2]

# A training as the launchers see it: writes as it goes, saves when it is interrupted, goes on from what it saved.
TRAINER = """
import os, pathlib, signal, sys, time
def save(*_):
    pathlib.Path("saved").write_text("step 7")
    print("saved", flush=True)
    sys.exit(130)
signal.signal(signal.SIGINT, save)
print("hello from", sys.argv[1], os.environ.get("LINEAMENT_LAUNCH"), flush=True)
if sys.argv[1] == "fail":
    sys.exit(3)
if sys.argv[1] == "wait":
    pathlib.Path("started").touch()
    time.sleep(60)
"""

# What sbatch --wait and scancel do, on this machine and without a queue.
SBATCH = """#!{python}
import os, pathlib, subprocess, sys
options = [word for word in sys.argv[1:] if word.startswith("--")]
named = dict(word[2:].split("=", 1) for word in options if "=" in word)
assert "--wait" in options and "--partition=gpu" in options, options
with open(named["output"], "a") as log:
    job = subprocess.Popen(["sh", sys.argv[-1]], stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    pathlib.Path("{folder}", named["job-name"]).write_text(str(job.pid))
    print("Submitted batch job 1")
    sys.exit(job.wait() % 256)
"""
SCANCEL = """#!{python}
import os, pathlib, signal, sys
named = dict(word[2:].split("=", 1) for word in sys.argv[1:] if "=" in word)
pid = int(pathlib.Path("{folder}", named["name"]).read_text())
os.killpg(pid, getattr(signal, "SIG" + named.get("signal", "KILL")))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trainer.py").write_text(TRAINER)
    return tmp_path


@pytest.fixture
def fake_slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path_factory.mktemp("bin")
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (where / name).write_text(text.format(python=sys.executable, folder=where))
        (where / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{where}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def slurm_daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Slurm's own controller and node daemon, on this machine, with a partition ``gpu``."""
    if not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch"))):
        pytest.skip("Slurm is not installed (apt-get install slurm-wlm)")
    if os.geteuid() != 0:
        pytest.skip("slurmd must run as root")
    where = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname().split(".")[0]
    ports = [free_port(), free_port()]
    (where / "slurm.conf").write_text(
        f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
StateSaveLocation={where}/state
SlurmdSpoolDir={where}/spool
SlurmctldPidFile={where}/slurmctld.pid
SlurmdPidFile={where}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
MpiDefault=none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=1 RealMemory=500 State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
    )
    for name in ("state", "spool"):
        (where / name).mkdir()
    environment = {**os.environ, "SLURM_CONF": str(where / "slurm.conf")}
    daemons = []
    try:
        with open(where / "log", "w") as log:
            for name in ("slurmctld", "slurmd"):
                daemons.append(subprocess.Popen([name, "-D"], env=environment, stdout=log, stderr=log))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            seen = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True)
            if seen.stdout.strip() == "idle":
                break
            time.sleep(0.3)
        else:
            pytest.skip(f"Slurm's daemons do not come up here: {(where / 'log').read_text()[-300:]}")
        yield where
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()


@pytest.fixture(params=["fake", "real"])
def slurm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "fake":
        request.getfixturevalue("fake_slurm")
    else:
        where = request.getfixturevalue("slurm_daemons")
        monkeypatch.setenv("SLURM_CONF", str(where / "slurm.conf"))
    return request.param


def start(folder: Path, launch: str, word: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", *launch.split(), "-m", "trainer", word]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "LINEAMENT_LAUNCH": launch}
    # A test run in the background may have been told to ignore interrupts, and would hand that on.
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True, preexec_fn=heed
    )


def wait_for(path: Path, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.1)


SLURM = "ops.runtime.slurm --partition=gpu"


@pytest.mark.parametrize(("word", "code"), [("well", 0), ("fail", 3)])
def test_a_job_of_slurm_gives_its_output_and_its_exit_code(folder: Path, slurm: str, word: str, code: int) -> None:
    process = start(folder, SLURM, word)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert f"hello from {word} None" in said, "and the job is not launched again"
    assert list((folder / "data/.work/slurm").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_saves_and_ends(folder: Path, slurm: str, number: int) -> None:
    if slurm == "real" and number == signal.SIGTERM:
        pytest.skip("one of both is enough in a real queue")
    process = start(folder, SLURM, "wait")
    wait_for(folder / "started")
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (folder / "saved").read_text() == "step 7"
    assert "saved" in said


def test_without_slurm_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    process = start(folder, SLURM, "well")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no command sbatch" in said


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (the extra `ray`)")
def test_a_task_of_ray(folder: Path) -> None:
    failing, waiting = (start(folder, "ops.runtime.on_ray --address=local --cpus=1", word) for word in ("fail", "wait"))
    wait_for(folder / "started")
    waiting.send_signal(signal.SIGINT)
    for process, word, code in ((failing, "fail", 3), (waiting, "wait", 130)):
        said, _ = process.communicate(timeout=90)
        assert process.returncode == code, said
        assert f"hello from {word} None" in said
    assert (folder / "saved").read_text() == "step 7"
    assert "saved" in said, "its last words too"
    assert list((folder / "data/.work/ray").iterdir()) == []


def test_what_each_launcher_starts(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        """
launchers:
  a: {kind: torchrun, processes: 3}
  b: {kind: slurm, options: ["--partition=gpu", "--comment=two words"], hours: 2}
  c: {kind: slurm, processes: 4}
  d: {kind: ray, gpus: 1, attempts: 5}
  e: {kind: kubernetes, image: me/lineament, gpus: 2, processes: 2, pod: {nodeSelector: {gpu: "yes"}}}
"""
    )
    found = {name: launcher_of(tmp_path, name) for name in "abcdef"}
    assert [type(launcher) for launcher in found.values()] == [Torchrun, Slurm, Slurm, Ray, Kubernetes, Local]
    assert found["b"].launch == "ops.runtime.slurm --partition=gpu '--comment=two words'"
    assert found["b"].hours == 2
    assert found["c"].launch == "ops.runtime.slurm -m torch.distributed.run --standalone --nproc-per-node=4"
    assert found["d"].launch == "ops.runtime.on_ray --address=auto --cpus=1 --gpus=1 --retries=5"
    assert found["f"].environment() == {}
    assert [launcher.elsewhere for launcher in found.values()] == [False, True, True, True, False, False]
    (tmp_path / "params.yaml").write_text("launchers:\n  a:\n    kind: slrum\n")
    with pytest.raises(LineamentError, match=r"launchers\.of\.a.*'local', 'torchrun', 'slurm', 'ray', 'kubernetes'"):
        launcher_of(tmp_path, "a")
