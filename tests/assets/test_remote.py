"""A colleague's clone: `dvc pull`, then `dvc repro` does nothing; and what a remote brings back. With a folder, a
server that speaks S3, and one that speaks SSH."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.versioning import DVC, environment

from .conftest import Project

Remote = tuple[str, dict[str, str], dict[str, str]]  # address, settings to share, settings of this machine


def shell(folder: Path, *words: str) -> str:
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def needs(*modules: str) -> None:
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} is not installed (the extra `dev`)")


@pytest.fixture
def folder(tmp_path: Path) -> Remote:
    return str(tmp_path / "remote"), {}, {}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    needs("dvc_s3", "moto", "flask", "flask_cors")
    import boto3
    from moto.server import ThreadedMotoServer

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    secrets = {"access_key_id": "one", "secret_access_key": "two"}
    endpoint = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "one", "aws_secret_access_key": "two", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="pictures")
    yield "s3://pictures/lineament", {"endpointurl": endpoint, "region": "us-east-1"}, secrets
    server.stop()


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Remote]:
    needs("dvc_ssh", "asyncssh")
    import asyncssh

    class Server(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("colleague", "secret")

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncssh.SSHAcceptor:
        key = asyncssh.generate_private_key("ssh-ed25519")
        return await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[key], sftp_factory=True)

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(20)
    yield f"ssh://colleague@127.0.0.1:{server.get_port()}{tmp_path}/far", {}, {"password": "secret"}
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)


def use(project: Path, settings: dict[str, str]) -> None:
    """Settings that are not for git: of this machine, with its secrets."""
    for name, value in settings.items():
        shell(project, *DVC, "remote", "modify", "--local", "store", name, value)


@pytest.mark.parametrize("kind", ["folder", "s3", "ssh"])
def test_a_fresh_clone_pulls_and_has_nothing_to_do(
    project: Project, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    address, shared, own = request.getfixturevalue(kind)
    clone = tmp_path / "clone"
    shell(project.root, *DVC, "remote", "add", "-q", "-d", "store", address)
    for name, value in shared.items():
        shell(project.root, *DVC, "remote", "modify", "store", name, value)
    use(project.root, own)
    shell(project.root, *DVC, "push", "-q", "--run-cache")
    shell(project.root, "git", "add", "-A")
    shell(project.root, "git", "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "all")
    shell(tmp_path, "git", "clone", "-q", str(project.root), str(clone))
    assert not (clone / "made/shards/all.txt").exists()
    use(clone, own)
    shell(clone, *DVC, "pull", "-q", "--run-cache")
    assert (clone / "made/shards/all.txt").read_text() == (project.root / "made/shards/all.txt").read_text()
    (clone / "ran.log").unlink(missing_ok=True)
    said = shell(clone, *DVC, "repro")
    assert not (clone / "ran.log").exists(), said
    if kind != "folder":
        return
    # What a colleague has run with other values comes out of the shared run cache instead of being run again.
    project.edit("params.yaml", "word: b", "word: b2")
    project.repro("shards")
    shell(project.root, *DVC, "push", "-q", "--run-cache")
    params = clone / "params.yaml"
    params.write_text(params.read_text().replace("word: b", "word: b2"))
    shell(clone, *DVC, "repro", "--pull", "shards")
    assert not (clone / "ran.log").exists()
    assert (clone / "made/shards/all.txt").read_text().startswith("b2(")
