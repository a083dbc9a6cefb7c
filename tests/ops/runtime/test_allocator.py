"""The allocator's setting: taken under glibc, left alone where the user chose, and memory is kept."""

import platform
import subprocess
import sys

import pytest

from ops.runtime.allocator import use_fast_allocator

PROBE = """
import resource, sys
from ops.runtime.allocator import use_fast_allocator
if sys.argv[1] == "fast":
    assert use_fast_allocator()
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_kept_for_the_next_operation():
    def faults(word):
        return int(
            subprocess.run([sys.executable, "-c", PROBE, word], capture_output=True, text=True, check=True).stdout
        )

    assert faults("fast") * 5 < faults("plain")


def test_the_users_own_choice_stands(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    assert use_fast_allocator() is False
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    monkeypatch.setenv("LD_PRELOAD", "")
    assert use_fast_allocator() is False


def test_nothing_is_done_without_glibc(monkeypatch):
    for name in ("MALLOC_ARENA_MAX", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert use_fast_allocator() is False
