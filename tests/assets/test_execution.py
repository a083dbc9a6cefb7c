"""One unit run through DVC: what is recorded, and what happens when it fails, waits or is stopped."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assets.execution import _stream
from assets.launchers import Local, Torchrun, launcher_of
from assets.metadata import describe, numbers
from ops.dag import Unit
from ops.locks import away, drop_dead_locks
from ops.runtime.errors import LineamentError

from .conftest import Project


def last_event(project: Project, stage: str, partition: str | None = None) -> dg.AssetMaterialization:
    where = dg.AssetRecordsFilter(dg.AssetKey(stage), asset_partitions=[partition] if partition else None)
    found = project.instance.fetch_materializations(where, limit=1).records[0].asset_materialization
    assert found is not None
    return found


def what_dvc_did(project: Project, stage: str, partition: str | None = None) -> object:
    return last_event(project, stage, partition).metadata["dvc"].value


def logged(project: Project, result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(entry.user_message for entry in project.instance.all_logs(result.run_id))


def hold_lock(project: Project, path: str, pid: int) -> None:
    """A lock file that says a process writes a path."""
    entry = {"write": {str(project.root / path): {"pid": pid, "cmd": "dvc repro"}}, "read": {}}
    (project.root / ".dvc/tmp/rwlock").write_text(json.dumps(entry))


def test_skipped_ran_and_restored(project: Project) -> None:
    project.tell()
    result = project.materialize("crawl", partition="studio")
    assert project.ran() == []
    assert what_dvc_did(project, "crawl", "studio") == "skipped"
    assert "did not receive any messages" not in logged(project, result)

    project.edit("params.yaml", "word: s1", "word: s2")
    result = project.materialize("crawl", partition="studio")
    assert project.ran() == ["made/raw/studio.txt"]
    assert what_dvc_did(project, "crawl", "studio") == "ran"
    assert "a message from made/raw/studio.txt" in logged(project, result)

    project.edit("params.yaml", "word: s2", "word: s1")
    project.materialize("crawl", partition="studio")
    assert project.ran() == []
    assert what_dvc_did(project, "crawl", "studio") == "restored"

    project.materialize("crawl", partition="studio", force=True)
    assert project.ran() == ["made/raw/studio.txt"]
    seconds = last_event(project, "crawl", "studio").metadata["seconds"].value
    assert isinstance(seconds, float)
    assert 0 < seconds < 60


def test_a_failure_says_the_last_lines_and_stops_what_follows(project: Project) -> None:
    project.tell()
    project.edit("params.yaml", "word: b", "word: fail")
    result = project.materialize("shards", "evaluate_tiny", raise_on_error=False)
    assert not result.success
    failure = result.failure_data_for_node("shards")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert "a line before the end\nthis input is no good" in str(failure.user_failure_data.description)
    assert "a line before the end" in str(failure.user_failure_data.metadata["last lines"].value)
    assert project.ran() == []


def test_waits_for_another_run_of_the_same_stage(project: Project) -> None:
    project.tell()
    project.edit("params.yaml", "word: b", "word: b2")
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2.5)", "dvc"])
    hold_lock(project, "made/shards/all.txt", other.pid)
    with contextlib.closing(other.stdin or io.BytesIO()):
        result = project.materialize("shards")
    other.wait()
    assert "DVC is busy with shards; trying again" in logged(project, result)
    assert project.ran() == ["made/shards/all.txt"]


def test_gives_up_when_patience_ends(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEAMENT_PATIENCE", "0")
    project.edit("params.yaml", "word: b", "word: b2")
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dvc"])
    hold_lock(project, "made/shards/all.txt", other.pid)
    try:
        result = project.materialize("shards", raise_on_error=False)
    finally:
        other.kill()
        other.wait()
    failure = result.failure_data_for_node("shards")
    assert failure is not None
    assert "is busy, it is being blocked by" in str(failure.user_failure_data)
    assert project.ran() == []


@pytest.mark.parametrize("damaged", [False, True])
def test_a_lock_that_a_kill_left_behind(project: Project, damaged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of the dead process now belongs to another program; or the lock file is cut short."""
    monkeypatch.setenv("LINEAMENT_PATIENCE", "30")
    project.tell()
    project.edit("params.yaml", "word: b", "word: b2")
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        hold_lock(project, "made/shards/all.txt", innocent.pid)
        if damaged:
            lock = project.root / ".dvc/tmp/rwlock"
            lock.write_text(lock.read_text()[:20])
        result = project.materialize("shards")
    finally:
        innocent.kill()
        innocent.wait()
    assert project.ran() == ["made/shards/all.txt"]
    assert (f"dropped the locks of dead processes {innocent.pid}" in logged(project, result)) is not damaged


