"""A colleague's clone: `dvc pull`, then `dvc repro` does nothing; and what a remote brings back."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ops.versioning import DVC, environment

from .conftest import Project


def shell(folder: Path, *words: str) -> str:
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_a_fresh_clone_pulls_and_has_nothing_to_do(project: Project, tmp_path: Path) -> None:
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    shell(project.root, *DVC, "remote", "add", "-q", "-d", "near", str(remote))
    shell(project.root, *DVC, "push", "-q", "--run-cache")
    shell(project.root, "git", "add", "-A")
    shell(project.root, "git", "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "all")
    shell(tmp_path, "git", "clone", "-q", str(project.root), str(clone))
    assert not (clone / "made/shards/all.txt").exists()
    shell(clone, *DVC, "pull", "-q", "--run-cache")
    assert (clone / "made/shards/all.txt").read_text() == (project.root / "made/shards/all.txt").read_text()
    (clone / "ran.log").unlink(missing_ok=True)
    said = shell(clone, *DVC, "repro")
    assert not (clone / "ran.log").exists(), said
    # What a colleague has run with other values comes out of the shared run cache instead of being run again.
    project.edit("params.yaml", "word: b", "word: b2")
    project.repro("shards")
    shell(project.root, *DVC, "push", "-q", "--run-cache")
    params = clone / "params.yaml"
    params.write_text(params.read_text().replace("word: b", "word: b2"))
    shell(clone, *DVC, "repro", "--pull", "shards")
    assert not (clone / "ran.log").exists()
    assert (clone / "made/shards/all.txt").read_text().startswith("b2(")
