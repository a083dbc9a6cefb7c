"""Peak memory of a call, as the allocator saw it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """The most memory held at any time by tensors that were made during ``call``, in bytes.

    On the processor this sums the allocator's own events, so it is the same in every run. On CUDA it is the peak of
    the caching allocator above what was held before.
    """
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    result = recorded.profiler.kineto_results
    events = [(event.start_ns(), event.nbytes()) for event in result.events() if event.name() == "[memory]"]
    held = top = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        held += size
        top = max(top, held)
    return top
