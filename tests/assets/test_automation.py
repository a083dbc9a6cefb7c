"""Schedules, sensors and jobs launch what they should, and no more runs than that."""

from __future__ import annotations

import dagster as dg
import pytest

from assets import automation

from .conftest import Project

TRAININGS = {"made/checkpoints/plain.txt", "made/checkpoints/fancy.txt"}


def test_the_demo_job_runs_all_that_is_stale(project: Project) -> None:
    project.edit("params.yaml", "word: b", "word: b2")
    assert project.run_job("demo").success
    ran = project.ran()
    assert (ran[0], set(ran[1:3]), ran[3:]) == ("made/shards/all.txt", TRAININGS, ["made/evaluation/tiny.txt"])
    assert project.stale_by_dagster() == project.stale_by_dvc() == set()
    assert project.run_job("demo").success
    assert project.ran() == []


def test_a_failed_step_holds_back_only_what_needs_it(project: Project) -> None:
    project.tell()
    project.edit("params.yaml", "word: s1", "word: fail")
    project.edit("params.yaml", "word: m1", "word: m2")
    result = project.run_job("demo", raise_on_error=False)
    assert not result.success
    assert project.ran() == ["made/raw/mine.txt", "made/labels/mine/screen.txt"]


def test_refresh_of_a_source_looks_again_and_runs_what_changed(project: Project) -> None:
    project.tell()
    assert project.run_job("refresh_mine").success
    assert project.ran() == ["made/raw/mine.txt"], "looked, and found nothing new"
    (project.root / "photos/two.txt").write_text("two")
    assert project.run_job("refresh_mine").success
    ran = project.ran()
    assert ran[:3] == ["made/raw/mine.txt", "made/labels/mine/screen.txt", "made/shards/all.txt"]
    assert (set(ran[3:5]), ran[5:]) == (TRAININGS, ["made/evaluation/tiny.txt"])


def test_refresh_looks_again_in_every_source(project: Project) -> None:
    project.tell()
    assert project.run_job("refresh").success
    assert sorted(project.ran()) == ["made/raw/mine.txt", "made/raw/studio.txt"]


def test_retraining_on_demand(project: Project) -> None:
    project.tell()
    assert project.run_job("retrain_tiny", config={"force": True}).success
    assert set(project.ran()) == TRAININGS


def test_evaluating_trains_nothing(project: Project) -> None:
    project.tell()
    project.edit("params.yaml", "word: c", "word: c2")
    assert project.run_job("evaluate_all", config={"force": True}).success
    assert project.ran() == ["made/evaluation/tiny.txt"]


def ticked(schedule: dg.ScheduleDefinition, instance: dg.DagsterInstance) -> tuple[int, str]:
    """How many runs a tick asks for, and why none."""
    with dg.build_schedule_context(instance=instance) as context:
        tick = schedule.evaluate_tick(context)
    return len(tick.run_requests or []), tick.skip_message or ""


def test_the_schedule_of_a_source(project: Project) -> None:
    schedules = {schedule.name: schedule for schedule in project.repository().schedule_defs}
    assert set(schedules) == {"refresh_mine_schedule"}, "the studio declares none"
    schedule = schedules["refresh_mine_schedule"]
    assert schedule.cron_schedule == "0 3 * * *"
    assert schedule.job.name == "refresh_mine"
    with dg.instance_for_test() as instance:
        assert ticked(schedule, instance) == (1, "")


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTED", "SUCCESS"])
def test_a_schedule_leaves_its_turn_out_while_its_job_is_under_way(project: Project, status: str) -> None:
    repository = project.repository()
    schedule, job = repository.get_schedule_def("refresh_mine_schedule"), repository.get_job("refresh_mine")
    with dg.instance_for_test() as instance:
        instance.create_run_for_job(job, status=dg.DagsterRunStatus[status])
        runs, reason = ticked(schedule, instance)
    assert runs == (1 if status == "SUCCESS" else 0)
    assert status == "SUCCESS" or "of refresh_mine is still under way" in reason


def test_new_files_in_a_folder_start_its_refresh(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    sensors = {sensor.name: sensor for sensor in project.repository().sensor_defs}
    sensor = sensors["new_files_in_mine"]
    assert sensor.job_name == "refresh_mine"
    cursor: str | None = None

    def look() -> list[str | None]:
        nonlocal cursor
        with dg.build_sensor_context(instance=project.instance, cursor=cursor) as context:
            tick = sensor.evaluate_tick(context)
            cursor = tick.cursor or cursor
            return [request.run_key for request in tick.run_requests or []]

    assert look() == [], "the first look only remembers"
    assert look() == []
    (project.root / "photos/deep").mkdir()
    (project.root / "photos/deep/two.txt").write_text("two")
    assert look() == [], "it may still be growing"
    monkeypatch.setattr(automation, "QUIET", 0.0)
    first = look()
    assert len(first) == 1
    assert look() == []
    (project.root / "photos/one.txt").unlink()
    second = look()
    assert len(second) == 1
    assert first != second
    project.edit("params.yaml", "path: photos", "path: nowhere")
    assert look() == []
