"""Independent pieces of work on a Ray cluster: the same tasks, spread over its nodes, done again when a node dies.

Nothing is sent but the payloads and small results: the nodes share the project's file system, as pieces are written to
the work area, and run the driver's code. ``RAY_ADDRESS`` names the cluster; without it Ray runs on this machine.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ops.runtime.errors import LineamentError

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 5  # of a task whose node or process died; unpublished: our choice


def run_on_ray(function: Callable[[T], R], work: Iterable[T], workers: int | None = None) -> Iterator[tuple[int, R]]:
    """What ops.runtime.parallel.run_tasks does, on a cluster.

    Args:
        function: picklable, and free of side effects but for files that are written atomically: a task whose node
            died is run again.
        work: the items.
        workers: tasks at a time; the cluster's processors if not given.

    Raises:
        LineamentError: Ray is not installed, no cluster answers, or a task's process died again and again.
    """
    ray = _ray()
    count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    task = ray.remote(max_retries=RETRIES, scheduling_strategy="SPREAD")(_run)
    here = str(Path.cwd())
    pending: dict[Any, int] = {}
    upcoming = iter(enumerate(work))
    try:
        for index, item in upcoming:
            pending[task.remote(function, item, here)] = index
            if len(pending) >= 2 * count:
                break
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1)
            for reference in done:
                index = pending.pop(reference)
                yield index, ray.get(reference)
                for next_index, item in upcoming:
                    pending[task.remote(function, item, here)] = next_index
                    break
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # what the function itself raised
    except ray.exceptions.RayError as error:
        raise LineamentError(
            f"a task on the Ray cluster was lost for good ({type(error).__name__}). Finished shards are kept: run the "
            "same command again when the cluster is well."
        ) from error
    finally:
        for reference in pending:
            ray.cancel(reference)


def _ray() -> Any:
    """Ray, connected to the cluster."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # hide no GPU from tasks that ask for none
    try:
        import ray
    except ImportError:
        raise LineamentError("LINEAMENT_ENGINE=ray needs the package ray: pip install 'lineament[ray]'.") from None
    if not ray.is_initialized():
        path = os.pathsep.join(dict.fromkeys([str(Path.cwd()), *(entry for entry in sys.path if entry)]))
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = {"PYTHONPATH": path, **dict.fromkeys(names, "1")}
        try:
            ray.init(
                address=os.environ.get("RAY_ADDRESS"),
                runtime_env={"env_vars": environment},
                log_to_driver=False,
                include_dashboard=None if os.environ.get("RAY_ADDRESS") else False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise LineamentError(f"no Ray cluster answers at {os.environ.get('RAY_ADDRESS')}: {error}") from None
    return ray


def _run(function: Callable[[Any], Any], item: Any, folder: str) -> Any:
    """One task, in the driver's folder, linear algebra on one thread."""
    from threadpoolctl import threadpool_limits

    os.chdir(folder)
    with threadpool_limits(1, user_api="blas"):
        return function(item)
