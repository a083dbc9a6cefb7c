"""dvc.lock read: what each unit of the graph last consumed and made, and how that compares with what is there now."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ops.dag import Dag, StageSpec, Unit, load_yaml, select

LOCK = "dvc.lock"


@dataclass(frozen=True)
class Record:
    """What dvc.lock holds of a unit: content hashes by path, parameter values by (file, name)."""

    command: Any
    deps: dict[str, str]
    params: dict[tuple[str, str], Any]
    outs: dict[str, str]

    @cached_property
    def version(self) -> str:
        """The hash of what the unit made: equal bytes, equal version."""
        return digest(sorted(self.outs.items()))

    @cached_property
    def digest(self) -> str:
        """The hash of the whole record."""
        return digest([self.command, sorted(self.deps.items()), _sorted_params(self.params), self.version])


def digest(value: object) -> str:
    """A short hash of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_lock(root: Path) -> dict[str, Record]:
    """The records of dvc.lock by unit; empty where nothing has been run yet."""
    if not (root / LOCK).is_file():
        return {}
    return {name: _record(entry) for name, entry in (load_yaml(root / LOCK).get("stages") or {}).items()}


def _record(entry: Mapping[str, Any]) -> Record:
    def hashes(kind: str) -> dict[str, str]:
        return {item["path"]: str(item.get("md5") or item.get("etag")) for item in entry.get(kind) or []}

    params = {(file, name): v for file, named in (entry.get("params") or {}).items() for name, v in named.items()}
    return Record(entry.get("cmd"), hashes("deps"), params, hashes("outs"))


class Workspace:
    """Content hashes of code and values of parameters as they are now, each read once.

    Folders are hashed as DVC does: the md5 of the JSON list of (md5, relpath), without what .dvcignore names.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._md5: dict[str, str | None] = {}
        self._values: dict[str, dict[str, Any]] = {}

    def md5(self, path: str) -> str | None:
        """DVC's md5 of a file or folder, None if there is none."""
        if path not in self._md5:
            full = self.root / path
            if full.is_dir():
                self._md5[path] = self._folder(full)
            else:
                self._md5[path] = _file_md5(full) if full.is_file() else None
        return self._md5[path]

    def value(self, file: str, name: str) -> Any:
        """The value of a parameter, None if there is none."""
        if file not in self._values:
            full = self.root / file
            self._values[file] = load_yaml(full) if full.is_file() else {}
        try:
            return select(self._values[file], name) if name else self._values[file]
        except KeyError:
            return None

    def code(self, dag: Dag, unit: Unit) -> str:
        """The hash of what a unit would run now: command, code, parameters. What it reads from outside the project's
        code and differs from unit to unit, such as a folder of photos, is left out: DVC says whether that changed."""
        deps = {path: self.md5(path) for path in shared_deps(dag, unit)}
        params = {(file, name): self.value(file, name) for file, name in unit.params}
        return code_digest(unit.command, deps, params)

    def shared_code(self, dag: Dag, spec: StageSpec) -> str:
        """The hash of what all units of a stage share of command, code and parameters; a key's own are left out, so
        that adding a source leaves the other sources as they were."""
        deps = {path: self.md5(path) for path in shared_deps(dag, spec.template)}
        params = {(file, name): self.value(file, name) for file, name in spec.template.params if "${" not in name}
        return code_digest(spec.template.command, deps, params)

    @cached_property
    def _ignored(self) -> Any:
        from pathspec import GitIgnoreSpec

        file = self.root / ".dvcignore"
        lines = file.read_text().splitlines() if file.is_file() else []
        return GitIgnoreSpec.from_lines([*lines, ".git/", ".hg/", ".dvc/"])

    def _folder(self, folder: Path) -> str:
        entries = []
        for parent, subfolders, files in os.walk(folder):
            here = Path(parent)
            subfolders[:] = [name for name in subfolders if not self._is_ignored(here / name, "/")]
            entries += [here / name for name in files if not self._is_ignored(here / name)]
        listed = [{"md5": _file_md5(path), "relpath": path.relative_to(folder).as_posix()} for path in entries]
        listed.sort(key=lambda item: item["relpath"])
        return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"

    def _is_ignored(self, path: Path, suffix: str = "") -> bool:
        return self._ignored.match_file(path.relative_to(self.root).as_posix() + suffix)


