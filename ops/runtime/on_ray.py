"""A stage's command as one task of a Ray cluster, where the asked cores and GPUs are free.

    LINEAMENT_LAUNCH="ops.runtime.on_ray --gpus=1" dvc repro train_giraffe

Only the command goes to the cluster: DVC stays where it was called. The project's folder must be the same on the
nodes; the output comes back through a file there, because Ray drops what a task prints in its last moments. When a
node dies, Ray starts the task on another one, and a training goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.runtime.follow import POLL, following

FOLDER = Path("data/.work/ray")
GRACE = 55.0  # seconds between asking a command to end and killing it


def main(words: Sequence[str] | None = None) -> int:
    """Run ``OPTIONS -m MODULE ARGUMENTS`` on the cluster. Returns the command's exit code."""
    given = list(sys.argv[1:] if words is None else words)
    parser = argparse.ArgumentParser(prog="python -m ops.runtime.on_ray", description=main.__doc__)
    parser.add_argument("--address", default=os.environ.get("RAY_ADDRESS", "auto"), help="of the cluster")
    parser.add_argument("--cpus", type=float, default=1)
    parser.add_argument("--gpus", type=float, default=0)
    parser.add_argument("--retries", type=int, default=3, help="new starts after a node died")
    if "-m" not in given:
        parser.error("say which module to run: -m MODULE [ARGUMENTS]")
    start = given.index("-m")
    options = parser.parse_args(given[:start])
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        print("error: Ray is not installed: pip install 'lineament[ray]'", file=sys.stderr)
        return 1
    ray.init(address=options.address, log_to_driver=False, configure_logging=False)
    remote = ray.remote(num_cpus=options.cpus, num_gpus=options.gpus, max_retries=options.retries)(run_here)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    log = FOLDER.resolve() / f"{uuid.uuid4().hex[:12]}.log"
    with following(log):
        task = remote.remote([sys.executable, *given[start:]], os.getcwd(), environment, str(log))
        try:
            return ray.get(task)
        except KeyboardInterrupt:
            ray.cancel(task, force=False)
            with contextlib.suppress(ray.exceptions.RayError, KeyboardInterrupt):  # cancelled is what it shall be
                ray.get(task, timeout=GRACE + 5)
            return 130
        finally:
            ray.shutdown()


def run_here(command: Sequence[str], folder: str, environment: Mapping[str, str], log: str) -> int:
    """The task: the command on this node, what it prints appended to the log."""
    mine = {name: value for name, value in os.environ.items() if name.startswith(("RAY_", "CUDA_VISIBLE"))}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which Ray blocks, and the command would inherit
    with open(log, "a") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**environment, **mine}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        while process.poll() is None:  # a cancelled task is not woken from a wait, only interrupted between two
            time.sleep(POLL)
        return process.returncode
    except BaseException:  # a cancelled task is interrupted: its command shall write its checkpoint
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


if __name__ == "__main__":
    from ops.runtime.slurm import interruptible

    os.environ.pop("LINEAMENT_LAUNCH", None)
    interruptible()
    raise SystemExit(main())
