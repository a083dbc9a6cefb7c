"""Sections about the run itself: the lineage, seconds, the machine, versions, hashes, failures and limits."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from ops.dag import Dag
from ops.ledger import read_lock
from ops.report import lineage
from ops.report.page import Html, Missing, join, missing, table, tag
from ops.runtime.params import read_yaml

PACKAGES = (
    "torch", "numpy", "dvc", "dagster", "webdataset", "pyarrow", "opencv-python", "ai-edge-litert", "dlib-bin", "anny",
    "warp-lang", "scipy", "pydantic",
)  # fmt: skip


def lineage_section(root: Path) -> Html:
    """The drawing, and the stages in words for who cannot see it."""
    dag = Dag.load(root)
    names = set(read_lock(root))
    rows = [
        [spec.name, spec.meta.group, ", ".join(dag.stage_parents(name)) or "–", spec.description]
        for name, spec in dag.stages.items()
    ]
    note = (
        "Drawn from dvc.yaml: a stage reads what the stages with an arrow to it make. Arrows that follow from others "
        "are left out. A dashed box has not been recorded in dvc.lock."
    )
    listed = table(("stage", "group", "reads from", "what it makes"), rows, "The stages")
    summary = tag("summary", "The same as a table")
    return join([tag("p", note), lineage.draw(dag, names), tag("details", summary, listed)])


def timings(root: Path) -> list[dict[str, Any]]:
    """What each stage's last real run took, in the order of the lineage."""
    order = list(Dag.load(root).stages)
    found = []
    for path in sorted((root / "data/.work").glob("*/*/timings.json")):
        try:
            entry = json.loads(path.read_text())
            found.append({"run": path.parent.name.rpartition("-")[0], **entry})
        except ValueError:
            continue  # cut short while it was written; the next run writes it anew
    known = [entry for entry in found if entry.get("stage") in order and {"seconds", "peak_mb"} <= entry.keys()]
    known = [entry for entry in known if entry["stage"] != "report"]
    return sorted(known, key=lambda entry: order.index(entry["stage"]))


def timings_section(root: Path) -> Html:
    """Seconds and memory of the stages."""
    found = timings(root)
    if not found:
        raise Missing(
            "not recorded on this machine; each stage records its seconds when it runs, not when DVC skips it"
        )
    rows: list[list[object]] = [[e["stage"], e["run"], f"{e['seconds']:.1f}", f"{e['peak_mb']:.0f}"] for e in found]
    total = sum(entry["seconds"] for entry in found)
    rows.append(["in all", Html(""), f"{total:.1f}", f"{max(entry['peak_mb'] for entry in found):.0f}"])
    recorded = {entry["stage"] for entry in found}
    silent = [name for name in Dag.load(root).stages if name not in recorded and name != "report"]
    note = "Wall seconds of each stage's last real run on this machine, one after the other or not; memory is the "
    note += "largest of its processes. Runs may be of different days."
    parts = [tag("p", note), table(("stage", "output", "seconds", "peak MB"), rows, "Seconds and memory")]
    if silent:
        parts.append(missing(f"seconds of {', '.join(silent)} are not recorded"))
    return join(parts)


def machine_section(root: Path) -> Html:
    """What it ran on and with."""
    rows: list[list[object]] = [
        ["processor", _processor()],
        ["cores in use", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"],
        ["memory", _memory()],
        ["GPU", _gpu()],
        ["system", f"{platform.system()} {platform.release()}"],
        ["Python", platform.python_version()],
        ["profile", str(read_yaml(root / "params.yaml").get("profile", "none"))],
        ["code", join([tag("code", revision(root))])],
    ]
    versions: list[list[object]] = [[name, _version(name)] for name in PACKAGES]
    return tag(
        "div", table(("machine", ""), _left(rows), "Where the page was made"),
        table(("package", "version"), _left(versions), "Packages that matter"), class_="grid",
    )  # fmt: skip


def hashes_section(root: Path) -> Html:
    """What dvc.lock records of every unit."""
    records = read_lock(root)
    shown = {name: record for name, record in records.items() if name != "report"}
    if not shown:
        raise Missing("dvc.lock records nothing yet; dvc repro writes it")
    rows = [[name, tag("code", r.version), f"{len(r.outs)}", tag("code", r.digest)] for name, r in shown.items()]
    note = "Equal numbers mean equal bytes: 'made' is a hash of all a unit wrote, 'whole' also of what it read, its "
    note += "parameters and its command."
    return join([tag("p", note), table(("unit", "made", "outputs", "whole"), rows, "From dvc.lock")])


def limits(root: Path) -> list[str]:
    """What must not be read into any of the numbers."""
    lines = ["Camera, landmark and mask labels are estimates of small networks."]
    if "studio" in read_yaml(root / "params.yaml").get("sources", {}):
        lines.append(
            "Studio pictures are rendered. A model of them draws rendered people, and recognisers trained on "
            "photographs tell them apart less well."
        )
    lines.append(
        "Whoever is in a source's photographs must have agreed to this use; the lineage records licences, it does not "
        "check them."
    )
    return lines


def revision(root: Path) -> str:
    """The git commit, with a word if files differ from it."""
    try:
        words = ["git", "-C", str(root)]
        head = subprocess.run([*words, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        state = subprocess.run([*words, "status", "--porcelain", "-uno", "--", "*.py", "*.yaml"], capture_output=True,
                               text=True, check=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return head.stdout.strip() + (" with changes not committed" if state.stdout.strip() else "")


def _left(rows: list[list[object]]) -> list[list[object]]:
    return [[first, *(v if isinstance(v, Html) else tag("span", str(v)) for v in rest)] for first, *rest in rows]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no such file outside Linux
    return platform.processor() or platform.machine()


def _memory() -> str:
    import psutil

    return f"{psutil.virtual_memory().total / 2**30:.1f} GiB"


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
