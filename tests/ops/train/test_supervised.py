"""The small loop: what it learns, that a killed run ends in the same bytes, what it refuses."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from ops.runtime.errors import LineamentError
from ops.runtime.stage import Stage
from ops.train import supervised
from ops.train.supervised import LearningParams, learn, publish_network

PARAMS = LearningParams(steps=30, batch=16, lr=0.05, threads=1, log_every=7, checkpoint_every=10, warm_up=0.2)
TRUE = torch.tensor([[1.0, -2.0, 0.5]])


def loss(network, rng):
    x = torch.from_numpy(rng.normal(size=(16, 3))).float()
    error = (network(x) - x @ TRUE.T).square().mean()
    return error, {"error": error}


@pytest.fixture
def stage_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda: Stage("train_line", PARAMS)


def line() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1, affine=True), nn.Linear(1, 1))


def trained(s, out, config="a", data="d", loss=loss):
    network = line()
    curves = learn(s, network, loss, PARAMS, config={"x": config}, data=data)
    publish_network(s, network, curves, out, config={"system": "line"}, data=data)
    return network, curves


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_learns_and_publishes(stage_of, tmp_path):
    network, curves = trained(stage_of(), tmp_path / "out")
    assert curves.rows[-1]["error"] < 0.6 * curves.rows[0]["error"]
    assert [row["step"] for row in curves.rows] == [7, 14, 21, 28, 30]
    assert not network.training
    record = json.loads((tmp_path / "out/config.json").read_text())
    assert record["parameters"] == sum(p.numel() for p in network.parameters())
    assert not list(stage_of().work.glob("run-*"))


@pytest.mark.parametrize("killed_at", [9, 10, 13, 29])
def test_a_killed_run_ends_in_the_same_bytes(stage_of, tmp_path, killed_at):
    trained(stage_of(), tmp_path / "whole")
    calls = []

    def dies(network, rng):
        calls.append(1)
        if len(calls) == killed_at + 1:
            raise KeyboardInterrupt
        return loss(network, rng)

    with pytest.raises(KeyboardInterrupt):
        trained(stage_of(), tmp_path / "out", loss=dies)
    assert not (tmp_path / "out").exists()
    seen = []

    def counts(network, rng):
        seen.append(1)
        return loss(network, rng)

    trained(stage_of(), tmp_path / "out", loss=counts)
    assert len(seen) == 30 - killed_at // 10 * 10
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_other_data_or_settings_begin_anew(stage_of, tmp_path):
    def dies(network, rng):
        dies.calls += 1
        if dies.calls > 15:
            raise KeyboardInterrupt
        return loss(network, rng)

    dies.calls = 0
    with pytest.raises(KeyboardInterrupt):
        trained(stage_of(), tmp_path / "out", loss=dies)
    for config, data in (("b", "d"), ("a", "e")):
        seen = []
        trained(stage_of(), tmp_path / "o", config, data, lambda n, r, seen=seen: (seen.append(1), loss(n, r))[1])
        assert len(seen) == 30


def test_a_loss_that_is_not_finite_is_named(stage_of, tmp_path):
    def bad(network, rng):
        value, parts = loss(network, rng)
        return value * float("nan"), parts

    with pytest.raises(LineamentError, match="nan at step 0"):
        trained(stage_of(), tmp_path / "out", loss=bad)
    assert not (tmp_path / "out").exists()


def test_the_rate_rises_then_falls():
    rates = [PARAMS.lr_at(step) for step in range(PARAMS.steps)]
    top = int(np.argmax(rates))
    assert top == 5
    assert rates[top] == pytest.approx(PARAMS.lr)
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top + 1 :]) < 0).all()
    assert rates[-1] < 0.02 * PARAMS.lr
    assert supervised.LearningParams(steps=1, warm_up=0).lr_at(0) == pytest.approx(1e-3)
