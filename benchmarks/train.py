"""The trainer's own cost: batches against decoding from memory and against webdataset, and the loop's overhead."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from torch import nn

from benchmarks.harness import Row, alternate, at_least, at_most
from benchmarks.reader import SIDE, photo_like
from models.camera import intrinsics, pack_label, pose_on_sphere
from ops.store.pictures import encode_jpeg
from ops.store.tar import ShardWriter
from ops.train.data import Batches, Pictures
from ops.train.loop import Trainer
from ops.train.objective import Batch, Moment, Term, Update
from ops.train.settings import TrainerParams

SAMPLES, BATCH = 512, 32


class _Small:
    """A network so small that a step of it is little but the trainer's own work."""

    def __init__(self) -> None:
        network = nn.Conv2d(3, 8, 3)
        self.networks = {"network": network}
        self.averaged = ("network",)
        self.optimizers = {"network": torch.optim.Adam(network.parameters())}
        self.updates = (Update("network", (Term("loss", self.loss),)),)

    def loss(self, batch: Batch, moment: Moment) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        total = self.networks["network"](batch["image"]).square().mean()
        return total, {"loss": total}

    def after(self, moment: Moment) -> None:
        pass

    def sample(self, networks: Any, rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
        return torch.zeros(rows * columns, 3, 8, 8)


class _Silent:
    def log(self, message: str) -> None:
        pass

    def progress(self, items: Any, total: int | None = None, desc: str = "", unit: str = "it") -> Iterator[Any]:
        yield from items


def _write(folder: Path) -> list[bytes]:
    """Shards of pictures that compress as photos do; returns the JPEG bytes."""
    rng = np.random.default_rng(0)
    camera = pack_label(pose_on_sphere(torch.tensor(0.0), torch.tensor(0.0)), intrinsics()).tolist()
    label = json.dumps({"camera": camera}).encode()
    jpegs = []
    with ShardWriter(folder, per_shard=128) as writer:
        for number in range(SAMPLES):
            jpegs.append(encode_jpeg(photo_like(rng), 90))
            writer.add(f"{number:08d}", {"jpg": jpegs[-1], "json": label})
    return jpegs


def _rate(call: Callable[[], object], against: Callable[[], object]) -> tuple[float, float]:
    fast, reference = alternate(call, against)
    return SAMPLES / fast, SAMPLES / reference


def _epoch(batches: Batches) -> None:
    stream = iter(batches)
    for _ in range(SAMPLES // BATCH):
        next(stream)
    stream.close()  # type: ignore[attr-defined]


def _to_floats(pictures: list[np.ndarray]) -> torch.Tensor:
    """The same conversion for all sides, so that reading alone makes the difference."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)


def _numbers(jpegs: list[bytes]) -> None:
    """The least a reader must do: decode from memory and make batches of floats."""
    for start in range(0, SAMPLES, BATCH):
        _to_floats([simplejpeg.decode_jpeg(data) for data in jpegs[start : start + BATCH]])


def _webdataset(folder: Path) -> None:
    import webdataset

    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    pixels = []
    for sample in webdataset.WebDataset(urls, shardshuffle=False).shuffle(0):
        json.loads(sample["json"])
        pixels.append(simplejpeg.decode_jpeg(sample["jpg"]))
        if len(pixels) == BATCH:
            _to_floats(pixels)
            pixels.clear()


def _overhead(folder: Path, run: Path) -> float:
    """Milliseconds a step that the trainer adds to the forward and backward pass of a tiny network."""
    params = TrainerParams(
        images=8 * 300, batch=8, device="cpu", threads=1, workers=0, checkpoint_every=1000, snapshot_every=1000,
        tensorboard=False,
    )  # fmt: skip
    trainer = Trainer(_Small(), Pictures(folder, 16, cache_mb=100), params, run, _Silent(), {})
    for number in range(SAMPLES):
        trainer.pictures.read(number)
    start = time.perf_counter()
    trainer.train()
    elapsed = time.perf_counter() - start
    parts = trainer.clock.report(0)["parts"]
    spent = sum(parts[name]["seconds"] for name in ("loss", "network step", "checkpoint", "snapshot"))
    return (elapsed - spent) / params.steps * 1000


def rows() -> list[Row]:
    """Reading and overhead of the trainer."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "shards"
        jpegs = _write(folder)
        pictures = Pictures(folder, SIDE)
        plain, memory = _rate(lambda: _epoch(Batches(pictures, BATCH)), lambda: _numbers(jpegs))
        one, streamed = _rate(lambda: _epoch(Batches(pictures, BATCH)), lambda: _webdataset(folder))
        threaded, _ = _rate(lambda: _epoch(Batches(pictures, BATCH, workers=2)), lambda: None)
        cached = Pictures(folder, SIDE, cache_mb=1024)
        kept, _ = _rate(lambda: _epoch(Batches(cached, BATCH)), lambda: None)
        return [
            at_least("train/batches against decoding from memory", plain, "img/s", 0.9 * memory, memory),
            at_least("train/batches against webdataset", one, "img/s", 1.2 * streamed, streamed),
            Row("train/batches, 2 decoding threads", threaded, "img/s", plain, threaded / plain),
            Row("train/batches from the decoded cache", kept, "img/s", plain, kept / plain),
            at_most("train/overhead of the loop", _overhead(folder, Path(temporary) / "run"), "ms a step", 5.0),
        ]
