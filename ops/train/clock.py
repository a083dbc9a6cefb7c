"""Where a run spends its time and memory: seconds, calls and peak memory of each named part."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_PAGE_MB = resource.getpagesize() / 1e6


class Clock:
    """Times parts of each step without holding a CUDA device up: events are read when the report is asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cuda = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._calls: dict[str, int] = {}
        self._peak_mb: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._started = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Charge the block to ``name``."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            yield
            last.record()
            self._events.append((name, first, last))
            peak = torch.cuda.max_memory_allocated(self.device) / 1e6
            if len(self._events) > 1000:
                self._settle()
        else:
            start = time.perf_counter()
            yield
            self._charge(name, time.perf_counter() - start)
            peak = _resident_mb()
        self._peak_mb[name] = max(self._peak_mb.get(name, 0.0), peak)

    def report(self, images: int) -> dict[str, Any]:
        """Seconds, calls and peak megabytes of each part, images a second over all, and the device's name.

        On the CPU the peak is the process's resident memory at the end of the part.
        """
        self._settle()
        elapsed = time.perf_counter() - self._started
        name = torch.cuda.get_device_name(self.device) if self._cuda else f"{platform.machine()}, {os.cpu_count()} CPUs"
        parts = {
            part: {
                "seconds": round(seconds, 3),
                "calls": self._calls[part],
                "peak_mb": round(self._peak_mb.get(part, 0.0), 1),
            }
            for part, seconds in self._seconds.items()
        }
        return {
            "device": name,
            "threads": torch.get_num_threads(),
            "seconds": round(elapsed, 3),
            "images": images,
            "images_per_second": round(images / elapsed, 3),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "parts": parts,
        }

    def _charge(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        self._calls[name] = self._calls.get(name, 0) + 1

    def _settle(self) -> None:
        if self._events:
            torch.cuda.synchronize(self.device)
        for name, first, last in self._events:
            self._charge(name, first.elapsed_time(last) / 1000)
        self._events.clear()


def _resident_mb() -> float:
    """Resident memory now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[1]) * _PAGE_MB
    except OSError:
        return 0.0
