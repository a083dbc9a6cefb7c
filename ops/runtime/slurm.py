"""A stage's command as a job of Slurm: submitted with `sbatch --wait`, its output followed, interrupted with Ctrl-C.

    LINEAMENT_LAUNCH="ops.runtime.slurm --partition=gpu --gres=gpu:1" dvc repro train_giraffe

Only the command goes to the queue: DVC stays where it was called and holds its locks there, and what is up to date
needs no job. The project's folder and its environment must be the same on the nodes, as a shared file system makes
them. A job that is pre-empted comes back (``--requeue``) and goes on from its last checkpoint.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from ops.runtime.errors import LineamentError
from ops.runtime.follow import following
from ops.runtime.publish import publish

FOLDER = Path("data/.work/slurm")
GRACE = 55.0  # seconds between asking a job to end and cancelling it; less than the caller's own patience


def main(words: Sequence[str] | None = None) -> int:
    """Run ``OPTIONS -m MODULE ARGUMENTS`` as a job: options are sbatch's. Returns the job's exit code."""
    given = list(sys.argv[1:] if words is None else words)
    if "-m" not in given:
        raise SystemExit("usage: python -m ops.runtime.slurm [SBATCH OPTIONS] -m MODULE [ARGUMENTS]")
    start = given.index("-m")
    try:
        return run_job(given[:start], [sys.executable, *given[start:]])
    except LineamentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run_job(options: Sequence[str], command: Sequence[str]) -> int:
    """Submit a command, follow it to its end.

    Raises:
        LineamentError: there is no sbatch.
    """
    name = f"lineament-{uuid.uuid4().hex[:12]}"
    script, log = FOLDER / f"{name}.sh", FOLDER / f"{name}.log"
    with publish(script) as temporary:
        temporary.write_text(f"#!/bin/sh\ncd {shlex.quote(str(Path.cwd()))} || exit 1\nexec {shlex.join(command)}\n")
    submit = [
        "sbatch", "--wait", f"--job-name={name}", f"--output={log.resolve()}", "--open-mode=append", "--requeue",
        *options, str(script),
    ]  # fmt: skip
    try:
        with following(log):
            try:
                process = subprocess.Popen(submit, start_new_session=True)  # Ctrl-C is for the job, not for sbatch
            except FileNotFoundError:
                raise LineamentError("no command sbatch here: run this on a machine of the Slurm cluster.") from None
            return _wait(process, name)
    finally:
        script.unlink(missing_ok=True)


def _wait(process: subprocess.Popen[bytes], name: str) -> int:
    """Wait for the job; an interruption is passed on to it, so that a training writes its checkpoint."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        _cancel(name, "--signal=INT", "--full")
    try:
        return process.wait(GRACE) or 130
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        _cancel(name)
        process.wait()
        return 130


def _cancel(name: str, *options: str) -> None:
    subprocess.run(["scancel", *options, f"--name={name}"], check=False)


def interruptible() -> None:
    """Make SIGTERM an interruption too: whoever ends this process ends the job."""
    import signal

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


if __name__ == "__main__":
    os.environ.pop("LINEAMENT_LAUNCH", None)
    interruptible()
    raise SystemExit(main())
