"""Dagster's own processes on a small project: the webserver asked by GraphQL, all of them started and killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import dagster as dg
import psutil

from assets.project import ROOT_VARIABLE

ROOT = Path(__file__).parents[2]
LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } }
}
"""
RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
REPOSITORY = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
TAGS = "{ runsOrError(limit: 50) { ... on Runs { results { jobName status tags { key value } } } } }"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """Processes of Dagster on a project, each named by its part, with an instance of their own.

    Args:
        project: the folder with dvc.yaml.
        home: DAGSTER_HOME, to be made.
    """

    def __init__(self, project: Path, home: Path) -> None:
        self.project = project
        self.home = home
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        home.mkdir()
        (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())

    def start(self, part: str, module: str, *words: str) -> None:
        """Start a part: ``python -m MODULE WORDS``."""
        environment = {**os.environ, "DAGSTER_HOME": str(self.home), ROOT_VARIABLE: str(self.project)}
        with open(self.home / f"{part}.log", "a") as log:
            self.processes[part] = subprocess.Popen(
                [sys.executable, "-m", module, *words],
                cwd=self.project,
                env={**environment, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )

    def kill(self, part: str) -> None:
        """kill -9."""
        process = self.processes[part]
        assert process.poll() is None, f"{part} had ended by itself: {self.log(part)}"
        process.kill()
        process.wait()

    def log(self, part: str) -> str:
        return (self.home / f"{part}.log").read_text()[-2000:]

    def ask(self, query: str, **variables: object) -> dict:
        """The answer to a GraphQL query."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)["data"]

    def is_up(self) -> bool:
        for part, process in self.processes.items():
            assert process.poll() is None, self.log(part)
        try:
            return "RepositoryConnection" in str(self.ask("{repositoriesOrError{__typename}}"))
        except OSError:
            return False

    def runs(self, what: str = "status") -> list[str]:
        """A field of each run, the newest first."""
        found = self.ask(f"{{runsOrError(limit:50){{... on Runs{{results{{{what}}}}}}}}}")
        return [run[what] for run in found["runsOrError"]["results"]]

    def materialisations(self, stage: str) -> int:
        key = json.dumps([stage])
        found = self.ask(f"{{assetOrError(assetKey:{{path:{key}}}){{... on Asset{{assetMaterializations{{runId}}}}}}}}")
        return len(found["assetOrError"].get("assetMaterializations") or [])

    def stop(self) -> None:
        """End all of them and what they started."""
        alive = {part: process for part, process in self.processes.items() if process.poll() is None}
        children = [c for process in alive.values() for c in psutil.Process(process.pid).children(recursive=True)]
        for process in alive.values():
            process.send_signal(signal.SIGINT)
        for process in alive.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue


class Servers(Server):
    """Webserver, daemon and code location apart, as deploy/ has them."""

    def __init__(self, project: Path, home: Path) -> None:
        super().__init__(project, home)
        with dg.DagsterInstance.from_config(str(home)):
            pass  # its tables are made, so that the parts do not all make them at once
        self.code_port = free_port()
        where = ["-h", "127.0.0.1", "-p", str(self.code_port)]
        self.start("code", "dagster", "api", "grpc", *where, "-m", "assets.definitions")
        for part in ("webserver", "daemon"):
            self.begin(part)

    def begin(self, part: str) -> None:
        code = ["--grpc-host", "127.0.0.1", "--grpc-port", str(self.code_port)]
        if part == "webserver":
            self.start(part, "dagster_webserver", "-h", "127.0.0.1", "-p", str(self.port), *code)
        else:
            self.start(part, "dagster._daemon", "run", *code)

    def is_loaded(self) -> bool:
        return self.is_up() and bool(self.ask(REPOSITORY)["repositoriesOrError"]["nodes"])

    def launch(self, job: str, config: dict | None = None) -> str:
        """Ask for a run as the UI does; its id."""
        node = self.ask(REPOSITORY)["repositoriesOrError"]["nodes"][0]
        place = {"repositoryName": node["name"], "repositoryLocationName": node["location"]["name"]}
        said = self.ask(LAUNCH, params={"selector": {**place, "jobName": job}, "runConfigData": config or {}})
        return said["launchRun"]["run"]["runId"]

    def status(self, run: str) -> str:
        return self.ask(RUN, id=run)["runOrError"]["status"]

    def tags(self) -> list[tuple[str, str, dict[str, str]]]:
        """Job, status and tags of each run, the newest first."""
        runs = self.ask(TAGS)["runsOrError"]["results"]
        return [(run["jobName"], run["status"], {t["key"]: t["value"] for t in run["tags"]}) for run in runs]
