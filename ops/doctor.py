"""`lineament doctor`: is everything there that a run needs? Each finding comes with what to do about it."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ops import instance
from ops.dag import PARAMS_FILE, Dag, load_yaml
from ops.locks import is_locked
from ops.runtime import preflight, weights
from ops.runtime.errors import LineamentError

Level = Literal["ok", "note", "fail"]
SCHEMES = {"s3": "s3", "gs": "gs", "azure": "azure", "ssh": "ssh", "webdav": "webdav", "http": None, "https": None}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``ok``, a ``note`` (runs all the same) or ``fail``; and the remedy where it is not ok."""

    level: Level
    what: str
    said: str
    remedy: str = ""


def examine(root: Path) -> list[Finding]:
    """All findings; a look that itself breaks is a failed finding."""
    found: list[Finding] = []
    for look in LOOKS:
        try:
            found += look(root)
        except (LineamentError, OSError, ValueError) as error:
            found.append(Finding("fail", look.__name__.strip("_"), str(error), "mend what the message names"))
    return found


def text(findings: list[Finding]) -> str:
    """The findings to read."""
    marks = {"ok": " ok ", "note": "note", "fail": "FAIL"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.level]}  {finding.what:12} {finding.said}")
        if finding.level != "ok":
            lines.append(f"{'':6}{'':12} → {finding.remedy}")
    failed = sum(finding.level == "fail" for finding in findings)
    lines.append(f"\n{failed} problems" if failed else "\nNothing stands in the way.")
    return "\n".join(lines)


def main(root: Path, as_json: bool = False) -> int:
    """Print the findings; 1 if something stands in the way of a run."""
    found = examine(root)
    print(json.dumps([vars(finding) for finding in found], indent=1) if as_json else text(found))
    return 1 if any(finding.level == "fail" for finding in found) else 0


def _python(root: Path) -> Iterator[Finding]:
    yield Finding("ok", "python", f"{sys.version.split()[0]} at {sys.executable}")


def _versions(root: Path) -> Iterator[Finding]:
    """Installed versions beside the pinned ones."""
    file = root / "constraints.txt"
    if not file.is_file():
        return
    others, absent = [], 0
    for line in file.read_text().splitlines():
        name, _, wanted = line.split("#")[0].strip().partition("==")
        if not wanted:
            continue
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            absent += 1
            continue
        if installed.split("+")[0] != wanted.split("+")[0]:
            others.append(f"{name} {installed} (pinned {wanted})")
    if others:
        yield Finding("note", "versions", ", ".join(others[:5]), "pip install -c constraints.txt -e '.[dev]'")
    else:
        yield Finding("ok", "versions", f"all installed packages are at their pins ({absent} optional ones are absent)")
    antlr = importlib.metadata.version("antlr4-python3-runtime")
    if not antlr.startswith("4.13"):
        said = f"antlr4-python3-runtime {antlr}: every selection in Dagster will fail"
        yield Finding("fail", "versions", said, "pip install 'antlr4-python3-runtime==4.13.2' 'hydra-core>=1.4.0rc3'")


