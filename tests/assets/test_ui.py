"""The UI as a person sees it: `dagster dev` on a small project, the lineage in a browser, a click on Materialize."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .browser import CHROMIUM, Browser, wait_until
from .conftest import Project
from .servers import Server


@pytest.fixture
def server(project: Project, tmp_path: Path) -> Iterator[Server]:
    found = Server(project.root, tmp_path / "home")
    try:
        found.start(
            "dev", "dagster", "dev", "-m", "assets.definitions", "--host", "127.0.0.1", "--port", str(found.port)
        )
        wait_until(found.is_up, 90, "dagster dev")
        yield found
    finally:
        found.stop()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (apt-get install chromium)")
def test_a_person_materialises_an_asset(server: Server, project: Project, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("LINEAMENT_SCREENSHOTS") or tmp_path / "screenshots")
    project.edit("params.yaml", "word: b", "word: b2")
    with Browser(tmp_path / "chromium") as browser:
        browser.open(f"{server.address}/asset-groups")
        for group in ("raw", "labels", "shards", "models", "evaluation"):
            browser.wait_for(group)
        browser.screenshot(pictures / "lineage.png")
        browser.open(f"{server.address}/assets/shards")
        browser.click("Materialize")
        wait_until(lambda: "SUCCESS" in server.runs(), 90, "the run to succeed")
        assert project.ran() == ["made/shards/all.txt"]
        browser.wait_for("ran")
        browser.screenshot(pictures / "asset.png")
        browser.open(f"{server.address}/jobs")
        for job in ("demo", "refresh", "retrain_tiny", "evaluate_all"):
            browser.wait_for(job)
        browser.screenshot(pictures / "jobs.png")
    wait_until(lambda: server.materialisations("evaluate_tiny"), 45, "the sensor to tell of what was run by hand")
    assert all(path.stat().st_size > 10_000 for path in pictures.glob("*.png"))
