"""A module started under torchrun by the environment alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.runtime.launch import LAUNCH_VARIABLE, launched

MODULE = """
import os, pathlib, sys
from ops.runtime.launch import launched
assert launched("nothing", []) is None, "no launcher within the launcher"
pathlib.Path(sys.argv[1], os.environ["RANK"]).write_text(os.environ["WORLD_SIZE"])
sys.exit(int(sys.argv[2]))
"""


def test_no_launcher_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LAUNCH_VARIABLE, raising=False)
    assert launched("ops.anything", []) is None


@pytest.mark.parametrize("code", [0, 3])
def test_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    (tmp_path / "worker.py").write_text(MODULE)
    monkeypatch.setenv(LAUNCH_VARIABLE, "torch.distributed.run --standalone --nproc-per-node=2")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.getcwd()]))
    result = launched("worker", [str(tmp_path), str(code)])
    assert (result == 0) is (code == 0)
    if code == 0:  # else torchrun may end the other process before it has written
        assert {path.name: path.read_text() for path in tmp_path.glob("[01]")} == {"0": "2", "1": "2"}


STAGE = """
import json
import os
import subprocess
import sys
from pathlib import Path
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage

class Nothing(Params):
    pass

@stage("together", Nothing)
def main(s: Stage[Nothing], out: Path) -> None:
    '''Say who is there.'''
    (out / os.environ["RANK"]).write_text(os.environ["WORLD_SIZE"])
    s.metrics({"rank": int(os.environ["RANK"])})

if __name__ == "__main__":
    raise SystemExit(main())
"""


def test_a_stage_of_several_processes(tmp_path: Path) -> None:
    """All of them run the body; one takes the lock and writes the metrics."""
    (tmp_path / "together.py").write_text(STAGE)
    (tmp_path / "params.yaml").write_text("together: {}\n")
    variables = {
        **os.environ,
        LAUNCH_VARIABLE: "torch.distributed.run --standalone --nproc-per-node=2",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()]),
    }
    command = [sys.executable, "-m", "together", str(tmp_path), "--metrics", "metrics.json"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("[01]")} == {"0", "1"}
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"rank": 0}
