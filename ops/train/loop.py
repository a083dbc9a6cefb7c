"""The training loop of all systems.

A run lives in a folder outside the versioned outputs and can be killed at any moment: started again it goes on from
its newest checkpoint and, on the CPU, ends in the same bytes as a run that was never disturbed. Three things make that
so: whatever is not in a checkpoint is a function of (seed, rank, step); the number of threads is a parameter; and data
come in an order that (epoch, position) describes.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish
from ops.store.pictures import encode_png
from ops.store.reader import Position
from ops.train import checkpoint, ddp
from ops.train.clock import Clock
from ops.train.curves import Curves, Events
from ops.train.data import Batches, Pictures
from ops.train.objective import Draws, Moment, Objective
from ops.train.settings import TrainerParams
from ops.train.update import Average, Updater
from ops.train.window import Window

T = TypeVar("T")
LOSSES_EVERY = 10.0  # seconds between two lines with the losses


class Watch(Protocol):
    """Whoever looks on; `ops.runtime.stage.Stage` is one."""

    def log(self, message: str) -> None:
        """One line."""

    def progress(self, items: Iterable[T], total: int | None = None, desc: str = "", unit: str = "it") -> Iterator[T]:
        """The items, with a bar."""
        ...


class Trainer:
    """One run of one objective.

    Args:
        objective: the system, on the CPU.
        pictures: the data set.
        params: the run's settings.
        folder: where checkpoints, pictures and curves go; a run found there is continued.
        watch: gets progress and messages; used by the main process only.
        config: what defines the run besides the data, as JSON; a checkpoint with another one is refused.
        ranks: this process among the others; from torchrun's environment if not given.

    Attributes:
        step: iterations finished.
        curves: the means so far.
        average: the averaged networks.
        clock: seconds and memory of the parts of this session.
    """

    def __init__(
        self,
        objective: Objective,
        pictures: Pictures,
        params: TrainerParams,
        folder: Path,
        watch: Watch,
        config: Mapping[str, Any],
        ranks: ddp.Ranks | None = None,
    ) -> None:
        self.objective = objective
        self.pictures = pictures
        self.params = params
        self.folder = folder
        self.watch = watch
        self.config = json.loads(json.dumps(config))
        self.ranks = ranks or ddp.from_environment()
        self.device = ddp.choose_device(params.device, self.ranks)
        for network in objective.networks.values():
            network.to(self.device).train()
            if params.channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average({name: objective.networks[name] for name in objective.averaged}, params.ema)
        self.clock = Clock(self.device)
        self.updater = Updater(objective, params, self.device, self.clock)
        self.step = 0
        self.position = Position()
        self.pool = self._pool_now()
        self.rollbacks = 0
        self.window = Window()
        self.curves = Curves()
        self._interrupted = False

    @property
    def images(self) -> int:
        """Real images seen."""
        return self.step * self.params.batch

    def train(self) -> None:
        """Train to the end, from the newest checkpoint if there is one.

        Raises:
            LineamentError: a damaged or foreign checkpoint, data that cannot be used, no memory left, or a run that
                keeps diverging.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the run was saved after the step in progress.
        """
        with ddp.group(self.ranks, self.device), numerics(self.params, self.device), self._signals(), self._memory():
            self._begin()
            start = self.step
            events = Events(self.folder, self.params.tensorboard and self.ranks.main, start)
            try:
                steps = self._steps(events)
                if self.ranks.main:
                    steps = self.watch.progress(steps, total=self.params.steps - start, desc="train", unit="step")
                for _ in steps:
                    pass
            finally:
                events.close()
            if self.ranks.main:
                self._write_clock((self.step - start) * self.params.batch)

    def _begin(self) -> None:
        """Go on from the newest checkpoint, or write the first one, to which a diverging run can return."""
        if self.ranks.main:
            self.folder.mkdir(parents=True, exist_ok=True)
        ddp.share(self.objective.networks)
        found = checkpoint.newest(self.folder) if self.ranks.main else None
        step = ddp.from_main(-1 if found is None else int(found.name.removeprefix("step-")), self.device)
        if step >= 0:
            self._restore(checkpoint.read(self._path(step), same={"config": self.config, "data": self.pictures.hash}))
            self._say(f"going on after step {self.step} of {self.params.steps} ({self._path(step)})")
        else:
            self._draw()
            self._save()

    def _batches(self, pool: str, start: Position) -> Batches:
        p = self.params
        return Batches(
            self.pictures, p.batch, seed=p.seed, mirror=p.mirror, ranks=self.ranks, start=start, workers=p.workers,
            device=self.device, pool=pool,
        )  # fmt: skip

    def _pool_now(self) -> str:
        """The samples to learn from, which phases may change: their setting ``data``."""
        return str(self.params.plan.at(self.images)[1].get("data", ""))

    def _steps(self, events: Events) -> Iterator[int]:
        pool, batches = self.pool, self._batches(self.pool, self.position)
        stream = iter(batches)
        told = time.monotonic()
        while self.step < self.params.steps:
            if pool != self._pool_now():
                stream.close()  # type: ignore[attr-defined]  # the threads that decode for it
                pool = self._pool_now()
                batches = self._batches(pool, Position(batches.position.epoch + 1))
                stream = iter(batches)
            with self.clock("data"):
                batch = next(stream)
            self.updater.step(batch, self._moment(), self.window)
            self.position, self.pool = batches.position, pool
            self.average.follow(self.step)
            self.step += 1
            if self._at_rest():
                trouble = self.updater.trouble() or self._spoiled()
                if trouble:
                    self._roll_back(trouble)
                    continue
                if self._due(self.params.log_every):
                    self._log(events)
                    if time.monotonic() - told > LOSSES_EVERY:
                        told = time.monotonic()
                        self._say(f"step {self.step}: {self._losses()}")
                if self._due(self.params.snapshot_every):
                    self._snapshot(events)
                stop = ddp.any_rank(self._interrupted, self.device)
                if stop or self._due(self.params.checkpoint_every):
                    self._save()
                if stop and self.step < self.params.steps:
                    raise KeyboardInterrupt
            yield self.step

    def _moment(self) -> Moment:
        seed = step_seed(self.params.seed, self.ranks.rank, self.rollbacks, self.step)
        torch.manual_seed(seed)
        generator = torch.Generator(self.device).manual_seed(seed)
        phase, settings = self.params.plan.at(self.images)
        return Moment(self.step, self.images, generator, self.device, phase, settings)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.params.steps

    def _at_rest(self) -> bool:
        """Whether to look at the losses now; the ranks come here together."""
        p = self.params
        alone = self.ranks.world == 1
        return any(map(self._due, (p.log_every, p.snapshot_every, p.checkpoint_every))) or (alone and self._interrupted)

    def _spoiled(self) -> str | None:
        """The first network whose weights are not finite, where they are about to be kept."""
        if not self._due(self.params.checkpoint_every) and not self._interrupted:
            return None
        for name, network in self.objective.networks.items():
            if any(not torch.isfinite(p).all() for p in network.parameters()):
                return f"weights of {name}"
        return None

    def _roll_back(self, trouble: str) -> None:
        """Return to the newest checkpoint, with other random numbers; the data go on from here."""
        self.rollbacks += 1
        rollbacks, step = self.rollbacks, self.step
        advice = "Lower the learning rates, raise the regularisation, or set amp to none or bf16."
        if rollbacks > self.params.max_rollbacks:
            raise LineamentError(
                f"training diverges: '{trouble}' is not finite or beyond {self.params.diverged_above:g} by step "
                f"{step}, after {rollbacks - 1} returns to a checkpoint. {advice}"
            )
        ddp.wait_for_all()
        found = checkpoint.newest(self.folder)
        if found is None:
            raise LineamentError(f"{self.folder}: training diverged at '{trouble}', and its checkpoints are gone.")
        self._restore(checkpoint.read(found))
        self.rollbacks = rollbacks
        self.updater.forgive()
        self._say(
            f"'{trouble}' is not finite or too large by step {step}: back to step {self.step}, "
            f"attempt {rollbacks} of {self.params.max_rollbacks}"
        )

    def _log(self, events: Events) -> None:
        means = self.window.means()
        self.window.clear()
        self.curves.add(self.step, self.images, means)
        events.scalars(self.step, means)

    def _losses(self) -> str:
        return ", ".join(f"{k} {v:.4g}" for k, v in self.curves.last().items() if k not in ("step", "images"))

    def _snapshot(self, events: Events) -> None:
        if not self.ranks.main:
            return
        with self.clock("snapshot"):
            picture = self.grid()
            with publish(self.folder / "grids" / f"step-{self.step:07d}.png") as path:
                path.write_bytes(encode_png(picture))
            events.picture(self.step, "samples", picture)
            self.curves.write(self.folder / "curves.csv")
            self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        """Keep pictures of the averaged networks at this step: the same codes and cameras each time."""
        if not (self.params.snapshot_pictures and isinstance(self.objective, Draws) and self.ranks.main):
            return
        generator = self._grid_generator()
        drawn = self.objective.draw(self._shown(), self.params.snapshot_pictures, generator)
        images, cameras = (torch.cat(parts) for parts in zip(*((to_uint8(i), c.cpu()) for i, c in drawn)))
        with publish(self.folder / "snapshots" / f"step-{self.step:07d}.safetensors") as path:
            checkpoint.save_tensors(path, {"images": images, "camera": cameras})

    def _grid_generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(step_seed(self.params.seed, 0, 0, -1))

    def _shown(self) -> dict[str, nn.Module]:
        return {**self.objective.networks, **self.average.networks}

    @torch.no_grad()
    def grid(self) -> np.ndarray:
        """Samples of the averaged networks as one picture (H, W, 3) uint8; the same codes each time."""
        rows, columns = self.params.grid_rows, self.params.grid_columns
        images = self.objective.sample(self._shown(), rows, columns, self._grid_generator())
        if len(images) != rows * columns:
            raise ValueError(f"sample() gave {len(images)} pictures, not {rows} x {columns}")
        return tile(images, columns)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}"

    def _save(self) -> None:
        with self.clock("checkpoint"):
            ddp.check_same(self.objective.networks)
            ddp.share(self.objective.networks, buffers_only=True)
            window = self.window.state()
            if self.ranks.main:
                checkpoint.write(self.folder, self.step, self._content(window), self.params.keep)

    def _content(self, window: Mapping[str, Any]) -> checkpoint.Checkpoint:
        packed = {name: checkpoint.pack_optimizer(o) for name, o in self.objective.optimizers.items()}
        return checkpoint.Checkpoint(
            tensors={
                "networks": checkpoint.pack({n: m.state_dict() for n, m in self.objective.networks.items()}),
                "averaged": checkpoint.pack({n: m.state_dict() for n, m in self.average.networks.items()}),
                "optimizers": checkpoint.pack({name: tensors for name, (tensors, _) in packed.items()}),
            },
            record={
                "step": self.step,
                "images": self.images,
                "position": [self.position.epoch, self.position.index],
                "pool": self.pool,
                "rollbacks": self.rollbacks,
                "optimizers": {name: record for name, (_, record) in packed.items()},
                "scalers": {name: scaler.state_dict() for name, scaler in self.updater.scalers.items()},
                "window": dict(window),
                "curves": self.curves.csv(),
                "config": self.config,
                "data": self.pictures.hash,
                "revision": checkpoint.code_revision(),
                "torch": torch.__version__,
            },
        )

    def _restore(self, saved: checkpoint.Checkpoint) -> None:
        record = saved.record
        where = self._path(record["step"])
        groups: tuple[tuple[str, Mapping[str, nn.Module]], ...] = (
            ("networks", self.objective.networks),
            ("averaged", self.average.networks),
        )
        for stem, networks in groups:
            for name, network in networks.items():
                part = checkpoint.unpack(saved.tensors[stem], name)
                checkpoint.load_network(network, part, f"{where / stem}.safetensors, {name}")
        for name, optimizer in self.objective.optimizers.items():
            part = checkpoint.unpack(saved.tensors["optimizers"], name)
            checkpoint.unpack_optimizer(optimizer, part, record["optimizers"][name])
            self.updater.scalers[name].load_state_dict(record["scalers"][name])
        self.step = record["step"]
        self.position = Position(*record["position"])
        self.pool = record["pool"]
        self.rollbacks = record["rollbacks"]
        self.window.load(record["window"], self.device)
        self.curves = Curves.parse(record["curves"])

    def _write_clock(self, images: int) -> None:
        with publish(self.folder / "clock.json") as path:
            path.write_text(json.dumps(self.clock.report(images), indent=1) + "\n")

    def _say(self, message: str) -> None:
        if self.ranks.main:
            self.watch.log(message)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM ends the run after its step, with a checkpoint; the second at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
            self._say("stopping after this step, with a checkpoint; once more to stop at once")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Turn running out of memory into advice."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            exhausted = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
            if not exhausted:
                raise
            now = self.params.micro_batch or self.params.batch // self.ranks.world
            raise LineamentError(
                f"out of memory on {self.device} at step {self.step}. Set `micro_batch` below {now} (same batch, less "
                "memory)"
                + (", `amp: bf16`" * (self.params.amp == "none"))
                + ", a lower resolution of the model"
                + (f", or `cache_mb` below {self.params.cache_mb}" * (self.device.type == "cpu"))
                + ". The run goes on from its last checkpoint only with unchanged settings."
            ) from error


@contextmanager
def numerics(params: TrainerParams, device: torch.device) -> Iterator[None]:
    """Torch's global settings for a run: threads, and deterministic sums on the CPU. Restored at the end."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(params.threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    else:
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def step_seed(seed: int, rank: int, rollbacks: int, step: int) -> int:
    """The seed of a rank's random numbers at a step; unrelated for different arguments. Step -1 is the grid's."""
    return int(np.random.SeedSequence([seed, rank, rollbacks, step + 1]).generate_state(1, np.uint64)[0] >> 1)


def tile(images: Tensor, columns: int) -> np.ndarray:
    """(N, 3, H, W) pictures in [-1, 1] side by side, row by row: (N / columns * H, columns * W, 3) uint8."""
    pixels = to_uint8(images)
    n, height, width, channels = pixels.shape
    cells = pixels.view(n // columns, columns, height, width, channels).transpose(1, 2)
    return cells.reshape(n // columns * height, columns * width, channels).numpy()


def to_uint8(images: Tensor) -> Tensor:
    """(N, 3, H, W) pictures in [-1, 1] to (N, H, W, 3) uint8 on the CPU; what is not a number becomes grey."""
    pixels = ((images.detach().float().cpu().nan_to_num() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous()
