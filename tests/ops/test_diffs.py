"""What `dvc metrics diff`, `params diff` and `plots diff` say between a commit and the workspace; what is plotted."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from ops.dag import Dag
from ops.versioning import DVC, environment

ROOT = Path(__file__).parents[2]

DVC_YAML = r"""
stages:
  train:
    cmd: >-
      printf 'images,loss\n8,${train.rate}\n16,0.5\n' > curves.csv &&
      printf '{"variants": {"plain": {"auc": ${train.rate}}}}' > metrics.json
    params:
      - train
    outs:
      - curves.csv
    metrics:
      - metrics.json:
          cache: false
plots:
  - Loss:
      x: images
      y:
        curves.csv: loss
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage that was run and committed with a rate of 0.25, and run again with 0.75."""
    root = tmp_path_factory.mktemp("diffs")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text("train: {rate: 0.25}\n")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run([*DVC, "init", "-q"], cwd=root, env=environment(), check=True)
    dvc(root, "repro", "--quiet")
    subprocess.run([*git, "add", "-A"], cwd=root, check=True)
    subprocess.run([*git, "commit", "-qm", "one"], cwd=root, check=True)
    (root / "params.yaml").write_text("train: {rate: 0.75}\n")
    dvc(root, "repro", "--quiet")
    return root


def dvc(root: Path, *words: str) -> None:
    from dvc.cli import main

    with contextlib.chdir(root):
        assert main(list(words)) == 0


def test_metrics_diff(project: Path) -> None:
    with contextlib.chdir(project):
        diff = Repo().metrics.diff("HEAD")["diff"]
    auc = diff["metrics.json"]["variants.plain.auc"]
    assert (auc["old"], auc["new"], auc["diff"]) == (0.25, 0.75, 0.5)


def test_params_diff(project: Path) -> None:
    with contextlib.chdir(project):
        diff = Repo().params.diff("HEAD")["diff"]
    rate = diff["params.yaml"]["train.rate"]
    assert (rate["old"], rate["new"]) == (0.25, 0.75)


def test_plots_diff(project: Path, tmp_path: Path) -> None:
    dvc(project, "plots", "diff", "--quiet", "-o", str(tmp_path / "plots"), "HEAD")
    page = (tmp_path / "plots/index.html").read_text()
    points = re.findall(r'"loss": "([\d.]+)"|"rev": "(HEAD|workspace)"', page)
    assert {loss for loss, _ in points if loss} == {"0.25", "0.75", "0.5"}, "the curves of both lie in one plot"
    assert {revision for _, revision in points if revision} == {"HEAD", "workspace"}


def test_every_plot_is_of_a_curve_that_a_stage_makes() -> None:
    dag = Dag.load(ROOT)
    made = [out for unit in dag.units.values() for out in unit.outs]
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    files = {file for plot in plots for about in plot.values() for file in about["y"]}
    assert {file.split("/")[2] for file in files} == {"avatar", "giraffe", "heads", "portrait"}
    assert not [file for file in files if not any(file.startswith(f"{out}/") for out in made)]