def locked_code(dag: Dag, unit: Unit, record: Record) -> str:
    """The hash of what a unit ran according to dvc.lock, to compare with :meth:`Workspace.code`."""
    deps = {path: record.deps.get(path) for path in shared_deps(dag, unit)}
    params = {(file, name): _locked_value(record, file, name) for file, name in unit.params}
    return code_digest(record.command, deps, params)


def shared_deps(dag: Dag, unit: Unit) -> list[str]:
    """The code that all units of a stage read."""
    spec = dag.stages[unit.stage]
    made = {path for other in spec.units.values() for path in dag.feeds[other.name]}
    return [path for path in spec.template.deps if "${" not in path and path not in made]


def own_deps(dag: Dag, unit: Unit) -> list[str]:
    """What no unit makes and only this unit of its stage reads, such as the folder of a source."""
    shared = shared_deps(dag, unit)
    return [path for path in dag.code(unit) if path not in shared]


def _locked_value(record: Record, file: str, name: str) -> Any:
    if name:
        return record.params.get((file, name))
    return {key: value for (where, key), value in record.params.items() if where == file}


def code_digest(command: Any, deps: Mapping[str, str | None], params: Mapping[tuple[str, str], Any]) -> str:
    """The hash of a command, the code it reads and its parameters."""
    return digest([command, sorted(deps.items(), key=str), _sorted_params(params)])


def _sorted_params(params: Mapping[tuple[str, str], Any]) -> list[Any]:
    return sorted(([*name, value] for name, value in params.items()), key=str)


def outdated_inputs(dag: Dag, lock: Mapping[str, Record], name: str, changed: Iterable[str] = ()) -> set[str]:
    """The units whose present output is not what a unit consumed, by the md5 of its own dependencies in dvc.lock.

    Args:
        changed: its dependencies that DVC calls changed. Asked only for those that are not themselves the output of
            one unit, such as a folder that holds many, whose md5 says nothing of the parts.
    """
    record = lock[name]
    found: set[str] = set()
    for dep, makers in dag.feeds[name].items():
        if dag.makers.get(dep) == makers[0] and len(makers) == 1:
            maker = lock.get(makers[0])
            if maker is None or maker.outs.get(dep) != record.deps.get(dep):
                found.add(makers[0])
        elif dep in changed:
            found.update(makers)
    return found


def needs_dvc(dag: Dag, name: str) -> bool:
    """Whether only DVC can say if a dependency of a unit changed: a folder several units fill, or one from outside."""
    joined = any(dag.makers.get(dep) != makers[0] or len(makers) > 1 for dep, makers in dag.feeds[name].items())
    return joined or bool(own_deps(dag, dag.units[name]))


def signature(dag: Dag) -> str:
    """A hash that changes when dvc.lock, dvc.yaml, the parameters or any code may have; by size and time, so cheap."""
    paths = {LOCK, "dvc.yaml", *(file for unit in dag.units.values() for file, _ in unit.params)}
    paths |= {path for unit in dag.units.values() for path in dag.code(unit)}
    found: list[object] = []
    for path in sorted(paths):
        for parent, folders, files in os.walk(dag.root / path):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            found += [_stat(Path(parent, name)) for name in sorted(files)]
        found.append(_stat(dag.root / path) if not (dag.root / path).is_dir() else path)
    return digest(found)


def _stat(path: Path) -> tuple[str, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return str(path), stat.st_size, stat.st_mtime_ns


def _file_md5(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
