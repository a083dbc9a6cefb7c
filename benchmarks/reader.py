"""Reading training shards: the indexed reader against webdataset on the same tars, and against bare decoding."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from benchmarks.harness import Row, seconds
from ops.store.reader import EpochSampler, ShardDataset
from ops.store.tar import ShardWriter, shard_paths

SAMPLES, SIDE, PER_SHARD, REPEATS = 3000, 256, 500, 5


def photo_like(rng: np.random.Generator) -> np.ndarray:
    """A smooth picture with some grain, so that its JPEG has the size of a photo's."""
    coarse = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def write_shards(folder: Path) -> None:
    """SAMPLES pictures in shards, each with a label."""
    rng = np.random.default_rng(0)
    distinct = [simplejpeg.encode_jpeg(photo_like(rng), quality=90, colorsubsampling="420") for _ in range(100)]
    with ShardWriter(folder, PER_SHARD) as writer:
        for number in range(SAMPLES):
            writer.add(f"{number:06d}", {"jpg": distinct[number % 100], "json": b'{"camera": [0.0]}'})


def rows() -> list[Row]:
    """Samples a second in one process, decoded with the same decoder; medians of runs in turn."""
    import webdataset

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_shards(folder)
        dataset = ShardDataset(folder)
        in_memory = [dataset.read(number)["jpg"] for number in range(len(dataset))]

        def indexed() -> None:
            for number in itertools.islice(EpochSampler(len(dataset), seed=0), len(dataset)):
                simplejpeg.decode_jpeg(dataset.read(number)["jpg"])

        def streamed() -> None:
            pipeline = webdataset.WebDataset(
                [str(path) for path in shard_paths(folder)], shardshuffle=len(dataset.shards), seed=0
            ).shuffle(1000)
            for sample in pipeline:
                simplejpeg.decode_jpeg(sample["jpg"])

        def bare() -> None:
            for data in in_memory:
                simplejpeg.decode_jpeg(data)

        times = np.median([[seconds(side) for side in (indexed, streamed, bare)] for _ in range(REPEATS)], axis=0)
    own, others, memory = (SAMPLES / times).tolist()
    return [
        Row("reader/indexed_vs_webdataset", own, "samples/s", others, own / others, ">= 1.2 x", own / others >= 1.2),
        Row("reader/indexed_vs_memory", own, "samples/s", memory, own / memory, ">= 0.9 x", own / memory >= 0.9),
    ]
