"""Gates in Dagster: recorded, of the right partition, and in the way of what is downstream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.project import ROOT_VARIABLE
from assets.state import UP_TO_DATE

from .conftest import Project

# Curves that a gate reads, of two variants, and something that is built on them.
DVC_YAML = """
stages:
  train_tiny:
    matrix:
      variant: [plain, fancy]
    cmd: >-
      mkdir -p data/checkpoints/${item.variant}
      && cp ${item.variant}.csv data/checkpoints/${item.variant}/curves.csv
    deps:
      - ${item.variant}.csv
    outs:
      - data/checkpoints/${item.variant}
  after:
    matrix:
      variant: [plain, fancy]
    cmd: cp data/checkpoints/${item.variant}/curves.csv after-${item.variant}.csv
    deps:
      - data/checkpoints/${item.variant}
    outs:
      - after-${item.variant}.csv
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "plain.csv").write_text("step,loss\n0,1.0\n")
    (tmp_path / "fancy.csv").write_text("step,loss\n0,nan\n")
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        project = Project(tmp_path, instance)
        project.dvc("init", "--no-scm")
        yield project


def passed(project: Project, stage: str, name: str, partition: str | None = None) -> bool:
    key = dg.AssetCheckKey(dg.AssetKey(stage), name)
    history = project.instance.event_log_storage.get_asset_check_execution_history(key, limit=20)
    evaluations = [record.event.asset_check_evaluation for record in history if record.event]
    return next(e.passed for e in evaluations if e is not None and e.partition == partition)


def test_a_failed_gate_stops_what_is_downstream(trained: Project) -> None:
    assert trained.materialize("train_tiny", "after", partition="plain").success
    result = trained.materialize("train_tiny", "after", partition="fancy", raise_on_error=False)
    assert not result.success
    assert passed(trained, "train_tiny", "losses_are_finite", "plain")
    assert not passed(trained, "train_tiny", "losses_are_finite", "fancy")
    assert (trained.root / "after-plain.csv").exists()
    assert not (trained.root / "after-fancy.csv").exists()


def test_and_in_a_job(trained: Project) -> None:
    result = trained.run_job("demo", raise_on_error=False)
    assert not result.success
    failure = result.failure_data_for_node("train_tiny__fancy")
    assert failure is not None
    assert "'loss' is nan in row 0" in str(failure.user_failure_data)
    assert passed(trained, "train_tiny", "losses_are_finite", "plain")
    assert not passed(trained, "train_tiny", "losses_are_finite", "fancy")
    assert (trained.root / "after-plain.csv").exists()
    assert not (trained.root / "after-fancy.csv").exists()


def test_a_gate_alone_runs_without_dvc(trained: Project) -> None:
    trained.materialize("train_tiny", partition="plain")
    (trained.root / "data/checkpoints/plain/curves.csv").write_text("step,loss\n0,inf\n")
    job = trained.repository().get_job("__ASSET_JOB")
    checks = {dg.AssetCheckKey(dg.AssetKey("train_tiny"), "losses_are_finite")}
    subset = job.get_subset(asset_selection=set(), asset_check_selection=checks)
    result = subset.execute_in_process(instance=trained.instance, partition_key="plain", raise_on_error=False)
    assert not result.get_asset_materialization_events()
    assert not passed(trained, "train_tiny", "losses_are_finite", "plain")


def test_the_check_that_asks_dvc(project: Project) -> None:
    check = project.repository().asset_graph.asset_check_keys
    assert {key.asset_key.to_user_string() for key in check if key.name == UP_TO_DATE} == set(project.dag.stages)
    subset = (
        project.repository()
        .get_job("__ASSET_JOB")
        .get_subset(asset_selection=set(), asset_check_selection={key for key in check if key.name == UP_TO_DATE})
    )
    assert subset.execute_in_process(instance=project.instance).success
    assert all(passed(project, stage, UP_TO_DATE) for stage in project.dag.stages)
    project.edit("params.yaml", "word: m1", "word: m2")
    assert subset.execute_in_process(instance=project.instance).success
    failed = {stage for stage in project.dag.stages if not passed(project, stage, UP_TO_DATE)}
    assert failed == {"crawl"}
