"""One iteration of an objective: its updates with micro-batches, mixed precision, compilation and ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy

import torch
from torch import Tensor, nn

from ops.train import ddp
from ops.train.clock import Clock
from ops.train.objective import Batch, Loss, Moment, Objective, Term, Update
from ops.train.settings import TrainerParams
from ops.train.window import Window

_AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Updater:
    """Runs the updates of an objective that is on its device.

    ``trouble`` names what was not finite, or too large, since the last call of forgive(); reading it waits for the
    device.
    """

    def __init__(self, objective: Objective, params: TrainerParams, device: torch.device, clock: Clock) -> None:
        self.objective = objective
        self.params = params
        self.device = device
        self.clock = clock
        self.scalers = {
            name: torch.amp.GradScaler(device.type, enabled=params.amp == "fp16") for name in objective.optimizers
        }
        self._owned = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in objective.optimizers.items()
        }
        self._rates = {name: [g["lr"] for g in o.param_groups] for name, o in objective.optimizers.items()}
        self._all = [p for network in objective.networks.values() for p in network.parameters()]
        terms = [term for update in objective.updates for term in update.terms]
        self._losses: dict[str, Loss] = {t.name: self._prepared(t) for t in terms}
        self._bad = {t.name: torch.zeros((), dtype=torch.bool, device=device) for t in terms}

    def _prepared(self, term: Term) -> Loss:
        return torch.compile(term.loss) if self.params.compile and not term.second_order else term.loss

    def step(self, batch: Batch, moment: Moment, window: Window) -> None:
        """One iteration: every update whose terms are due, then the objective's own after()."""
        for update in self.objective.updates:
            due = [term for term in update.terms if moment.step % term.every == 0]
            if due:
                self._update(update, due, batch, moment, window)
        with torch.no_grad(), self.clock("after"):
            self.objective.after(moment)

    def _update(self, update: Update, due: Sequence[Term], batch: Batch, moment: Moment, window: Window) -> None:
        optimizer, scaler = self.objective.optimizers[update.optimizer], self.scalers[update.optimizer]
        owned = self._owned[update.optimizer]
        self._set_learning_rate(update.optimizer, moment)
        self._require(owned)
        optimizer.zero_grad(set_to_none=True)
        for term in due:
            with self.clock(term.name):
                for part, weight, first in self._parts(batch):
                    with self._precision(term):
                        total, named = self._losses[term.name](part, moment)
                    self._watch(term.name, total)
                    window.add(named, weight, new=first)
                    if total.requires_grad:
                        scaler.scale(total * weight).backward()
        with self.clock(f"{update.optimizer} step"):
            ddp.mean_gradients(owned)
            if update.clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_([p for p in owned if p.grad is not None], update.clip)
            if any(p.grad is not None for p in owned):
                scaler.step(optimizer)
                scaler.update()

    def _parts(self, batch: Batch) -> Iterator[tuple[Batch, float, bool]]:
        """The micro-batches, the share of each in the batch, and whether it is the first."""
        size = len(batch["image"])
        length = self.params.micro_batch or size
        for start in range(0, size, length):
            part = {name: value[start : start + length] for name, value in batch.items()}
            yield part, len(part["image"]) / size, start == 0

    def _precision(self, term: Term) -> torch.autocast | nullcontext[None]:
        if self.params.amp == "none" or term.second_order:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_AMP[self.params.amp])

    def _require(self, owned: Sequence[nn.Parameter]) -> None:
        """Only the parameters of the optimiser in turn get gradients: the others' would be work for nothing."""
        for parameter in self._all:
            parameter.requires_grad_(False)
        for parameter in owned:
            parameter.requires_grad_(True)

    def _set_learning_rate(self, name: str, moment: Moment) -> None:
        rate, share = moment.settings.get(f"lr.{name}"), moment.settings.get("lr")
        for group, own in zip(self.objective.optimizers[name].param_groups, self._rates[name]):
            if rate is not None:
                group["lr"] = float(rate)
            elif share is not None:
                group["lr"] = own * float(share)

    def _watch(self, name: str, total: Tensor) -> None:
        value = total.detach()
        self._bad[name] |= ~(value.abs() <= self.params.diverged_above)  # not(<=) catches NaN too

    def trouble(self) -> str | None:
        """The first term that was not finite, or beyond ``diverged_above``, on any rank."""
        return next((name for name, bad in self._bad.items() if ddp.any_rank(bool(bad), self.device)), None)

    def forgive(self) -> None:
        """Forget what trouble() knows."""
        for bad in self._bad.values():
            bad.zero_()


class Average:
    """Exponential moving averages of networks; buffers are copied.

    The decay of step t is min(decay, (1 + t) / (10 + t)), so that a short run's average is not its random start.
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.source = dict(networks)
        self.networks = {n: deepcopy(network).eval().requires_grad_(False) for n, network in networks.items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move the averages towards the networks after ``step`` finished iterations."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, average in self.networks.items():
            source = self.source[name]
            for mine, theirs in zip(average.parameters(), source.parameters()):
                mine.lerp_(theirs, weight)
            for kept, current in zip(average.buffers(), source.buffers()):
                kept.copy_(current)
