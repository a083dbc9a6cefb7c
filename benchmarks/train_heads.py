"""A training step of the head generators: pictures a second, memory, and the share of each part.

Each against the same step with the plain forms: planes by `grid_sample`, sorted samples, and all of it kept for the
backward pass.
"""

from __future__ import annotations

import os
from functools import partial

import torch

from benchmarks.harness import Row, alternate, speedup
from benchmarks.memory import peak_bytes
from models.camera import intrinsics, pack_label, pose_on_sphere
from models.spherehead import HeadConfig
from ops.train.clock import Clock
from ops.train.objective import Batch, Moment
from ops.train.objectives.heads import HeadsObjective, HeadsTraining, HeadVariant, model_of
from ops.train.settings import TrainerParams
from ops.train.update import Updater
from ops.train.window import Window

STEPS = 2
SETTINGS = {"single": 0.0, "vico": 1.0, "swap": 0.7}
# An eighth of the paper's channels, for processors.
SMALL = HeadConfig.model_validate(
    {
        "resolution": 64, "neural_resolution": 32, "mapping": {"z_size": 64, "w_size": 64}, "plane_resolution": 64,
        "plane_channels": 32, "channel_base": 4096, "channel_max": 64, "backbone_channels": 64, "head_channels": 32,
        "decoder_channels": 64, "superresolution_channels": [32, 16], "render": {"coarse": 24, "fine": 24},
    }
)  # fmt: skip


def _objective(model: HeadConfig, variant: str, fast: bool = True) -> HeadsObjective:
    chosen = HeadVariant.parse(variant)
    torch.manual_seed(0)
    objective = HeadsObjective(model_of(model, chosen), HeadsTraining(), chosen, _cameras(8))
    if not fast:
        objective.generator.forward = partial(objective.generator.forward, fast=False)  # type: ignore[method-assign]
    return objective


def _cameras(n: int) -> torch.Tensor:
    azimuth = torch.linspace(0, 2 * torch.pi, n + 1)[:-1]
    return pack_label(pose_on_sphere(azimuth, torch.zeros(n)), intrinsics())


def _batch(model: HeadConfig, n: int, device: torch.device) -> Batch:
    side = model.resolution
    return {
        "image": torch.rand(n, 3, side, side, device=device) * 2 - 1,
        "mask": torch.rand(n, 1, side, side, device=device),
        "parsing": torch.randint(0, 19, (n, side, side), device=device, dtype=torch.uint8),
        "camera": _cameras(n).to(device),
    }


class _Steps:
    """Steps of an objective on random pictures; R1 in its turn."""

    def __init__(self, objective: HeadsObjective, n: int, device: torch.device, amp: str = "none") -> None:
        for network in objective.networks.values():
            network.to(device).train()
        params = TrainerParams.model_validate({"batch": n, "amp": amp, "device": device.type})
        self.device, self.clock, self.next = device, Clock(device), 1
        self.updater = Updater(objective, params, device, self.clock)
        self.batch = _batch(objective.model, n, device)

    def __call__(self) -> None:
        for _ in range(STEPS):
            generator = torch.Generator(self.device).manual_seed(self.next)
            moment = Moment(self.next, 0, generator, self.device, settings=SETTINGS)
            self.updater.step(self.batch, moment, Window())
            self.next += 1
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _rows(name: str, model: HeadConfig, n: int, device: torch.device, amp: str = "none") -> list[Row]:
    """Pictures a second of the fast against the plain forms, gigabytes, and where the time goes."""
    fast = _Steps(_objective(model, "spherehead"), n, device, amp)
    plain = _Steps(_objective(model, "spherehead", fast=False), n, device, amp)
    seconds, reference = alternate(fast, plain, repeats=3)
    where = f"train_heads/step at {name}"
    rows = [speedup(where, seconds / STEPS, reference / STEPS, 1.0)]
    rows.append(Row(f"{where}, rate", n * STEPS / seconds, "img/s", n * STEPS / reference, reference / seconds))
    grown, plainly = (peak_bytes(side, device.type) / 1e6 for side in (fast, plain))
    rows.append(Row(f"{where}, peak memory", grown, "MB", plainly, plainly / grown))
    fast.next = 16 * fast.next  # a step with R1, which comes every 16th time
    fast()
    parts = fast.clock.report(1)["parts"]
    mean = {part: spent["seconds"] / spent["calls"] for part, spent in parts.items()}
    mean["r1"] /= fast.updater.objective.updates[1].terms[-1].every
    for part in ("generator", "discriminator", "r1"):
        rows.append(Row(f"{where}, share of {part}", 100 * mean[part] / sum(mean.values()), "%"))
    return rows


def rows() -> list[Row]:
    """The step at 64² on the processor, and at 256² and 512² on CUDA where there is one."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    found = _rows("64²", SMALL, 4, torch.device("cpu"))
    if torch.cuda.is_available():
        device = torch.device("cuda")
        medium = HeadConfig(resolution=256, superresolution_channels=(128, 64))
        found += _rows("256² on CUDA", medium, 8, device, "bf16")
        found += _rows("512² on CUDA", HeadConfig(), 4, device, "bf16")
    return found
