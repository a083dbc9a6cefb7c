"""The doctor's findings on projects that lack something, each with its remedy; and the look before a stage starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ops import doctor
from ops.cli import main
from ops.runtime import preflight
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage

ROOT = Path(__file__).parents[2]
HUGE = 1e9  # GB


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").write_text("stages:\n  one:\n    cmd: 'true'\n")
    (tmp_path / "params.yaml").write_text("profile: smoke\n")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def findings(project: Path, what: str) -> list[doctor.Finding]:
    return [finding for finding in doctor.examine(project) if finding.what == what]


def test_this_repository_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    failed = [f for f in doctor.examine(ROOT) if f.level == "fail" and f.what not in ("disk", "memory")]
    assert failed == []


def test_every_finding_that_is_not_ok_has_a_remedy(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "params.yaml").write_text("profile: gpu\nlaunchers:\n  one:\n    kind: slurm\n")
    found = doctor.examine(project)
    assert all(finding.remedy for finding in found if finding.level != "ok")
    assert {"python", "torch", "cuda", "disk", "memory", "weights", "dvc.yaml", "remote", "dagster"} <= {
        finding.what for finding in found
    }
    code = doctor.main(project, as_json=True)
    assert json.loads(capsys.readouterr().out) == [vars(finding) for finding in found]
    assert code == any(finding.level == "fail" for finding in found)


def test_too_little_room(project: Path) -> None:
    (project / "params.yaml").write_text(f"preflight:\n  stages:\n    one:\n      disk_gb: {HUGE}\n")
    (disk,) = findings(project, "disk")
    assert (disk.level, findings(project, "memory")[0].level) == ("fail", "ok")
    assert "dvc gc" in disk.remedy
    assert doctor.main(project) == 1


def test_remotes(project: Path) -> None:
    assert findings(project, "remote")[0].level == "note"
    config = "[core]\n    remote = near\n['remote \"near\"']\n    url = ../store\n"
    (project / ".dvc/config").write_text(config)
    assert findings(project, "remote")[0].level == "fail"
    (project / "store").mkdir()
    (near,) = findings(project, "remote")
    assert (near.level, near.said) == ("ok", "near: ../store (default)")
    (project / ".dvc/config").write_text("['remote \"far\"']\n    url = s3://bucket/lineament\n")
    (far,) = findings(project, "remote")
    installed = doctor.importlib.util.find_spec("dvc_s3") is not None
    assert far.level == ("ok" if installed else "fail")
    assert installed or far.remedy == "pip install 'lineament[s3]'"


def test_no_dvc_a_broken_graph_and_a_foreign_instance(project: Path) -> None:
    (project / ".dvc/config").unlink()
    (project / ".dvc").rmdir()
    assert findings(project, "dvc")[0].remedy == "dvc init"
    (project / "dvc.yaml").write_text("stages: [")
    assert [f.level for f in doctor.examine(project) if "dvc.yaml" in f.said] == ["fail"]
    (project / ".dagster").mkdir()
    (project / ".dagster/dagster.yaml").write_text("telemetry: {enabled: true}\n")
    (project / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert [f.level for f in findings(project, "dagster")] == ["ok", "note"]


def test_the_instance_has_a_slot_for_each_gpu(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "dagster.yaml").write_text("concurrency:\n  pools: {default_limit: 1}\n")
    monkeypatch.setenv("LINEAMENT_GPUS", "2")
    assert main(["instance"]) == 0
    assert [f.level for f in findings(project, "dagster")] == ["ok"]
    monkeypatch.setenv("LINEAMENT_GPUS", "4")
    assert findings(project, "dagster")[1].remedy.startswith("lineament instance")


def test_unlocking(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    (project / ".dvc/tmp").mkdir()
    lock = project / ".dvc/tmp/rwlock"
    lock.write_text(json.dumps({"write": {"/a": {"pid": dead.pid, "cmd": "dvc repro"}}, "read": {}}))
    assert "lineament unlock" in findings(project, "locks")[0].remedy
    assert main(["unlock"]) == 0
    assert str(dead.pid) in capsys.readouterr().out
    assert findings(project, "locks") == []
    lock.write_text('{"wri')  # cut short by a kill
    assert main(["unlock"]) == 0
    assert not lock.exists()


def test_versions_that_differ_from_the_pins(project: Path) -> None:
    (project / "constraints.txt").write_text("numpy==0.0.1\nno-such-package==1.0\n")
    assert "numpy" in findings(project, "versions")[0].said


def test_an_absent_launcher(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "params.yaml").write_text("launchers:\n  one:\n    kind: slurm\n")
    monkeypatch.setenv("PATH", "")
    (found,) = findings(project, "launchers")
    assert "sbatch" in found.said
    assert found.level == "fail"


class NoParams(Params):
    pass


ran: list[str] = []


@stage("one", NoParams)
def one(s: Stage[NoParams], out: Path) -> None:
    """A stage that says it ran."""
    ran.append(s.name)


def test_a_stage_that_has_no_room_does_not_start(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran.clear()
    (project / "params.yaml").write_text("one: {}\n")
    assert one(["out"]) == 0
    (project / "params.yaml").write_text(f"one: {{}}\npreflight:\n  stages:\n    one:\n      memory_gb: {HUGE}\n")
    assert one(["out"]) == 1
    assert ran == ["one"]
    said = capsys.readouterr().err
    assert "GB of memory are available" in said
    assert "preflight.stages.one" in said
    assert sys.getsizeof(said) < 2000


def test_thresholds_of_single_stages() -> None:
    params = preflight.PreflightParams(disk_gb=2, memory_gb=1, stages={"a": preflight.Room(memory_gb=8)})
    assert params.of("a") == (2, 8)
    assert params.of("b") == (2, 1)


def test_a_misspelt_threshold_is_named(project: Path) -> None:
    (project / "params.yaml").write_text("preflight:\n  disc_gb: 1\n")
    with pytest.raises(LineamentError, match="the nearest valid key is 'disk_gb'"):
        preflight.check_room("one", project / "params.yaml")


def test_messages_as_json_for_those_who_collect_logs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ops.runtime.progress import Reporter

    monkeypatch.setenv("LINEAMENT_LOG", "json")
    Reporter("screen").log('said "so"')
    record = json.loads(capsys.readouterr().err)
    assert (record["stage"], record["message"]) == ("screen", 'said "so"')
    assert record["time"].endswith("+00:00")


def test_a_reader_that_has_seen_enough_ends_a_command_quietly() -> None:
    words = f"set -o pipefail; {sys.executable} -m ops.cli weights | true"
    done = subprocess.run(["bash", "-c", words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
