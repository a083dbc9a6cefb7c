"""What is backed up comes back, also from a database that is being written to."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ops.backup import back_up, restore
from ops.runtime.errors import LineamentError


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, Path]:
    root, home = tmp_path / "project", tmp_path / "home"
    for name, text in {
        "data/registry.json": "{}",
        "data/history/a.json": "{}",
        "data/champions/giraffe/aamnce.dvc": "outs: []",
        "data/champions/giraffe/.gitignore": "/aamnce",
        "data/champions/giraffe/aamnce/weights": "large",
        "data/raw/picture": "large",
        "params.yaml": "a: 1",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (home / "history").mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}")
    return root, home


def test_back_and_forth_while_a_writer_is_at_work(project: tuple[Path, Path], tmp_path: Path) -> None:
    root, home = project
    writer = sqlite3.connect(home / "history/runs.db")
    writer.execute("pragma journal_mode=wal")
    writer.execute("create table events (number integer)")
    writer.executemany("insert into events values (?)", [(n,) for n in range(1000)])
    writer.commit()
    writer.execute("insert into events values (-1)")  # not committed: no part of the backup
    names = back_up(root, home, tmp_path / "b.tar.gz")
    writer.close()
    assert {"data/champions/giraffe/aamnce.dvc", "data/champions/giraffe/.gitignore"} <= set(names)
    assert not any("large" in name or "raw" in name or "weights" in name for name in names), "DVC keeps these"
    new, new_home = tmp_path / "new", tmp_path / "new_home"
    new.mkdir()
    new_home.mkdir()
    restore(tmp_path / "b.tar.gz", new, new_home)
    assert (new / "params.yaml").read_text() == "a: 1"
    assert (new_home / "dagster.yaml").is_file()
    found = sqlite3.connect(new_home / "history/runs.db")
    assert found.execute("select count(*), min(number) from events").fetchone() == (1000, 0)
    found.close()
    with pytest.raises(LineamentError, match="an event log already"):
        restore(tmp_path / "b.tar.gz", new, new_home)


def test_a_damaged_archive(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_bytes(b"no archive")
    with pytest.raises(LineamentError, match="cannot be restored"):
        restore(tmp_path / "b.tar.gz", tmp_path, tmp_path / "home")
