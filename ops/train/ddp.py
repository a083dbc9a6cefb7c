"""Several processes, one run: started by torchrun, each takes its share of every batch; gradients are averaged.

Gradients are reduced by hand after the last backward pass of an update rather than by a wrapper around the networks:
GANs call parts of their networks, several times, and differentiate twice, which a wrapper's hooks do not survive.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ops.runtime.errors import LineamentError

TIMEOUT = timedelta(minutes=15)  # a rank that waits longer for the others gives up with an error instead of hanging


@dataclass(frozen=True)
class Ranks:
    """This process among the others."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0


def from_environment() -> Ranks:
    """The place that torchrun gave this process; alone if there is no torchrun.

    Raises:
        LineamentError: the environment variables contradict each other.
    """
    if "WORLD_SIZE" not in os.environ:
        return Ranks()
    try:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", rank))
    except (KeyError, ValueError) as error:
        raise LineamentError(
            f"WORLD_SIZE is set, but RANK is not a number ({error}): start several processes with torchrun."
        ) from None
    if not 0 <= rank < world:
        raise LineamentError(f"RANK {rank} does not exist among WORLD_SIZE {world} processes.")
    return Ranks(rank, world, local)


def choose_device(wanted: str, ranks: Ranks) -> torch.device:
    """The device of this process: ``auto`` takes CUDA where there is one.

    Raises:
        LineamentError: CUDA is asked for and absent, or there are more processes than devices.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise LineamentError("device: cuda is asked for, but torch finds no CUDA device. Set device to auto or cpu.")
    if ranks.local >= torch.cuda.device_count():
        raise LineamentError(
            f"process {ranks.local} has no CUDA device: there are {torch.cuda.device_count()}. "
            "Start fewer processes (torchrun --nproc-per-node)."
        )
    torch.cuda.set_device(ranks.local)
    return torch.device("cuda", ranks.local)


@contextmanager
def group(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Hold the process group of the run: NCCL between CUDA devices, gloo on the CPU; nothing for a lone process."""
    if ranks.world == 1 or dist.is_initialized():
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=ranks.rank, world_size=ranks.world, timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def world() -> int:
    """Number of processes that train together now."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(tensor: Tensor) -> Tensor:
    """The ranks' tensors, equal in shape, joined along the first axis in rank order; without gradients.

    For what a rank learns alone and all must know, such as the keys of a queue.
    """
    if world() == 1:
        return tensor.detach()
    parts = [torch.empty_like(tensor) for _ in range(world())]
    dist.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts)


def mean(tensor: Tensor) -> Tensor:
    """The average over the ranks; without gradients."""
    result = tensor.detach().clone()
    if world() > 1:
        dist.all_reduce(result)
        result /= world()
    return result


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up on at least one rank."""
    if world() == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value.item() > 0


def mean_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its average over the ranks, all in one message.

    A parameter without a gradient on some ranks counts there as zero; without one anywhere it stays without.
    """
    if world() == 1 or not parameters:
        return
    there = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    dist.all_reduce(there, op=dist.ReduceOp.MAX)
    used = [p for p, flag in zip(parameters, there.tolist()) if flag]
    if not used:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in used])
    dist.all_reduce(flat)
    flat /= world()
    for parameter, part in zip(used, flat.split([p.numel() for p in used])):
        parameter.grad = part.view_as(parameter).clone()


def share(networks: Mapping[str, nn.Module], buffers_only: bool = False) -> None:
    """Give every rank the main process's parameters and buffers."""
    if world() == 1:
        return
    for tensor in _tensors(networks.values(), buffers_only):
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, src=0)
        if whole.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(whole)


def check_same(networks: Mapping[str, nn.Module]) -> None:
    """Raise LineamentError unless every rank has the same parameters."""
    if world() == 1:
        return
    sums = torch.stack([_sum(network) for network in networks.values()])
    for name, values in zip(networks, gather(sums[None]).T):
        if not torch.equal(values, values[:1].expand_as(values)) and torch.isfinite(values).all():
            raise LineamentError(
                f"the processes' weights of '{name}' differ: something changes them outside the optimisers. "
                "What a rank learns alone must be gathered (ops.train.ddp.gather) before it is stored."
            )


def from_main(value: int, device: torch.device) -> int:
    """The main process's number, on every rank."""
    if world() == 1:
        return value
    tensor = torch.tensor(value, device=device)
    dist.broadcast(tensor, src=0)
    return int(tensor.item())


def wait_for_all() -> None:
    """Return when every rank has come here."""
    if world() > 1:
        dist.barrier()


def _tensors(networks: Iterable[nn.Module], buffers_only: bool) -> Iterator[Tensor]:
    for network in networks:
        yield from network.buffers()
        if not buffers_only:
            yield from network.parameters()


def _sum(network: nn.Module) -> Tensor:
    parameters = [p.detach().double().sum() for p in network.parameters()]
    return torch.stack(parameters).sum() if parameters else torch.zeros((), dtype=torch.float64)
