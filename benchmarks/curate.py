"""Screening and labelling: pictures a second, and duplicates among many."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.harness import Row, alternate, at_least, seconds, speedup
from ops.curate.duplicates import originals
from ops.curate.screen import measure, svd_ratio
from ops.runtime.parallel import run_tasks
from ops.store import pictures

COUNT, SIDE, CORES = 96, 512, 2


def scene(seed: int) -> bytes:
    """A JPEG of 512 px with detail at all scales, as a photo has."""
    rng = np.random.default_rng(seed)
    image = np.zeros((SIDE, SIDE, 3), np.float32)
    for cells in (4, 16, 64, 256):
        layer = rng.normal(0, 40 / cells**0.3, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(layer, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return pictures.encode_jpeg(np.clip(image + 128, 0, 255).astype(np.uint8))


def screen_one(data: bytes) -> dict[str, float | int]:
    """All that screening does with one picture."""
    return measure(pictures.decode(data), SIDE)


def public_ratio(grey: np.ndarray) -> float:
    """The same share through a full singular value decomposition, as the public filter takes it."""
    singular = np.linalg.svd(grey.astype(np.float64))[1]
    return float(singular[:10].sum() / singular.sum())


def rows() -> list[Row]:
    """Screening rate on two processes, the blur measure against the public way, and duplicates."""
    from threadpoolctl import threadpool_limits

    scenes = [scene(seed) for seed in range(COUNT)]
    # The start of the processes is paid once a stage: taken out by the difference of a long and a short run.
    short = [seconds(lambda: list(run_tasks(screen_one, scenes[:CORES], CORES))) for _ in range(3)]
    long = [seconds(lambda: list(run_tasks(screen_one, scenes, CORES))) for _ in range(3)]
    rate = (COUNT - CORES) / max(float(np.median(long) - np.median(short)), 1e-9)
    grey = cv2.cvtColor(pictures.decode(scenes[0]), cv2.COLOR_RGB2GRAY)
    with threadpool_limits(1):
        fast, public = alternate(lambda: svd_ratio(grey), lambda: public_ratio(grey))
    few, many = (_dedup_seconds(count) for count in (50_000, 200_000))
    return [
        at_least("curate/screening_2_cores", rate, "pictures/s", 40),
        speedup("curate/blur_measure", fast, public, 3),
        Row("curate/duplicates_200k", many, "s", few, many / few, "<= 8 x of 50k", many / few <= 8),
    ]


def _dedup_seconds(count: int) -> float:
    hashes = np.random.default_rng(0).integers(0, 2**63, count, dtype=np.uint64)
    return seconds(lambda: originals(hashes, 4))
