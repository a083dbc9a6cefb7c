"""What orchestration costs: DVC finding nothing to do, loading the code location, an asset that is up to date.

Measured on a small project of the same style as the real one, made here: what a no-op costs does not depend on data.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness import Row, at_most, seconds

REPEATS = 5
SOURCES = ("one", "two", "three")
LABELS = ("screen", "detect", "landmarks", "align", "camera", "segment")

# Run in a process of its own, so that the other benchmarks need no dagster: times the job over all units.
MATERIALISE = """
import logging, time
import dagster as dg
from assets.definitions import defs
logging.disable(logging.CRITICAL)
job = defs.get_job_def("demo")
with dg.DagsterInstance.local_temp() as instance:
    started = time.perf_counter()
    result = job.execute_in_process(instance=instance)
    steps = len([event for event in result.all_events if event.is_step_success])
    print("SECONDS_A_STAGE", (time.perf_counter() - started) / steps)
"""


def write_project(root: Path) -> None:
    """A chain of label stages for each source, a join, three trainings and an evaluation: 24 units in 10 stages."""
    copy = "python -c \"import sys; open(sys.argv[1], 'w').write(sys.argv[1])\""
    lines = ["stages:"]
    before = ""
    for stage in ("crawl", *LABELS):
        lines += [f"  {stage}:", "    foreach: ${sources}", "    do:", f"      cmd: {copy} {stage}-${{key}}.txt"]
        lines += ["      deps:", f"        - {before}-${{key}}.txt"] if before else []
        lines += ["      params:", f"        - {stage}", "      outs:", f"        - {stage}-${{key}}.txt"]
        before = stage
    lines += ["  shards:", f"    cmd: {copy} shards.txt", "    deps:"]
    lines += [f"      - {before}-{source}.txt" for source in SOURCES] + ["    outs:", "      - shards.txt"]
    lines += [
        "  train_tiny:",
        "    matrix:",
        "      variant: [a, b, c]",
        f"    cmd: {copy} train-${{item.variant}}.txt",
    ]
    lines += ["    deps:", "      - shards.txt", "    outs:", "      - train-${item.variant}.txt"]
    lines += ["  evaluate:", f"    cmd: {copy} evaluate.txt", "    deps:"]
    lines += [f"      - train-{variant}.txt" for variant in "abc"] + ["    outs:", "      - evaluate.txt"]
    (root / "dvc.yaml").write_text("\n".join(lines) + "\n")
    sections = [f"{stage}:\n  value: 1" for stage in ("crawl", *LABELS)]
    sources = [f"  {source}:\n    kind: folder" for source in SOURCES]
    (root / "params.yaml").write_text("\n".join(["sources:", *sources, *sections]) + "\n")


def run(words: Sequence[str], environment: Mapping[str, str], folder: Path | None = None) -> str:
    """A command's output."""
    done = subprocess.run(
        [sys.executable, *words], env=dict(environment), cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


def rows() -> list[Row]:
    """Medians of several runs; DVC and the interpreter start anew each time, as they do in use."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_project(root)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        environment = {**os.environ, "PATH": path, "LINEAMENT_ROOT": str(root), "DVC_NO_ANALYTICS": "true"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        run(["-m", "dvc", "init", "--no-scm", "-q"], environment, root)
        run(["-m", "dvc", "repro", "-q"], environment, root)

        def median(words: Sequence[str], folder: Path | None = None) -> float:
            return statistics.median(seconds(lambda: run(words, environment, folder)) for _ in range(REPEATS))

        repro = median(["-m", "dvc", "repro"], root)
        single = median(["-m", "dvc", "repro", "--single-item", "shards"], root)
        loading = median(["-c", "import assets.definitions"])
        stage = float(run(["-c", MATERIALISE], environment).split("SECONDS_A_STAGE")[1])
    return [
        at_most("orchestration/dvc repro, nothing to do", repro, "s", 2.5),
        at_most("orchestration/loading the code location", loading, "s", 3.0),
        at_most("orchestration/no-op materialisation, a stage", stage, "s", 2.5, reference=single),
    ]
