"""Sweeps as runs, experiments by hand as events; sources by address that are seen to change."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dagster as dg
import pytest

from assets.experiments import combinations, watch_experiments
from ops.runtime.errors import LineamentError

from .conftest import Project


def test_combinations() -> None:
    assert combinations(["a=1,2", "b.c=x"]) == [["a=1", "b.c=x"], ["a=2", "b.c=x"]]
    assert combinations(["skips=[2,3],[4]"]) == [["skips=[2,3]"], ["skips=[4]"]]
    with pytest.raises(LineamentError, match="NAME=VALUE"):
        combinations(["oops"])


def commit(project: Project) -> None:
    for words in (["add", "."], ["-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=project.root, check=True, capture_output=True)


def test_a_sweep_is_a_run_with_a_step_an_experiment(project: Project) -> None:
    commit(project)
    lock = (project.root / "dvc.lock").read_text()
    config = {"ops": {"combinations": {"config": {"set": ["shards.word=x,y"], "targets": ["shards"]}}}}
    result = project.run_job("sweep", config=config)
    assert result.success
    steps = {event.step_key for event in result.all_events if event.is_step_success}
    assert {step for step in steps if step and step.startswith("experiment[")} == {
        "experiment[0_shards_word_x]",
        "experiment[1_shards_word_y]",
    }
    assert (project.root / "dvc.lock").read_text() == lock, "the workspace stays as it was"
    records = project.instance.fetch_materializations(dg.AssetKey("experiments"), limit=10).records
    assert len(records) == 2
    with dg.build_sensor_context(project.instance) as context:
        assert "2 new experiments" in str(watch_experiments(context))
        assert "no new" in str(watch_experiments(context)), "looked at once"
    assert len(project.instance.fetch_materializations(dg.AssetKey("experiments"), limit=10).records) == 2, (
        "known already"
    )
    with dg.DagsterInstance.ephemeral() as other, dg.build_sensor_context(other) as context:
        watch_experiments(context)  # to this one, they were run by hand
        assert len(other.fetch_materializations(dg.AssetKey("experiments"), limit=10).records) == 2


@pytest.mark.usefixtures("quick_dvc")
def test_an_imported_address_that_changed_starts_a_run(project: Project, tmp_path: Path) -> None:
    origin = tmp_path / "list.csv"
    origin.write_text("one")
    project.dvc("import-url", str(origin), "photos/list.txt")
    sensor = {sensor.name: sensor for sensor in project.repository().sensor_defs}["imported_sources"]

    def look() -> int:
        with dg.build_sensor_context(project.instance) as context:
            return len(sensor.evaluate_tick(context).run_requests or [])

    assert sensor.job_name == "demo"
    assert look() == 0
    origin.write_text("two, and longer")
    assert look() == 1
    assert (project.root / "photos/list.txt").read_text() == "two, and longer"
    assert look() == 0
