"""The UI as a person sees it: `dagster dev` on a small project, the lineage in a browser, a click on Materialize."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from assets.project import ROOT_VARIABLE

from .browser import CHROMIUM, Browser, wait_until
from .conftest import Project

ROOT = Path(__file__).parents[2]


class Server:
    """`dagster dev`: webserver, daemon and code location of a project."""

    def __init__(self, project: Path, home: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        home.mkdir()
        (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
        words = ["-m", "dagster", "dev", "-m", "assets.definitions", "--host", "127.0.0.1", "--port", str(self.port)]
        environment = {**os.environ, "DAGSTER_HOME": str(home), ROOT_VARIABLE: str(project), "PYTHONPATH": str(ROOT)}
        self.log = home / "dev.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words], cwd=project, env=environment, stdout=log, stderr=log
            )

    def ask(self, query: str) -> dict:
        """The answer to a GraphQL query."""
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)["data"]

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            return "RepositoryConnection" in str(self.ask("{repositoriesOrError{__typename}}"))
        except OSError:
            return False

    def runs(self) -> list[str]:
        found = self.ask("{runsOrError(limit:50){... on Runs{results{status}}}}")
        return [run["status"] for run in found["runsOrError"]["results"]]

    def materialisations(self, stage: str) -> int:
        key = json.dumps([stage])
        found = self.ask(f"{{assetOrError(assetKey:{{path:{key}}}){{... on Asset{{assetMaterializations{{runId}}}}}}}}")
        return len(found["assetOrError"].get("assetMaterializations") or [])

    def stop(self) -> None:
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue


@pytest.fixture
def server(project: Project, tmp_path: Path) -> Iterator[Server]:
    found = Server(project.root, tmp_path / "home")
    try:
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
