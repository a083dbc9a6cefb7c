"""A stage in a pod, against a Kubernetes API whose pods are processes of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from .conftest import Project

dagster_k8s = pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed (the extra `kubernetes`)")


class Cluster:
    """What the Pipes client asks of Kubernetes: create, list, read the log of, and delete a pod."""

    def __init__(self) -> None:
        self.pods: dict[str, subprocess.Popen[bytes]] = {}
        self.bodies: list[Any] = []
        self.evict = 0

    def create_namespaced_pod(self, namespace: str, body: Any) -> None:
        (container,) = body.spec.containers
        environment = {**os.environ, **{entry.name: entry.value for entry in container.env}}
        command = ["sh", "-c", "kill -9 $$"] if self.evict else list(container.command)
        self.evict = max(0, self.evict - 1)
        self.bodies.append(body)
        self.pods[body.metadata.name] = subprocess.Popen(
            command, cwd=container.working_dir, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def list_namespaced_pod(self, namespace: str, field_selector: str) -> SimpleNamespace:
        name = field_selector.removeprefix("metadata.name=")
        process = self.pods[name]
        code = process.poll()
        words = "Evicted" if code is not None and code < 0 else ""
        ended = None if code is None else SimpleNamespace(exit_code=code % 256, message=words, reason="Error")
        state = SimpleNamespace(running=None if ended else object(), waiting=None, terminated=ended)
        status = SimpleNamespace(name="stage", ready=True, state=state)
        pod = SimpleNamespace(
            status=SimpleNamespace(container_statuses=[status], init_container_statuses=None, message="", reason=""),
            metadata=SimpleNamespace(name=name),
        )
        return SimpleNamespace(items=[pod])

    def read_namespaced_pod_log(self, name: str, namespace: str, container: str = "", **options: Any) -> Any:
        if not options.get("follow"):
            return SimpleNamespace(data=b"the pod's last words")
        lines = self.pods[name].stdout
        assert lines is not None

        def stream() -> Iterator[bytes]:
            for line in lines:
                yield f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ} ".encode() + line

        return stream()

    def delete_namespaced_pod(self, name: str, namespace: str) -> None:
        process = self.pods[name]
        process.terminate()
        process.wait()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    from dagster_k8s.client import DagsterKubernetesClient

    found = Cluster()
    client = DagsterKubernetesClient(None, found, lambda message: None, lambda seconds: None, lambda: 0.0)
    monkeypatch.setattr(DagsterKubernetesClient, "production_client", staticmethod(lambda *_: client))
    monkeypatch.setattr(DagsterKubernetesClient, "get_pod_debug_info", lambda *_, **__: "")
    monkeypatch.setattr(dagster_k8s.PipesK8sClient, "_load_k8s_config", lambda self: None)
    return found


@pytest.fixture
def in_pods(project: Project) -> Project:
    project.tell()
    values = f"kind: kubernetes, image: 'me/lineament:1', gpus: 2, folder: '{project.root}'"
    project.edit("params.yaml", "screen:\n", f"launchers:\n  shards: {{{values}}}\nscreen:\n")
    return project


def what_dvc_did(project: Project) -> object:
    from .test_execution import last_event

    return last_event(project, "shards").metadata["dvc"].value


def test_a_stage_runs_in_a_pod_and_speaks(in_pods: Project, cluster: Cluster) -> None:
    in_pods.edit("params.yaml", "word: b", "word: b2")
    result = in_pods.materialize("shards")
    assert in_pods.ran() == ["made/shards/all.txt"]
    assert what_dvc_did(in_pods) == "ran"
    said = "\n".join(entry.user_message for entry in in_pods.instance.all_logs(result.run_id))
    assert "a message from made/shards/all.txt" in said
    (body,) = cluster.bodies
    (container,) = body.spec.containers
    assert container.image == "me/lineament:1"
    assert container.resources.limits == {"nvidia.com/gpu": "2"}
    assert container.volume_mounts[0].mount_path == str(in_pods.root)
    assert body.spec.volumes[0].persistent_volume_claim.claim_name == "lineament"
    assert body.spec.restart_policy == "Never"
    assert in_pods.stale_by_dvc() == {"train_tiny@plain", "train_tiny@fancy"}


def test_no_pod_where_nothing_is_to_be_done(in_pods: Project, cluster: Cluster) -> None:
    in_pods.materialize("shards")
    assert cluster.bodies == []
    assert what_dvc_did(in_pods) == "skipped"


def test_a_failed_pod_fails_the_run(in_pods: Project, cluster: Cluster) -> None:
    in_pods.edit("params.yaml", "word: b", "word: fail")
    result = in_pods.materialize("shards", raise_on_error=False)
    failure = result.failure_data_for_node("shards")
    assert failure is not None
    assert "shards failed in its pod" in str(failure.user_failure_data)
    assert len(cluster.bodies) == 1, "what fails by itself is not repeated"


def test_a_pod_that_was_evicted_is_started_again(in_pods: Project, cluster: Cluster) -> None:
    in_pods.edit("params.yaml", "word: b", "word: b2")
    cluster.evict = 1
    assert in_pods.materialize("shards").success
    assert len(cluster.bodies) == 2
    assert in_pods.ran() == ["made/shards/all.txt"]
