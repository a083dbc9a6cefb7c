"""The whole curation of a folder of photos, stage by stage as DVC runs it: pictures a second, memory, and a refresh.

Photos of 512 px: a real face before other backgrounds, one in five without a face, as backs of heads have none. The
two taught networks have their real size and random weights, and no limit rejects by what they say, so every picture
goes all the way. What a stage takes to start is measured by running all with nothing to do, and taken out of the rate.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch

from benchmarks.curate import CORES, SIDE, scene
from benchmarks.harness import Row, at_least, at_most
from models.headpose import HeadPose, HeadPoseConfig
from models.parser import Parser, ParserConfig
from ops.store import pictures, tables
from ops.train import checkpoint
from ops.train.checkpoint import Checkpoint

PICTURES, ROOT = 600, Path(__file__).parent.parent
WEIGHTS = ROOT / "data/weights/embedded"
PARAMS = f"""
sources:
  mine: {{kind: folder, path: photos, licence: private}}
crawl: {{per_shard: 25}}
screen: {{min_side: {SIDE}, min_laplacian: 0, max_svd_ratio: 1.0, duplicate_bits: 0}}
detect: {{}}
landmarks: {{min_score: 0}}
align: {{}}
camera: {{}}
segment: {{}}
heads: {{max_disagreement: 181, max_flip_error: 181, min_presence: 0, max_outside: 1, max_roll: 181, min_crop: 1,
  scale_min: 0.01, scale_max: 100, max_pitch: 181, shows_face: 0}}
parse: {{max_occlusion: 1, max_disagreement: 1, min_mask_ratio: 0, min_parsing_ratio: 0}}
"""
RAW, LABELS = "data/raw/mine", "data/labels/mine"
TABLE = {name: f"{LABELS}/{name}.parquet" for name in
         ("screen", "detect", "landmarks", "align", "camera", "segment", "heads", "parse")}  # fmt: skip
CRAWL = ["ops.crawl", RAW, "data/truth/mine", "--source", "mine"]
STAGES = (
    ["ops.curate.screen", RAW, TABLE["screen"]],
    ["ops.curate.detect", RAW, TABLE["screen"], str(WEIGHTS), TABLE["detect"]],
    ["ops.curate.landmarks", RAW, TABLE["detect"], str(WEIGHTS), TABLE["landmarks"]],
    ["ops.curate.align", RAW, TABLE["landmarks"], TABLE["align"]],
    ["ops.curate.camera", RAW, TABLE["align"], TABLE["landmarks"], TABLE["camera"]],
    ["ops.curate.segment", RAW, TABLE["camera"], TABLE["align"], str(WEIGHTS), f"{LABELS}/masks", TABLE["segment"]],
    ["ops.curate.heads", RAW, *(TABLE[n] for n in ("screen", "detect", "align", "camera")), "pose", TABLE["heads"]],
    ["ops.curate.parse", RAW, TABLE["heads"], str(WEIGHTS), "parser", f"{LABELS}/parsing", TABLE["parse"]],
)


def photo(number: int, face: np.ndarray) -> bytes:
    """A face of its own size and place before a background of its own; every fifth picture is background alone."""
    image = pictures.decode(scene(number)).copy()
    if number % 5 != 4:
        rng = np.random.default_rng(number)
        side = int(rng.integers(300, 420))
        x, y = rng.integers(0, SIDE - side, 2)
        head = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
        v, u = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
        soft = np.clip((1 - np.hypot(u, v)) * 8, 0, 1)[..., None]
        place = image[y : y + side, x : x + side]
        place[:] = np.rint(head * soft + place * (1 - soft)).astype(np.uint8)
    return pictures.encode_jpeg(image)


def portrait() -> np.ndarray:
    """(256, 256, 3) the head of scikit-image's public-domain astronaut."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return pictures.decode((Path(spec.origin).parent / "data/astronaut.png").read_bytes())[10:266, 96:352]


def network(folder: Path, system: str, model: HeadPose | Parser) -> None:
    """A network as its stage publishes it."""
    folder.mkdir()
    record = {"system": system, "params": {"model": model.config.model_dump(mode="json")}}
    checkpoint.write_into(folder, "config.json", Checkpoint({"network": dict(model.state_dict())}, record))


def run(words: list[str], folder: Path) -> tuple[float, float]:
    """Seconds that a stage took, and the largest memory of any of its processes in MB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LINEAMENT_WORKERS": str(CORES), "OMP_NUM_THREADS": "1"}
    began, peak = time.perf_counter(), 0.0
    with open(folder / "log", "w") as log:
        command = [sys.executable, "-m", *words]
        process = psutil.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            try:
                for one in (process, *process.children(recursive=True)):
                    peak = max(peak, one.memory_info().rss / 1e6)
            except psutil.NoSuchProcess:
                pass  # it ended while it was looked at
            time.sleep(0.05)
    took = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"{words[0]} failed: {(folder / 'log').read_text()}")
    return took, peak


def curate(folder: Path) -> tuple[float, float]:
    """Seconds of all stages after the crawl, and the largest memory of a process in MB."""
    found = [run(words, folder) for words in STAGES]
    return sum(took for took, _ in found), max(peak for _, peak in found)


def rows(count: int = PICTURES) -> list[Row]:
    """Pictures a second from screening to parsing, memory, and what one per cent of new pictures costs."""
    if not WEIGHTS.is_dir():
        raise RuntimeError(f"{WEIGHTS}: the embedded networks are not there. `dvc repro weights` takes them out.")
    face, more = portrait(), max(1, count // 100)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "params.yaml").write_text(PARAMS)
        (folder / "photos").mkdir()
        network(folder / "pose", "headpose", HeadPose(HeadPoseConfig()))
        network(folder / "parser", "parser", Parser(ParserConfig()))
        for number in range(count):
            (folder / f"photos/{number:05d}.jpg").write_bytes(photo(number, face))
        run(CRAWL, folder)
        whole, peak = curate(folder)
        parsed = len(tables.kept_ids(folder / TABLE["parse"]))
        if parsed < 0.9 * count:
            raise RuntimeError(f"only {parsed} of {count} pictures came to the end: the rate would mean nothing.")
        idle, _ = curate(folder)
        for number in range(count, count + more):
            (folder / f"photos/{number:05d}.jpg").write_bytes(photo(number, face))
        run(CRAWL, folder)
        again, less = curate(folder)
    return [
        at_least("curation/screen_to_parse_2_cores", count / max(whole - idle, 1e-9), "pictures/s", 15),
        Row("curation/start_of_8_stages", idle, "s"),
        at_most("curation/peak_memory_of_a_worker", peak, "MB", 1500),
        Row("curation/memory_by_that_of_a_refresh", peak / less, "x", target="<= 1.2 x", ok=peak <= 1.2 * less),
        at_most("curation/refresh_of_1_percent_without_start", 100 * (again - idle) / (whole - idle), "%", 5),
        Row("curation/refresh_of_1_percent_with_start", 100 * again / whole, "%"),
    ]
