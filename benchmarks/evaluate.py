"""Evaluation: distances of 50,000 features of 2048 dimensions, rates of features and embeddings, the report."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Row, alternate, at_least, at_most, seconds
from ops.evaluate.distances import Moments, frechet, kid
from ops.evaluate.features import batches as batches_of
from ops.evaluate.features import load_features
from ops.evaluate.identity import Dlib128
from ops.report.__main__ import ReportParams, build
from ops.runtime.weights import EMBEDDED

SAMPLES, DIMENSIONS, BATCH = 50_000, 2048, 5_000
PICTURES = 16


def batches(seed: int) -> Iterator[np.ndarray]:
    """Random features as a network gives them: batch by batch, float32, not negative."""
    rng = np.random.default_rng(seed)
    for _ in range(0, SAMPLES, BATCH):
        yield np.abs(rng.standard_normal((BATCH, DIMENSIONS), dtype=np.float32))


def frechet_cost() -> dict[str, float]:
    """Seconds of moments and distance of two sets, without those of making the features; peak megabytes of it all."""
    spent, found = 0.0, []
    for seed in (0, 1):
        moments = Moments(DIMENSIONS)
        for batch in batches(seed):
            spent += seconds(lambda moments=moments, batch=batch: moments.add(batch))  # type: ignore[misc]
        found.append(moments)
    spent += seconds(lambda: frechet(*found))
    return {"seconds": spent, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def feature_rows(weights: Path = EMBEDDED) -> list[Row]:
    """Features of pictures, from uint8 on, against the bare network on tensors that are there already."""
    backbone = load_features(weights)
    images = list(np.random.default_rng(0).integers(0, 256, (2 * backbone.batch, 256, 256, 3), dtype=np.uint8))
    ready = [backbone.prepare(part) for part in batches_of(images, backbone.batch)]

    @torch.inference_mode()
    def bare() -> None:
        for part in ready:
            backbone.network(part)

    whole, network = alternate(lambda: backbone.embed(images), bare, 3)
    name = "evaluate/features of 256 px pictures by mobilenetv2, rate of the bare network's"
    return [
        Row("evaluate/mobilenetv2", len(images) / whole, "pictures/s"),
        at_least(name, network / whole, "x", 0.9),
    ]


def report_rows(root: Path = Path()) -> list[Row]:
    """All pages of the run that lies here; none without one."""
    if not (root / "data/report").is_dir():
        return []
    pages: dict[str, str] = {}
    spent = seconds(lambda: pages.update(build(root, ReportParams())))
    size = sum(len(text.encode()) for text in pages.values()) / 1e6
    return [at_most("evaluate/report", spent, "s", 10), at_most("evaluate/report, all pages", size, "MB", 15)]


def rows() -> list[Row]:
    """FD in a process of its own, for its peak memory; KID of whole sets in memory; embeddings on one core."""
    code = "import json; from benchmarks.evaluate import frechet_cost; print(json.dumps(frechet_cost()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    cost = json.loads(said.splitlines()[-1])
    size = f"{SAMPLES // 1000}k x {DIMENSIONS}"
    first, second = (np.concatenate(list(batches(seed))) for seed in (0, 1))
    kernel = seconds(lambda: kid(first, second))
    first = second = np.empty(0)  # give their memory back
    recogniser = Dlib128()
    images = list(np.random.default_rng(0).integers(0, 256, (PICTURES, 64, 64, 3), dtype=np.uint8))
    recogniser.embed(images[:1])
    start = time.perf_counter()
    recogniser.embed(images)
    rate = PICTURES / (time.perf_counter() - start)
    return [
        at_most(f"evaluate/frechet {size}", cost["seconds"], "s", 20),
        at_most(f"evaluate/frechet {size}, peak memory", cost["peak_mb"], "MB", 2000),
        at_most(f"evaluate/kid {size}", kernel, "s", 20),
        Row("evaluate/dlib_128d", rate, "pictures/s"),
        *feature_rows(),
        *report_rows(),
    ]
