"""The files of deploy/: what they name exists, what they must not open is closed, and Postgres takes the events."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config import process_config
from dagster._core.workspace.load_target import WorkspaceFileTarget

from assets.launchers import Kubernetes

DEPLOY = Path(__file__).parents[2] / "deploy"
BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def load_workspace(file: str) -> list[Any]:
    """The code locations that Dagster reads from a workspace file."""
    return list(WorkspaceFileTarget([file]).create_origins())


def validate_config(schema: dict[str, Any], config: dict[str, Any]) -> Any:
    return process_config(dg.Shape(schema), config)


def load(name: str) -> dict:
    return yaml.safe_load((DEPLOY / name).read_text())


def test_the_compose_file() -> None:
    compose = load("docker-compose.yaml")
    services = compose["services"]
    assert set(services) == {"postgres", "code", "webserver", "daemon"}
    for name, service in services.items():
        assert "image" in service, name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "the UI has no password"
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists(), volume
    build = services["code"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    wanted = {
        entry["env"]
        for entry in load("dagster.yaml")["storage"]["postgres"]["postgres_db"].values()
        if isinstance(entry, dict)
    }
    assert wanted <= set(services["daemon"]["environment"])
    (server,) = (entry["grpc_server"] for entry in load("workspace.yaml")["load_from"])
    assert server["host"] in services
    assert str(server["port"]) in services["code"]["command"]


def test_what_the_image_copies_is_there() -> None:
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (DEPLOY.parent / source).exists(), source


def test_the_values_for_kubernetes() -> None:
    values = load("values.yaml")
    assert values["telemetry"] == {"enabled": False}
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert deployment["dagsterApiGrpcArgs"] == ["--module-name", "assets.definitions"]
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    assert launcher["volumes"] == deployment["volumes"], "runs see the project that the code location sees"
    assert values["dagsterWebserver"]["service"]["type"] == "ClusterIP", "the UI has no password"


def test_the_compose_file_is_what_docker_takes(tmp_path: Path) -> None:
    """By the schema of the Compose specification; and one that is wrong is found out."""
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed (the extra `dev`)")

    def verdict(file: Path) -> int:
        words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
        return subprocess.run(words, capture_output=True, check=False).returncode

    assert verdict(DEPLOY / "docker-compose.yaml") == 0
    wrong = tmp_path / "docker-compose.yaml"
    wrong.write_text((DEPLOY / "docker-compose.yaml").read_text().replace("restart: unless", "restarts: unless"))
    assert verdict(wrong) != 0


def camel(value: Any) -> Any:
    """Kubernetes' Python names as its API has them."""
    if isinstance(value, dict):
        return {re.sub("_(.)", lambda m: m[1].upper(), key): camel(inner) for key, inner in value.items()}
    return [camel(inner) for inner in value] if isinstance(value, list) else value


def test_the_pods_are_what_kubernetes_takes() -> None:
    """The pod of the code location as the values describe it, and that of a launcher, by Kubernetes' own schemas."""
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    (deployment,) = load("values.yaml")["dagster-user-deployments"]["deployments"]
    image = deployment["image"]
    container = {
        "name": deployment["name"],
        "image": f"{image['repository']}:{image['tag']}",
        "imagePullPolicy": image["pullPolicy"],
        "args": deployment["dagsterApiGrpcArgs"],
        "ports": [{"containerPort": deployment["port"]}],
        **{name: deployment[name] for name in ("env", "volumeMounts", "resources")},
    }
    of_values = {"containers": [container], "volumes": deployment["volumes"]}
    launcher = Kubernetes(kind="kubernetes", image="me/lineament:1", gpus=2, pod={"node_selector": {"gpu": "yes"}})
    of_launcher = camel(launcher.specification())
    of_launcher["containers"][0]["image"] = launcher.image

    def check(pod: dict[str, Any]) -> None:
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stage"}, "spec": pod}
        kubernetes.validate(whole, kubernetes.latest_version(), strict=True)

    check(of_values)
    check(of_launcher)
    with pytest.raises(kubernetes.ValidationError):
        check({**of_values, "volume": []})


