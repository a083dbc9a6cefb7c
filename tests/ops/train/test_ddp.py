"""Two processes under torchrun with gloo: the same gradients as one, rank 0 alone writes, resume is exact."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import Regress, settings, trainer

from ops.runtime.errors import LineamentError
from ops.train import ddp

HERE = Path(__file__).parent


def torchrun(*words, restarts=0):
    environment = {
        **os.environ,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # else gloo's store dies with the first attempt
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[2]), str(HERE)]),
        "OMP_NUM_THREADS": "1",
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={restarts}"]
    command = [
        *launcher,
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
        str(HERE / "ddp_run.py"),
        *map(str, words),
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def findings(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    result = torchrun("check", shards, folder)
    assert result.returncode == 0, result.stderr
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_gradients_are_those_of_one_process_with_the_whole_batch(findings, shards, tmp_path):
    alone = Regress()
    trainer(tmp_path, shards, objective=alone).train()
    for found in findings[1]:
        assert torch.allclose(torch.tensor(found["gradients"]), torch.stack(alone.gradients), atol=1e-6)
    assert torch.stack(alone.gradients).abs().max() > 1e-2


def test_only_the_main_process_writes_and_talks(findings):
    main, other = findings[1]
    assert main["written"].count("whole") == 4
    assert other["written"] == []
    assert other["lines"] == 0


def test_each_rank_has_random_numbers_of_its_own(findings):
    main, other = (found["drawn"] for found in findings[1])
    assert len(main) == len(other) == 24
    assert not set(main) & set(other)


def test_resume_of_two_processes_is_exact(findings):
    folder, _ = findings
    assert content(folder / "broken") == content(folder / "whole")


def test_weights_that_differ_between_ranks_are_an_error_in_words(findings):
    for found in findings[1]:
        assert "weights of 'network' differ" in found["different"]
        assert "ops.train.ddp.gather" in found["different"]


def test_means_and_flags_over_ranks(findings):
    for found in findings[1]:
        assert found["gathered"] == [0, 0, 1, 1]
        assert found["half"] == [1, 2, 3]
        assert found["unused"] is True
        assert found["any"] == [True, False]


def test_a_run_that_torchrun_restarts_after_a_killed_rank_goes_on_exactly(findings, shards, tmp_path):
    folder, _ = findings
    result = torchrun("die", shards, tmp_path, restarts=1)
    assert result.returncode == 0, result.stderr
    assert "Signal 9" in result.stderr or "exitcode: -9" in result.stderr
    assert content(tmp_path / "killed") == content(folder / "whole")


def content(run):
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "clock.json"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [({"WORLD_SIZE": "2"}, "start several processes with torchrun"), ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK 2")],
)
def test_a_wrong_environment_is_an_error_in_words(monkeypatch, variables, words):
    monkeypatch.delenv("RANK", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LineamentError, match=words):
        ddp.from_environment()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_that_is_not_there_is_an_error_in_words(tmp_path, shards):
    with pytest.raises(LineamentError, match="Set device to auto or cpu"):
        trainer(tmp_path, shards, settings(device="cuda"))


def test_a_lone_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert ddp.from_environment() == ddp.Ranks(0, 1, 0)
    assert ddp.from_environment().main
    tensor = torch.arange(3.0)
    assert torch.equal(ddp.gather(tensor), tensor)
    assert torch.equal(ddp.mean(tensor), tensor)
