"""Evaluation: distances of large feature sets, the recogniser, the report."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import Row, at_most, seconds

SAMPLES, DIMENSIONS = 50_000, 2048
_MEASURE = """
import resource, sys, time
import numpy as np
from benchmarks.evaluate import batches
from ops.evaluate.distances import Moments, frechet
made = sum(len(b) for b in batches(0)) and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
spent = 0.0
def timed(seed):
    global spent
    for batch in batches(seed):
        yield batch
a, b = Moments.of(batches(0)), Moments.of(batches(1))
frechet(a, b)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