def test_the_launcher_of_runs_is_what_dagster_takes() -> None:
    dagster_k8s = pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed (the extra `kubernetes`)")
    values = load("values.yaml")
    given = values["runLauncher"]["config"]["k8sRunLauncher"]
    needed = {"service_account_name": "dagster", "instance_config_map": "dagster-instance"}
    config = {re.sub("([A-Z])", lambda m: "_" + m[1].lower(), name): value for name, value in given.items()}
    schema = dagster_k8s.K8sRunLauncher.config_type()
    assert validate_config(schema, {**needed, **config}).success
    assert not validate_config(schema, {**needed, **config, "volumez": []}).success


def test_the_workspace_and_the_instance_are_what_dagster_takes() -> None:
    (origin,) = load_workspace(str(DEPLOY / "workspace.yaml"))
    assert (origin.location_name, origin.host, origin.port) == ("lineament", "code", 4000)
    pools = load("values.yaml")["concurrency"]["pools"]
    ours = load("dagster.yaml")["concurrency"]["pools"]
    assert (pools["defaultLimit"], pools["granularity"]) == (ours["default_limit"], ours["granularity"])


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, str]]:
    """A Postgres of our own, on 127.0.0.1."""
    if BINARIES is None:
        pytest.skip("Postgres is not installed (apt-get install postgresql)")
    pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed (the extra `postgres`)")
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    extra = {"user": user} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="lineament-postgres-"))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    if extra:
        shutil.chown(folder, user)
    run = [str(BINARIES / "initdb"), "-D", str(folder / "db"), "-A", "trust", "-U", "dagster", "--no-sync"]
    subprocess.run(run, check=True, capture_output=True, cwd=folder, **extra)
    options = ["-c", "listen_addresses=127.0.0.1", "-p", port, "-k", str(folder), "-c", "fsync=off"]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            [str(BINARIES / "postgres"), "-D", str(folder / "db"), *options],
            cwd=folder,
            stdout=log,
            stderr=log,
            **extra,
        )
    address = ["-h", "127.0.0.1", "-p", port, "-U", "dagster"]
    try:
        for _ in range(100):
            if subprocess.run([BINARIES / "pg_isready", *address], capture_output=True).returncode == 0:
                break
            threading.Event().wait(0.1)
        subprocess.run([BINARIES / "createdb", *address, "dagster"], check=True)
        yield {"HOST": "127.0.0.1", "PORT": port, "USER": "dagster", "PASSWORD": "none", "DB": "dagster"}
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def instance(home: Path, postgres: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    home.mkdir(exist_ok=True)
    shutil.copy(DEPLOY / "dagster.yaml", home)
    for name, value in postgres.items():
        monkeypatch.setenv(f"DAGSTER_PG_{name}", value)
    return dg.DagsterInstance.from_config(str(home))


def test_postgres_keeps_the_events_and_a_dump_brings_them_back(
    postgres: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance(tmp_path / "home", postgres, monkeypatch) as first:
        assert "Postgres" in type(first.event_log_storage).__name__

        def report(source: str) -> None:
            for number in range(10):
                event = dg.AssetMaterialization("crawl", partition=source, metadata={"number": number})
                first.report_runless_asset_event(event)

        writers = [threading.Thread(target=report, args=(source,)) for source in ("one", "two", "three")]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert len(first.fetch_materializations(dg.AssetKey("crawl"), limit=100).records) == 30
    address = ["-h", "127.0.0.1", "-p", postgres["PORT"], "-U", "dagster"]
    assert BINARIES is not None
    subprocess.run([BINARIES / "pg_dump", *address, "-Fc", "-f", tmp_path / "dump", "dagster"], check=True)
    subprocess.run([BINARIES / "createdb", *address, "again"], check=True)
    subprocess.run([BINARIES / "pg_restore", *address, "-d", "again", tmp_path / "dump"], check=True)
    with instance(tmp_path / "other", {**postgres, "DB": "again"}, monkeypatch) as second:
        assert len(second.fetch_materializations(dg.AssetKey("crawl"), limit=100).records) == 30
