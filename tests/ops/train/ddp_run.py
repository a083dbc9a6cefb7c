"""What tests start with torchrun: several runs in one process group, their findings as JSON.

torchrun … ddp_run.py check SHARDS FOLDER       gradients, a whole run, a run that was interrupted, who wrote what
torchrun … ddp_run.py die SHARDS FOLDER         a run whose last rank is killed by signal 9 in its first attempt
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from tiny import Quiet, Regress, trainer

from ops.train import checkpoint, ddp
from ops.train.ddp import Ranks

ranks = ddp.from_environment()


def check(shards: Path, folder: Path) -> None:
    written: list[str] = []
    write = checkpoint.write
    checkpoint.write = lambda run, step, *rest, **more: written.append(run.name) or write(run, step, *rest, **more)

    regress = Regress()
    trainer(folder / "regress", shards, objective=regress).train()

    whole = trainer(folder / "whole", shards)
    drawn: list[float] = []
    fake = whole.objective._fake

    def spy(*arguments):
        image = fake(*arguments)
        drawn.append(image.detach().sum().item())
        return image

    whole.objective._fake = spy
    watch = Quiet()
    whole.watch = watch
    whole.train()

    broken = trainer(folder / "broken", shards)
    original = broken.objective.after

    def after(moment):
        original(moment)
        if moment.step == 5:
            raise ConnectionError

    broken.objective.after = after
    try:
        broken.train()
    except ConnectionError:
        dist.barrier()
    trainer(folder / "broken", shards).train()

    different = ""
    spoilt = trainer(folder / "spoilt", shards, objective=Regress())
    spoilt.objective.after = lambda moment: spoilt.objective.networks["network"][3].bias.data.add_(ranks.rank)
    try:
        spoilt.train()
    except Exception as error:  # noqa: BLE001 the test compares the words
        different = str(error)

    parameter = torch.nn.Parameter(torch.zeros(3))
    unused = torch.nn.Parameter(torch.zeros(2))
    if ranks.rank == 0:
        parameter.grad = torch.tensor([2.0, 4.0, 6.0])
    ddp.mean_gradients([parameter, unused])
    findings = {
        "gradients": torch.stack(regress.gradients).tolist(),
        "written": written,
        "drawn": drawn,
        "lines": len(watch.lines),
        "different": different,
        "gathered": ddp.gather(torch.full((2,), float(ranks.rank))).tolist(),
        "half": parameter.grad.tolist(),
        "unused": unused.grad is None,
        "any": [ddp.any_rank(ranks.rank == 1, torch.device("cpu")), ddp.any_rank(False, torch.device("cpu"))],
    }
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(findings))


def die(shards: Path, folder: Path) -> None:
    run = trainer(folder / "killed", shards)
    original = run.objective.after

    def after(moment):
        original(moment)
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if first and moment.step == 6 and ranks.rank == ranks.world - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    run.objective.after = after
    run.train()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ddp.group(Ranks(ranks.rank, ranks.world), torch.device("cpu")):
        if sys.argv[1] == "check":
            check(Path(sys.argv[2]), Path(sys.argv[3]))
        else:
            die(Path(sys.argv[2]), Path(sys.argv[3]))
