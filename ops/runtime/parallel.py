"""Independent pieces of work, spread over local processes, or over a Ray cluster (ops.runtime.rayengine)."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import TypeVar

from threadpoolctl import threadpool_limits

from ops.runtime.errors import LineamentError
from ops.runtime.launch import running_module

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

T = TypeVar("T")
R = TypeVar("R")


def default_workers() -> int:
    """As many processes as this process may use cores; ``LINEAMENT_WORKERS`` overrides."""
    asked = os.environ.get("LINEAMENT_WORKERS")
    if asked is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not asked.isdigit() or int(asked) < 1:
        raise LineamentError(f"LINEAMENT_WORKERS should be a whole number above 0, not {asked!r}.")
    return int(asked)


def default_engine() -> str:
    """``local``, or what ``LINEAMENT_ENGINE`` says: it changes where work is done, never what comes of it."""
    asked = os.environ.get("LINEAMENT_ENGINE", "local")
    if asked not in ("local", "ray"):
        raise LineamentError(f"LINEAMENT_ENGINE should be local or ray, not {asked!r}.")
    return asked


def run_tasks(
    function: Callable[[T], R], items: Iterable[T], workers: int | None = None, loads: Sequence[str] = ()
) -> Iterator[tuple[int, R]]:
    """Run ``function`` on every item; yield (index, result) as results come, in no fixed order.

    With one worker, or one item, all happens in this process, with linear algebra on one thread there too, so that
    results do not depend on the number of workers. At most two items a worker are in flight, and none is asked for
    before its turn, so memory does not grow with the number of items.

    Args:
        function: a picklable function that does not depend on the others' results.
        items: the work.
        workers: processes; ``default_workers()`` if not given.
        loads: names of modules that the function loads when it is called: workers are given them at their start.

    Raises:
        LineamentError: a worker process died, for want of memory for example.
    """
    upcoming = iter(items)
    first = list(itertools.islice(upcoming, workers or default_workers()))  # fewer items, fewer processes
    work = itertools.chain(first, upcoming)
    if first and default_engine() == "ray":
        from ops.runtime.rayengine import run_on_ray

        yield from run_on_ray(function, work, workers)
        return
    count = len(first)
    if count <= 1:
        for index, item in enumerate(work):
            with threadpool_limits(1, user_api="blas"):
                result = function(item)
            yield index, result
        return
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if os.name == "posix":
        _load_once([running_module(), *loads])
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_one_thread)
    try:
        pending = {}
        turns = enumerate(work)
        for index, item in turns:
            pending[pool.submit(function, item)] = index
            if len(pending) >= 2 * count:
                break
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                index = pending.pop(future)
                yield index, future.result()
                for next_index, item in turns:
                    pending[pool.submit(function, item)] = next_index
                    break
    except BrokenProcessPool as error:
        raise LineamentError(
            "a worker process died (out of memory, or killed). Finished shards are kept: run the same command again, "
            "with fewer workers if memory is short (LINEAMENT_WORKERS=1)."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _load_once(modules: Sequence[str]) -> None:
    """Have the process that workers are forked from load what they need, so that each of them need not.

    It reads from the environment that libraries shall start no threads, for a process with threads should not be
    forked, and that runpy shall not warn of the running module, which each worker finds loaded already.
    """
    warnings = [os.environ.get("PYTHONWARNINGS"), "ignore::RuntimeWarning:runpy"]
    meanwhile = {**ONE_THREAD, "PYTHONWARNINGS": ",".join(filter(None, warnings))}
    before = {name: os.environ.get(name) for name in meanwhile}
    os.environ.update(meanwhile)
    try:
        forkserver.set_forkserver_preload([name for name in modules if name.startswith("ops.")])
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _one_thread() -> None:
    """Each process gets one core's worth of threads, so that workers do not fight over cores.

    Libraries that are loaded already are told; those loaded later read the environment.
    """
    import cv2

    os.environ.update(ONE_THREAD)
    threadpool_limits(1)
    cv2.setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
