"""A training stopped from the UI: Terminate is clicked in a browser, the process saves and ends, the next goes on."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from ops.versioning import DVC, environment
from tests.ops.train.tiny import write_shards

from .browser import CHROMIUM, Browser, wait_until
from .servers import Server

FIELD = {"hidden": 8, "blocks": 2, "skips": [], "point_octaves": 2, "view_octaves": 1}
STEPS = 100
# The stage, each of its steps slow until there is a file `hurry`: long enough to be caught at work, wherever this runs.
SLOWLY = """
import pathlib, time
from ops.train.giraffe import main
from ops.train.objectives.giraffe import GiraffeObjective
after = GiraffeObjective.after
def slow(self, moment):
    time.sleep(0 if pathlib.Path("hurry").exists() else 0.3)
    after(self, moment)
GiraffeObjective.after = slow
raise SystemExit(main())
"""
PARAMS = {
    "train_giraffe": {
        "trainer": {
            "images": 2 * STEPS, "batch": 2, "device": "cpu", "threads": 1, "workers": 0, "log_every": 100,
            "checkpoint_every": 10 * STEPS, "snapshot_every": 10 * STEPS, "grid_rows": 2, "grid_columns": 3,
            "tensorboard": False,
        },
        "model": {
            "resolution": 16, "feature_resolution": 8, "feature_channels": 8, "min_channels": 4, "z_dim": 4,
            "z_dim_background": 4, "samples": 4, "discriminator_channels": 8, "projection": 4, "object_field": FIELD,
            "background_field": FIELD,
        },
        "objective": {"queue": 16},
    }
}  # fmt: skip
DVC_YAML = """
stages:
  train_giraffe:
    cmd: python slowly.py data/shards/faces data/checkpoints/giraffe --variant giraffe
    deps:
      - data/shards/faces
    params:
      - train_giraffe
    outs:
      - data/checkpoints/giraffe
    meta: {group: models, pool: gpu}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "project"
    write_shards(root / "data/shards/faces", side=16)
    (root / "slowly.py").write_text(SLOWLY)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run([*DVC, "init", "-q"], cwd=root, env=environment(), check=True)
    found = Server(root, tmp_path / "home")
    try:
        found.start(
            "dev", "dagster", "dev", "-m", "assets.definitions", "--host", "127.0.0.1", "--port", str(found.port)
        )
        wait_until(found.is_up, 90, "dagster dev")
        yield found
    finally:
        found.stop()


def checkpoints(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("data/.work/train_giraffe/*/run-*/step-*"))


def trainings(root: Path) -> list[psutil.Process]:
    """The processes that train in a project."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(root) and "slowly.py" in process.cmdline():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (apt-get install chromium)")
def test_a_training_is_terminated_in_the_ui_and_goes_on_in_the_next_run(server: Server, tmp_path: Path) -> None:
    root = server.project
    pictures = Path(os.environ.get("LINEAMENT_SCREENSHOTS") or tmp_path / "screenshots")
    with Browser(tmp_path / "chromium") as browser:
        browser.open(f"{server.address}/assets/train_giraffe")
        browser.click("Materialize")
        wait_until(lambda: checkpoints(root) == ["step-0000000"], 60, "the training to begin")
        [process] = trainings(root)
        browser.open(f"{server.address}/runs/{server.runs('runId')[0]}")
        browser.click("Terminate")
        browser.screenshot(pictures / "terminate.png")
        browser.click("Terminate 1 run")
        wait_until(lambda: server.runs() == ["CANCELED"], 60, "the run to be cancelled")
        assert not process.is_running()
        assert not trainings(root)
        [first, last] = checkpoints(root)
        step = int(re.sub(r"\D", "", last))
        assert (first, 0 < step < STEPS) == ("step-0000000", True)
        assert not (root / "data/checkpoints/giraffe").exists()
        (root / "hurry").touch()
        browser.open(f"{server.address}/assets/train_giraffe")
        browser.click("Materialize")
        wait_until(lambda: server.runs() == ["SUCCESS", "CANCELED"], 90, "the second run to succeed")
        browser.open(f"{server.address}/runs/{server.runs('runId')[0]}")
        browser.wait_for(f"going on after step {step} of {STEPS}")
        browser.screenshot(pictures / "resumed.png")
    assert (root / "data/checkpoints/giraffe/config.json").is_file()
    assert server.materialisations("train_giraffe") == 1
