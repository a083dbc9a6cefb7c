"""kill -9 at random moments, twenty times: what then runs to its end has the bytes of an undisturbed run."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.harness import Row
from ops.store.pictures import encode_jpeg

PICTURES, KILLS, ROOT = 240, 20, Path(__file__).parent.parent
PARAMS = """
sources:
  mine: {kind: folder, path: photos, licence: private}
crawl: {per_shard: 8}
screen: {min_side: 64, min_laplacian: 0, max_svd_ratio: 1.0}
"""
STAGES = {
    "data/raw/mine": ["ops.crawl", "data/raw/mine", "data/truth/mine", "--source", "mine"],
    "data/labels/mine/screen.parquet": ["ops.curate.screen", "data/raw/mine", "data/labels/mine/screen.parquet"],
}


def photos(folder: Path) -> None:
    """Pictures that take a while to decode and measure."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(PICTURES):
        coarse = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (768, 768), interpolation=cv2.INTER_CUBIC)
        (folder / f"{number:04d}.jpg").write_bytes(encode_jpeg(image))


def start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """A stage as a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LINEAMENT_WORKERS": "2"}
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, start_new_session=True)


def whole(words: list[str], folder: Path) -> float:
    """Run a stage to its end; seconds."""
    began = time.perf_counter()
    process = start(words, folder)
    _, error = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{words[0]} failed: {error.decode()}")
    return time.perf_counter() - began


def digest(path: Path) -> str:
    """Names and bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return hashlib.sha256(
        b"".join(p.name.encode() + hashlib.sha256(p.read_bytes()).digest() for p in files)
    ).hexdigest()


def rows() -> list[Row]:
    """How many of the kills were survived with the same bytes."""
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        calm, rough = Path(temporary, "calm"), Path(temporary, "rough")
        calm.mkdir()
        (calm / "params.yaml").write_text(PARAMS)
        photos(calm / "photos")
        shutil.copytree(calm, rough)  # with the files' times, which are part of their provenance
        took = {out: whole(words, calm) for out, words in STAGES.items()}
        killed = same = 0
        for out, words in STAGES.items():
            for _ in range(KILLS // len(STAGES)):
                process = start(words, rough)
                time.sleep(chance.uniform(0.2, 1.0) * took[out])
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                killed += 1
                if chance.random() < 0.3:  # now and then all goes well between two accidents
                    whole(words, rough)
                    same_now = digest(rough / out) == digest(calm / out)
                    if not same_now:
                        return [Row("kills/same_bytes", same, "of 20", target=f"= {KILLS}", ok=False)]
                same += 1
            whole(words, rough)
            if digest(rough / out) != digest(calm / out):
                same = 0
                break
    return [Row("kills/same_bytes", same, f"of {KILLS}", target=f"= {KILLS}", ok=same == KILLS == killed)]
