"""Several units at a time: the order holds, independent ones overlap, failures end it, a second run does nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ops.cli import main
from ops.repro import repro, what_dvc_did
from ops.runtime.errors import LineamentError
from ops.versioning import DVC, environment

# Each of two stages ends only when the other has begun; the third reads both.
MEET = """
import pathlib, sys, time
mine, other, out = map(pathlib.Path, sys.argv[1:])
mine.touch()
for _ in range(600):
    if other.exists():
        break
    time.sleep(0.05)
else:
    sys.exit("the other one never began")
print(f"[{out.stem}] they met")
print("a word of some library")
out.write_text(out.stem)
"""
JOIN = """
import pathlib, sys
words = [pathlib.Path(name).read_text() for name in sys.argv[2:]]
if pathlib.Path("broken").exists():
    print("just before")
    sys.exit("this input is no good")
pathlib.Path(sys.argv[1]).write_text("+".join(words))
"""
DVC_YAML = """
stages:
  left:
    cmd: python meet.py left.began right.began left.txt
    deps: [meet.py]
    outs: [left.txt]
  right:
    cmd: python meet.py right.began left.began right.txt
    deps: [meet.py]
    outs: [right.txt]
  both:
    cmd: python join.py both.txt left.txt right.txt
    deps: [join.py, left.txt, right.txt]
    outs: [both.txt]
  end:
    cmd: python join.py end.txt both.txt
    deps: [both.txt]
    outs: [end.txt]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in {"meet.py": MEET, "join.py": JOIN, "dvc.yaml": DVC_YAML}.items():
        (tmp_path / name).write_text(text)
    for words in (("init", "-q", "--no-scm"), ("config", "core.analytics", "false")):
        subprocess.run([*DVC, *words], cwd=tmp_path, env=environment(), check=True)
    return tmp_path


def test_independent_units_run_at_the_same_time_and_the_others_after_them(project: Path) -> None:
    said: list[str] = []
    assert repro(project, jobs=2, say=said.append) is None
    assert (project / "end.txt").read_text() == "left+right"
    assert "[left] they met" in said
    assert "[right] they met" in said
    assert not any("library" in line or "Updating" in line for line in said)
    ends = [line.split()[1].rstrip(":") for line in said if "/4 " in line]
    assert set(ends[:2]) == {"left", "right"}
    assert ends[2:] == ["both", "end"]
    status = subprocess.run([*DVC, "status"], cwd=project, env=environment(), capture_output=True, text=True)
    assert "up to date" in status.stdout

    said.clear()
    assert repro(project, jobs=2, say=said.append) is None
    assert said == ["4 of 4 units are up to date"]

    said.clear()
    (project / "broken").touch()
    (project / "join.py").write_text(JOIN + "# changed\n")
    failed = repro(project, jobs=2, say=said.append)
    assert failed
    assert failed.name == "both"
    assert failed.what is None
    assert "this input is no good" in "\n".join(failed.lines)
    assert "2 of 4 units are up to date" in said
    assert not any("end:" in line for line in said)


def test_only_what_the_named_units_read_from_is_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "right.began").touch()
    monkeypatch.chdir(project)
    assert main(["repro", "left", "--jobs", "1"]) == 0
    assert (project / "left.txt").exists()
    assert not (project / "right.txt").exists()
    assert "1/1  left: ran" in capsys.readouterr().out
    (project / "left.txt").unlink()
    assert main(["repro", "left"]) == 0
    assert "left: restored" in capsys.readouterr().out
    (project / "broken").touch()
    assert main(["repro"]) == 1
    assert "both failed" in capsys.readouterr().err
    with pytest.raises(LineamentError, match="no stage or unit 'middle'"):
        repro(project, ["middle"])
    with pytest.raises(LineamentError, match="at least one"):
        repro(project, jobs=0)


def test_what_dvc_did_is_read_from_its_words() -> None:
    assert what_dvc_did("a", ["Stage 'a' didn't change, skipping"]) == "skipped"
    assert what_dvc_did("a", ["Stage 'a' is cached - skipping run, checking out outputs"]) == "restored"
    assert what_dvc_did("a", ["Running stage 'a':"]) == "ran"
