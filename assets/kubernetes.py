"""A unit run by DVC in a pod, through Dagster's own Pipes client. Needs dagster-k8s (the extra ``kubernetes``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from assets.launchers import Kubernetes
from ops.dag import Unit
from ops.locks import away
from ops.versioning import QUIET, dvc_status

LOST = re.compile(r"\b(Evicted|Preempt\w*|NodeLost|unexpectedly killed)\b")  # the cluster's doing, not the stage's


def run_in_pod(context: Any, root: Path, unit: Unit, launcher: Kubernetes, words: Sequence[str], force: bool) -> str:
    """Run `dvc repro` of a unit in a pod that mounts the project; no pod where nothing is to be done.

    Returns:
        ``ran`` or ``skipped``.

    Raises:
        dagster.Failure: the pod failed, or dagster-k8s is not installed.
    """
    if not force and not dvc_status(root, [unit.name]):
        return "skipped"
    client = _client()
    command = ["python", "-m", "dvc", *words]
    with away(root):
        for attempt in range(1, launcher.attempts + 1):
            try:
                client.run(
                    context=context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context,
                    image=launcher.image,
                    command=command,
                    namespace=launcher.namespace,
                    env={**QUIET, **launcher.environment()},
                    base_pod_spec=launcher.specification(),
                    pod_wait_timeout=3600 * launcher.hours if launcher.hours else 0,
                )
                return "ran"
            except Exception as error:
                if type(error).__module__.split(".")[0] not in ("dagster_k8s", "kubernetes"):
                    raise
                if attempt == launcher.attempts or not LOST.search(str(error)):
                    raise dg.Failure(f"{unit.name} failed in its pod: {error}") from error
                context.log.warning(f"{unit.name}: the pod was lost ({error}); attempt {attempt + 1}")
    raise AssertionError("unreachable")


def _client() -> Any:
    try:
        from dagster_k8s import PipesK8sClient
    except ImportError:
        raise dg.Failure("dagster-k8s is not installed: pip install 'lineament[kubernetes]'.") from None
    return PipesK8sClient(poll_interval=1.0)