def _torch(root: Path) -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("fail", "torch", str(error), "make setup")
        return
    yield Finding("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    profile = _params(root).get("profile")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            name = torch.cuda.get_device_name(number)
            yield Finding("ok", "cuda", f"{name}: {free / preflight.GB:.1f} of {total / preflight.GB:.1f} GB free")
    elif profile in ("gpu", "paper"):
        remedy = "install a CUDA build of torch and its driver, or: lineament profile use smoke"
        yield Finding("fail", "cuda", f"no CUDA device, and the profile is '{profile}'", remedy)
    else:
        yield Finding("ok", "cuda", f"none; the profile '{profile}' runs on the CPU")


def _room(root: Path) -> Iterator[Finding]:
    params = preflight.load_preflight(root / PARAMS_FILE)
    rooms = [params.of(stage) for stage in ("", *params.stages)]
    disk, memory = max(room[0] for room in rooms), max(room[1] for room in rooms)
    for what, found, wanted, remedy in (
        ("disk", preflight.free_disk(root), disk, "dvc gc --workspace; data/.work may go when nothing runs"),
        ("memory", preflight.available_memory(), memory, "stop something, or LINEAMENT_WORKERS=1"),
    ):
        level: Level = "ok" if found >= wanted else "fail"
        yield Finding(level, what, f"{found:.1f} GB free, {wanted:g} wanted (preflight in {PARAMS_FILE})", remedy)


def _project(root: Path) -> Iterator[Finding]:
    dag = Dag.load(root)
    yield Finding("ok", "dvc.yaml", f"{len(dag.stages)} stages, {len(dag.units)} units")
    if not shutil.which("git") or not (root / ".git").exists():
        yield Finding("note", "git", "not a git repository: no history, no experiments", "git init && git add -A")
    else:
        yield Finding("ok", "git", "a repository")


def _weights(root: Path) -> Iterator[Finding]:
    states = {weight.name: weights.state(weight, root / weights.EMBEDDED) for weight in weights.REGISTRY}
    damaged = [name for name, state in states.items() if state == "damaged"]
    absent = [w.name for w in weights.REGISTRY if w.origin != "user" and states[w.name] == "absent"]
    if damaged:
        yield Finding("fail", "weights", f"the sha256 of {', '.join(damaged)} is another", "dvc repro -f weights")
    if absent:
        yield Finding("note", "weights", f"not there yet: {', '.join(absent)}", "dvc repro weights; make setup")
    there = sum(state == "there" for state in states.values())
    yield Finding("ok", "weights", f"{there} of {len(states)} networks are there; `lineament weights` lists them")


def _dvc(root: Path) -> Iterator[Finding]:
    if not (root / ".dvc").is_dir():
        yield Finding("fail", "dvc", "this is no DVC project", "dvc init")
        return
    config = configparser.ConfigParser()
    config.read([root / ".dvc/config", root / ".dvc/config.local"])
    remotes = {s.split('"')[1]: config[s].get("url", "") for s in config.sections() if s.startswith("'remote")}
    default = config.get("core", "remote", fallback=None)
    if not remotes:
        yield Finding("note", "remote", "none: data are on this machine alone", "dvc remote add -d NAME URL; dvc push")
    for name, url in remotes.items():
        yield _remote(root, name, url, name == default)
    if is_locked(root):
        remedy = "wait, or `lineament unlock`: it drops the locks of the dead, as Dagster does by itself"
        yield Finding("note", "locks", "DVC is at work, or a killed run left its lock", remedy)


def _remote(root: Path, name: str, url: str, default: bool) -> Finding:
    said = f"{name}: {url}{' (default)' if default else ''}"
    scheme = urlsplit(url).scheme
    if not scheme or len(scheme) == 1:
        path = (root / ".dvc" / url).resolve()
        if path.is_dir() and os.access(path, os.W_OK):
            return Finding("ok", "remote", said)
        return Finding("fail", "remote", f"{said}: not a folder to write to", f"mkdir -p {path}")
    extra = SCHEMES.get(scheme)
    if extra and importlib.util.find_spec(f"dvc_{extra}") is None:
        return Finding("fail", "remote", f"{said}: its driver is absent", f"pip install 'lineament[{extra}]'")
    return Finding("ok", "remote", f"{said}; `dvc push --dry` says whether it answers")


def _dagster(root: Path) -> Iterator[Finding]:
    home = Path(os.environ.get("DAGSTER_HOME") or root / ".dagster")
    file = home / "dagster.yaml"
    if not file.is_file():
        yield Finding("note", "dagster", f"{home} holds no instance yet", "make ui makes it")
        return
    config = load_yaml(file)
    storage = next(iter(config.get("storage") or {"sqlite": None}))
    yield Finding("ok", "dagster", f"instance {home}, storage {storage}")
    if storage == "sqlite" and (root / "dagster.yaml").is_file() and instance.wanted(root) != config:
        said = f"{file} is not the project's dagster.yaml with a slot for each GPU"
        yield Finding("note", "dagster", said, "lineament instance, if it is not so on purpose")


def _launchers(root: Path) -> Iterator[Finding]:
    for stage, entry in (_params(root).get("launchers") or {}).items():
        kind = entry.get("kind") if isinstance(entry, Mapping) else None
        wanting = {"slurm": shutil.which("sbatch") is None and "the command sbatch",
                   "ray": importlib.util.find_spec("ray") is None and "the package ray",
                   "kubernetes": importlib.util.find_spec("dagster_k8s") is None and "the package dagster-k8s",
                   }.get(str(kind))  # fmt: skip
        if wanting:
            remedy = f"pip install 'lineament[{kind}]'" if kind != "slurm" else "run on a machine of the cluster"
            yield Finding("fail", "launchers", f"{stage} is launched by {kind}, and {wanting} is absent", remedy)
        else:
            yield Finding("ok", "launchers", f"{stage} is launched by {kind}")


def _params(root: Path) -> Mapping[str, Any]:
    return load_yaml(root / PARAMS_FILE) if (root / PARAMS_FILE).is_file() else {}


LOOKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    _python, _versions, _torch, _room, _project, _weights, _dvc, _dagster, _launchers,
)  # fmt: skip