def test_only_the_dead_lose_their_locks(project: Project) -> None:
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dvc"])
    dead = subprocess.Popen(["true"])
    dead.wait()
    info = {"pid": alive.pid, "cmd": "dvc repro"}
    gone = {"pid": dead.pid, "cmd": "dvc repro"}
    lock = project.root / ".dvc/tmp/rwlock"
    lock.write_text(json.dumps({"write": {"/a": gone, "/b": info}, "read": {"/c": [gone, info], "/d": [gone]}}))
    try:
        with away(project.root):
            assert drop_dead_locks(project.root) == set(), "a pod's processes cannot be seen from here"
        assert drop_dead_locks(project.root) == {dead.pid}
    finally:
        alive.kill()
        alive.wait()
    assert json.loads(lock.read_text()) == {"write": {"/b": info}, "read": {"/c": [info]}}


def test_a_stopped_wait_ends_the_command_and_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "pathlib.Path('pids').write_text(f'{__import__(\"os\").getpid()} {child.pid}')\n"
        "print('started', flush=True)\n"
        "child.wait()\n"
    )

    class Cancelled:
        def write(self, text: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", Cancelled())
    with pytest.raises(KeyboardInterrupt):
        _stream(tmp_path, [sys.executable, "-c", script], os.environ)
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    deadline = time.monotonic() + 10
    while any(map(_runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, pids))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_launchers_are_chosen_a_stage_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("launchers:\n  train_tiny:\n    kind: torchrun\n    processes: 3\n")
    chosen = launcher_of(tmp_path, "train_tiny")
    assert chosen == Torchrun(kind="torchrun", processes=3)
    assert "--nproc-per-node=3" in chosen.environment()["LINEAMENT_LAUNCH"]
    assert launcher_of(tmp_path, "screen") == Local()
    assert launcher_of(tmp_path / "nowhere", "screen") == Local()
    (tmp_path / "params.yaml").write_text("launchers:\n  train_tiny:\n    kind: torchrun\n    procesess: 3\n")
    with pytest.raises(LineamentError, match="launchers"):
        launcher_of(tmp_path, "train_tiny")


def test_the_stages_command_gets_the_launchers_environment(project: Project) -> None:
    project.tell()
    project.edit("code/shards.py", "# shards", 'import os; print("LAUNCH=" + os.environ["LINEAMENT_LAUNCH"])')
    project.edit("params.yaml", "screen:\n", "launchers:\n  shards:\n    kind: torchrun\n    processes: 2\nscreen:\n")
    project.edit("params.yaml", "word: b", "word: fail")
    result = project.materialize("shards", raise_on_error=False)
    failure = result.failure_data_for_node("shards")
    assert "LAUNCH=torch.distributed.run --standalone --nproc-per-node=2" in str(failure)


def test_metadata_shows_numbers_picture_and_columns(tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text(json.dumps({"in": 7, "kept": 5, "reasons": {"blurred": 2}, "text": "x"}))
    noise = np.random.default_rng(0).integers(0, 255, (300, 1200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "sheet.png")
    pq.write_table(pa.table({"id": ["a", "b"], "score": pa.array([0.1, 0.2], pa.float32())}), tmp_path / "t.parquet")
    outs = ("counts.json", "sheet.png", "t.parquet", "missing.png")
    found = describe(tmp_path, Unit("s", None, "", (), (), outs, ("counts.json",)))
    assert (found["in"].value, found["kept"].value, found["reasons.blurred"].value) == (7, 5, 2)
    assert "text" not in found
    preview = str(found["preview"].value)
    assert preview.startswith("![sheet.png](data:image/")
    assert len(preview) < 60_000
    assert found["preview file"].value == str(tmp_path / "sheet.png")
    assert found["dagster/row_count"].value == 2
    schema = found["dagster/column_schema"].value
    assert [(c.name, c.type) for c in schema.columns] == [("id", "string"), ("score", "float")]


def test_numbers_leaves_out_what_is_none() -> None:
    values = {"a": 1, "b": {"c": 0.5, "d": {"e": 2}}, "f": True, "g": None}
    assert dict(numbers(values)) == {"a": 1, "b.c": 0.5, "b.d.e": 2}


def test_a_stage_that_was_killed_is_started_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.tell()
    kill_once = (
        "# shards\nimport os, pathlib, signal\n"
        "if not pathlib.Path('killed').exists():\n"
        "    pathlib.Path('killed').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    project.edit("code/shards.py", "# shards", kill_once)
    result = project.materialize("shards")
    assert project.ran() == ["made/shards/all.txt"]
    assert "shards was killed" in logged(project, result)


def test_a_run_that_takes_too_long_is_interrupted_not_killed(tmp_path: Path) -> None:
    script = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: (pathlib.Path('saved').touch(), sys.exit(130)))\n"
        "print('started', flush=True)\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(dg.Failure, match="ended after 0.0003 hours"):
        _stream(tmp_path, [sys.executable, "-c", script], os.environ, hours=0.0003)
    assert (tmp_path / "saved").exists()
