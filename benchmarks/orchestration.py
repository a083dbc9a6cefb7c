"""What orchestration costs: DVC finding nothing to do, loading the code location, an asset that is up to date.

Measured on a small project of the same style as the real one, made here: what a no-op costs does not depend on data.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness import Row, at_most, seconds

REPEATS = 5
KILLS = int(os.environ.get("LINEAMENT_REPEATS", "20"))  # of each kind of accident
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


# The check that asks DVC, over all assets, and one tick of the sensor that tells Dagster of everything.
CHECK = """
import time
import dagster as dg
from assets.project import project_root
from assets.state import agreement
from ops.dag import Dag
from ops.versioning import dvc_status
started = time.perf_counter()
dag = Dag.load(project_root())
status = dvc_status(dag.root)
assert all(agreement(spec, status).passed for spec in dag.stages.values())
print("SECONDS", time.perf_counter() - started)
"""
SYNC = """
import time
import dagster as dg
from assets.state import sync_with_dvc
with dg.DagsterInstance.local_temp() as instance:
    started = time.perf_counter()
    with dg.build_sensor_context(instance) as context:
        said = str(sync_with_dvc(context))
    assert "reported" in said, said
    print("SECONDS", time.perf_counter() - started)
"""


def write_wide_project(root: Path, stages: int = 40) -> None:
    """40 stages of 5 units each, in chains."""
    root.mkdir()
    lines = ["stages:"]
    for number in range(stages):
        before = f"s{number - 1:02}" if number % 8 else ""
        lines += [f"  s{number:02}:", "    matrix:", "      part: [a, b, c, d, e]"]
        lines += [f"    cmd: echo s{number:02} > s{number:02}-${{item.part}}.txt"]
        lines += ["    deps:", f"      - {before}-${{item.part}}.txt"] if before else []
        lines += ["    outs:", f"      - s{number:02}-${{item.part}}.txt"]
        for part in "abcde":  # as the commands would make them; to run all 200 takes longer than what is measured
            (root / f"s{number:02}-{part}.txt").write_text(f"s{number:02}\n")
    (root / "dvc.yaml").write_text("\n".join(lines) + "\n")


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


def kill_trials(which: str) -> int:
    """How many of the trials of tests/assets/test_kills.py fail, each made so many times."""
    repeats = {**os.environ, "LINEAMENT_REPEATS": str(KILLS)}
    tests = str(Path(__file__).parents[1] / "tests/assets/test_kills.py")
    words = [sys.executable, "-m", "pytest", "-q", "--timeout=1800", "-k", which, tests]
    done = subprocess.run(words, env=repeats, check=False, stdout=subprocess.PIPE, text=True)
    found = re.search(r"(\d+) failed", done.stdout)
    return int(found[1]) if found else int(done.returncode != 0)


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
        wide = Path(temporary) / "wide"
        write_wide_project(wide)
        environment["LINEAMENT_ROOT"] = str(wide)
        run(["-m", "dvc", "init", "--no-scm", "-q"], environment, wide)
        run(["-m", "dvc", "commit", "--force", "-q"], environment, wide)
        checked = float(run(["-c", CHECK], environment).split("SECONDS")[1])
        synced = float(run(["-c", SYNC], environment).split("SECONDS")[1])
    collided = kill_trials("not webserver")
    died = kill_trials("webserver")
    return [
        at_most("orchestration/check of 40 stages x 5, all up to date", checked, "s", 10.0),
        at_most("orchestration/sync of 40 stages x 5 run by hand", synced, "s", 30.0),
        at_most("orchestration/failed of 60 collisions and kills", collided, "", 0),
        at_most("orchestration/failed: 20 kills of webserver or daemon", died, "", 0),
        at_most("orchestration/dvc repro, nothing to do", repro, "s", 2.5),
        at_most("orchestration/loading the code location", loading, "s", 3.0),
        at_most("orchestration/no-op materialisation, a stage", stage, "s", 2.5, reference=single),
    ]
