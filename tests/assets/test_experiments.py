"""Sweeps as runs, experiments by hand as events; sources by address that are seen to change."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dagster as dg
import pytest

from assets.experiments import combinations, watch_experiments
from ops.runtime.errors import LineamentError
from ops.versioning import DVC, environment

from .browser import wait_until
from .conftest import Project
from .servers import Servers


def test_combinations() -> None:
    assert combinations(["a=1,2", "b.c=x"]) == [["a=1", "b.c=x"], ["a=2", "b.c=x"]]
    assert combinations(["skips=[2,3],[4]"]) == [["skips=[2,3]"], ["skips=[4]"]]
    with pytest.raises(LineamentError, match="NAME=VALUE"):
        combinations(["oops"])


def commit(project: Project) -> None:
    for words in (["add", "."], ["-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=project.root, check=True, capture_output=True)


def experiments(instance: dg.DagsterInstance) -> int:
    return len(instance.fetch_materializations(dg.AssetKey("experiments"), limit=10).records)


def test_an_experiment_leaves_the_workspace_alone_and_is_told_once(project: Project) -> None:
    commit(project)
    lock = (project.root / "dvc.lock").read_text()
    config = {"ops": {"run_experiment": {"config": {"set": ["shards.word=x"], "targets": ["shards"]}}}}
    result = project.run_job("experiment", config=config)
    assert result.success
    assert (project.root / "dvc.lock").read_text() == lock
    assert project.ran() == []
    run = project.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["lineament/overrides"] == "shards.word=x"
    assert experiments(project.instance) == 1
    with dg.build_sensor_context(project.instance) as context:
        assert "no new" in str(watch_experiments(context)), "it is known"
    assert experiments(project.instance) == 1, "known already"
    with dg.DagsterInstance.ephemeral() as other, dg.build_sensor_context(other) as context:
        assert "1 new experiments" in str(watch_experiments(context)), "to this one, it was run by hand"
        assert "no new" in str(watch_experiments(context)), "told once"
        assert experiments(other) == 1
    config["ops"]["run_experiment"]["config"]["set"] = ["shards.word=fail"]
    result = project.run_job("experiment", config=config, raise_on_error=False)
    assert not result.success
    assert "this input is no good" in str(result.failure_data_for_node("run_experiment"))


def test_each_point_of_a_sweep_and_each_queued_experiment_is_a_run(project: Project, tmp_path: Path) -> None:
    """With the daemon: the sensors ask for the runs, the daemon starts them."""
    commit(project)
    project.dvc("exp", "run", "--queue", "-S", "shards.word=q", "shards")
    servers = Servers(project.root, tmp_path / "home")
    try:
        wait_until(servers.is_loaded, 120, "the servers")
        subprocess.run([*DVC, "queue", "start"], cwd=project.root, env=environment(), check=True, capture_output=True)
        config = {"set": ["shards.word=x,y"], "targets": ["shards"]}
        sweep = servers.launch("sweep", {"ops": {"combinations": {"config": config}}})

        def done() -> bool:
            return [status for _, status, _ in servers.tags()].count("SUCCESS") == 4

        wait_until(done, 150, "the sweep, its two points and the queued experiment")
        found = {(job, tags.get("lineament/point"), tags.get("lineament/overrides")) for job, _, tags in servers.tags()}
        assert found == {
            ("sweep", None, None),
            ("experiment", "1/2", "shards.word=x"),
            ("experiment", "2/2", "shards.word=y"),
            ("queued_experiment", None, None),
        }
        points = [tags for job, _, tags in servers.tags() if job == "experiment"]
        assert {tags["lineament/sweep"] for tags in points} == {sweep[:8]}
        assert servers.materialisations("experiments") == 3
    finally:
        servers.stop()
        subprocess.run([*DVC, "queue", "stop", "--kill"], cwd=project.root, env=environment(), capture_output=True)
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        assert experiments(instance) == 3


def test_a_sweep_that_says_no_values_fails(project: Project) -> None:
    config = {"ops": {"combinations": {"config": {"set": ["oops"]}}}}
    result = project.run_job("sweep", config=config, raise_on_error=False)
    assert "NAME=VALUE" in str(result.failure_data_for_node("combinations"))


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
