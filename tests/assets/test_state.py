"""Dagster's idea of what is stale is DVC's, whoever ran what."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from assets.state import DATA_VERSION, UP_TO_DATE, Journal
from ops.ledger import read_lock

from .conftest import Project

Sync = Callable[[], dg.SkipReason]


def agree(project: Project) -> set[str]:
    stale = project.stale_by_dvc()
    assert project.stale_by_dagster() == stale
    return stale


def events(project: Project) -> int:
    return sum(
        len(project.instance.fetch_materializations(dg.AssetKey(stage), limit=100).records)
        for stage in project.dag.stages
    )


def test_nothing_known_then_all_known(project: Project, sync: Sync) -> None:
    assert project.stale_by_dagster() == set(project.dag.units)
    assert "crawl@studio" in str(sync())
    assert agree(project) == set()
    assert events(project) == len(project.dag.units)
    checks = [dg.AssetCheckKey(dg.AssetKey(stage), UP_TO_DATE) for stage in project.dag.stages]
    latest = project.instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    assert all(latest[key].event.asset_check_evaluation.passed for key in checks), "also what DVC says of them"


def test_upstream_alone_run_with_new_data(project: Project, sync: Sync) -> None:
    project.tell()
    project.edit("params.yaml", "word: a", "word: a2")
    project.repro("--single-item", "screen@studio", "screen@mine")
    sync()
    assert agree(project) == {"shards"}


def test_one_of_two_siblings_run(project: Project, sync: Sync) -> None:
    project.tell()
    project.edit("params.yaml", "word: b", "word: b2")
    project.repro("--single-item", "shards")
    project.repro("--single-item", "train_tiny@fancy")
    sync()
    assert agree(project) == {"train_tiny@plain", "evaluate_tiny"}


def test_a_consumer_that_ran_before_its_input_moved_on_is_stale(project: Project, sync: Sync) -> None:
    """Both ran between two looks: what the consumer read is told by its own dependencies, not by what is there now."""
    project.tell()
    project.edit("params.yaml", "word: m1", "word: m2")
    project.repro()
    project.edit("params.yaml", "word: s1", "word: s2")
    project.repro("--single-item", "crawl@studio", "screen@studio")
    project.edit("params.yaml", "word: c", "word: c2")
    project.repro("--single-item", "train_tiny@plain")
    sync()
    assert agree(project) == {"shards", "train_tiny@fancy", "evaluate_tiny"}


def test_all_from_dagster(project: Project, sync: Sync) -> None:
    project.edit("params.yaml", "word: s1", "word: s2")
    for source in ("studio", "mine"):
        project.materialize("crawl", "screen", partition=source)
    project.materialize("shards")
    for variant in ("plain", "fancy"):
        project.materialize("train_tiny", partition=variant)
    project.materialize("evaluate_tiny")
    assert agree(project) == set()
    before = events(project)
    sync()
    assert events(project) == before, "the sensor told what Dagster's own runs had told"
    assert agree(project) == set()


def test_forced_upstream_with_identical_bytes(project: Project, sync: Sync) -> None:
    project.tell()
    project.ran()
    project.materialize("crawl", partition="studio", force=True)
    project.repro("--single-item", "--force", "crawl@mine")
    assert project.ran() == ["made/raw/studio.txt", "made/raw/mine.txt"]
    sync()
    assert agree(project) == set()


def test_sync_twice_tells_once(project: Project, sync: Sync) -> None:
    sync()
    before = events(project)
    assert str(sync()) == str(dg.SkipReason("nothing has changed"))
    assert Journal.open(project.instance, project.root).tell() == []
    assert events(project) == before


def test_an_edit_of_code_that_nobody_has_run(project: Project, sync: Sync) -> None:
    project.tell()
    project.edit("code/screen.py", "# screen", "# screen, edited")
    assert agree(project) == {"screen@studio", "screen@mine"}
    sync()
    assert agree(project) == {"screen@studio", "screen@mine"}
    project.edit("code/screen.py", "# screen, edited", "# screen")
    sync()
    assert agree(project) == set()


@pytest.mark.parametrize(
    ("path", "stale"),
    [
        ("shared/a/z.py", {"screen@studio", "screen@mine"}),  # in a folder of code
        ("shared/a/__pycache__/z.pyc", set()),  # which .dvcignore names
        ("photos/two.txt", {"crawl@mine"}),  # in a folder that one source reads
    ],
)
def test_an_edit_within_a_folder(project: Project, sync: Sync, path: str, stale: set[str]) -> None:
    project.tell()
    (project.root / path).write_text("new")
    sync()
    assert agree(project) == stale


def test_code_run_again_to_the_same_bytes(project: Project, sync: Sync) -> None:
    project.tell()
    project.edit("code/screen.py", "# screen", "# screen, edited")
    project.repro("--single-item", "screen@mine")
    sync()
    assert agree(project) == {"screen@studio"}


@pytest.mark.parametrize(
    ("old", "new", "stale"),
    [
        ("word: c", "word: c2", {"train_tiny@plain", "train_tiny@fancy"}),
        ("word: m1", "word: m2", {"crawl@mine"}),  # of one source only: the other is not touched
    ],
)
def test_an_edit_of_a_parameter_that_nobody_has_run(
    project: Project, sync: Sync, old: str, new: str, stale: set[str]
) -> None:
    project.tell()
    project.edit("params.yaml", old, new)
    sync()
    assert agree(project) == stale
    project.edit("params.yaml", new, old)
    sync()
    assert agree(project) == set()


def test_a_new_source_leaves_the_others_fresh(project: Project, sync: Sync) -> None:
    project.tell()
    project.edit("params.yaml", "screen:\n", "  third:\n    kind: studio\n    path: photos\n    word: t1\nscreen:\n")
    assert project.stale_by_dagster() == {"crawl@third", "screen@third"}
    assert agree(project) == {"crawl@third", "screen@third"}


def test_hand_run_between_dagster_runs_is_told_before_what_consumed_it(project: Project, sync: Sync) -> None:
    project.tell()
    project.edit("params.yaml", "word: s1", "word: s2")
    project.repro("--single-item", "crawl@studio", "screen@studio")
    project.materialize("shards")
    assert agree(project) == {"train_tiny@plain", "train_tiny@fancy"}


@pytest.mark.parametrize("known_before", [True, False])
def test_checked_out_again(project: Project, sync: Sync, known_before: bool) -> None:
    """Also where Dagster has never heard of what the consumer read until it comes back."""
    if known_before:
        project.tell()
    lock, params = (project.root / "dvc.lock").read_text(), (project.root / "params.yaml").read_text()
    project.edit("params.yaml", "word: s1", "word: s2")
    project.repro("--single-item", "crawl@studio")
    sync()
    assert agree(project) == {"screen@studio"}
    (project.root / "dvc.lock").write_text(lock)
    (project.root / "params.yaml").write_text(params)
    project.dvc("checkout", "--force")
    sync()
    assert agree(project) == set()


def test_data_version_is_that_of_the_lock(project: Project, sync: Sync) -> None:
    project.tell()
    lock = read_lock(project.root)
    for name in project.dag.units:
        event = Journal.open(project.instance, project.root).newest(name)
        assert event is not None
        assert event.tags[DATA_VERSION] == lock[name].version
    assert lock["crawl@studio"].version != lock["crawl@mine"].version


def test_sync_tells_what_dvc_finds_out_of_date(project: Project, sync: Sync) -> None:
    """The definitions in memory are those of before the edit; the check looks at the files."""
    sync()
    project.edit("code/train.py", "# train", "# train, edited")
    sync()
    key = dg.AssetCheckKey(dg.AssetKey("train_tiny"), UP_TO_DATE)
    latest = project.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    evaluation = latest.event.asset_check_evaluation
    assert not evaluation.passed
    assert evaluation.description == "not up to date: train_tiny@plain, train_tiny@fancy"


def test_sync_waits_while_dvc_is_busy(project: Project, sync: Sync) -> None:
    (project.root / "dvc.lock").write_text("stages: [")
    assert "trying again" in str(sync())
