"""dvc.yaml read as a graph: the stages, the units that DVC runs one by one, and which unit feeds which.

A stage with ``foreach`` or ``matrix`` stands for several units, one a key: DVC calls them ``crawl@studio``. A unit
depends on another when one of its dependencies is, lies in, or contains an output of the other; so the edges are those
that DVC draws. DVC has no public call for this, hence this small reader of its templates; a test holds it to DVC's own.
"""

from __future__ import annotations

import difflib
import itertools
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from ops.runtime.errors import LineamentError
from ops.runtime.params import Params, validate

PARAMS_FILE = "params.yaml"
_EXPRESSION = re.compile(r"(?<!\\)\$\{(.*?)\}")
_STAGE_KEYS = ("cmd", "deps", "params", "outs", "metrics", "plots", "desc", "meta", "always_changed", "frozen")


class Meta(Params):
    """What ``meta`` of a stage may say, for whoever draws the graph."""

    group: str = "default"
    kinds: tuple[str, ...] = ()
    pool: str | None = None
    owners: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    """What one `dvc repro --single-item` runs.

    Attributes:
        stage: the stage's name in dvc.yaml; key: which of its foreach or matrix entries, None if it has none.
        command: the shell command, templates filled in.
        deps: paths it reads, data and code; params: pairs (file, dotted name); outs: every path it writes, of which
        metrics are the json files of numbers.
    """

    stage: str
    key: str | None
    command: Any
    deps: tuple[str, ...]
    params: tuple[tuple[str, str], ...]
    outs: tuple[str, ...]
    metrics: tuple[str, ...]

    @property
    def name(self) -> str:
        return unit_name(self.stage, self.key)


@dataclass(frozen=True)
class StageSpec:
    """A stage of dvc.yaml: what its units have in common.

    Attributes:
        template: the unit before foreach or matrix: global values are filled in, ``${item}`` and ``${key}`` stand.
        units: by key; the single key None where there is neither foreach nor matrix.
    """

    name: str
    description: str
    meta: Meta
    template: Unit
    units: dict[str | None, Unit]

    @property
    def keys(self) -> list[str] | None:
        """The keys of foreach or matrix, None where there is neither."""
        return None if None in self.units else [key for key in self.units if key is not None]


def unit_name(stage: str, key: str | None) -> str:
    """DVC's name of a unit."""
    return stage if key is None else f"{stage}@{key}"


class Dag:
    """The whole graph.

    Attributes:
        root: the project's folder.
        stages: by name, inputs before what reads them.
        units: by DVC's name, in the same order.
        feeds: for each unit, for each of its dependencies that other units make, the names of those units.
    """

    def __init__(self, root: Path, stages: Iterable[StageSpec]) -> None:
        self.root = root
        specs = {spec.name: spec for spec in stages}
        units = {unit.name: unit for spec in specs.values() for unit in spec.units.values()}
        self.feeds = _feeds(units)
        above = {name: {other for makers in feeds.values() for other in makers} for name, feeds in self.feeds.items()}
        stage_above: dict[str, set[str]] = {name: set() for name in specs}
        for name, parents in above.items():
            stage_above[units[name].stage] |= {units[parent].stage for parent in parents}
        self.units = {name: units[name] for name in _sorted(above)}
        self.stages = {name: specs[name] for name in _sorted(stage_above)}

    @classmethod
    def load(cls, root: Path) -> Dag:
        """Read dvc.yaml and the values its templates use.

        Raises:
            LineamentError: a file is missing or malformed, a template names no value, or uses what is not read here.
        """
        document = load_yaml(root / "dvc.yaml")
        values = load_yaml(root / PARAMS_FILE) if (root / PARAMS_FILE).is_file() else {}
        for entry in document.get("vars") or []:
            values = values | (entry if isinstance(entry, dict) else _imported(root, entry))
        stages = document.get("stages") or {}
        return cls(root, [_stage(name, definition, values) for name, definition in stages.items()])

    def parents(self, name: str) -> list[str]:
        """The units that a unit reads from, in the graph's order."""
        direct = {other for makers in self.feeds[name].values() for other in makers}
        return [other for other in self.units if other in direct]

    def code(self, unit: Unit) -> tuple[str, ...]:
        """The dependencies that no stage makes: the code it runs, and files from outside."""
        return tuple(path for path in unit.deps if path not in self.feeds[unit.name])

    def stage_parents(self, stage: str) -> list[str]:
        """The stages that a stage reads from, in the graph's order."""
        direct = {self.units[p].stage for unit in self.stages[stage].units.values() for p in self.parents(unit.name)}
        return [other for other in self.stages if other in direct]

    def downstream(self, names: Iterable[str]) -> list[str]:
        """The given units and all that reads from them, directly or not, in the graph's order."""
        found = set(names)
        for name in self.units:
            if found.intersection(self.parents(name)):
                found.add(name)
        return [name for name in self.units if name in found]

    def upstream(self, names: Iterable[str]) -> list[str]:
        """The given units and all they read from, directly or not, in the graph's order."""
        found = set(names)
        for name in reversed(list(self.units)):
            if name in found:
                found.update(self.parents(name))
        return [name for name in self.units if name in found]

    @cached_property
    def makers(self) -> dict[str, str]:
        """The unit that makes each declared output."""
        return {out: unit.name for unit in self.units.values() for out in unit.outs}


def load_yaml(path: Path) -> dict[str, Any]:
    """A mapping, read as DVC reads it (YAML 1.2, where 1e-4 is a number and `on` a word). Not to be changed: equal
    text gives the same object.

    Raises:
        LineamentError: no such file, or no YAML mapping.
    """
    try:
        content = _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LineamentError(f"{path}: no such file. Run from the project's folder.") from None
    except YAMLError as error:
        raise LineamentError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content or {}, dict):
        raise LineamentError(f"{path}: expected a mapping, found {type(content).__name__}.")
    return content or {}


@lru_cache(maxsize=16)
def _parse(text: str) -> Any:
    return YAML(typ="safe").load(text)


def select(values: Any, name: str) -> Any:
    """The value under a dotted name such as ``sources.studio`` or ``a[0].b``; KeyError if there is none."""
    for part in name.replace("[", ".").replace("]", "").split("."):
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            raise KeyError(name)
    return values


def _imported(root: Path, entry: str) -> dict[str, Any]:
    file, _, names = entry.partition(":")
    content = load_yaml(root / file)
    return {name: content[name] for name in names.split(",")} if names else content


def _stage(name: str, definition: Mapping[str, Any], values: Mapping[str, Any]) -> StageSpec:
    where = f"dvc.yaml: stage '{name}'"
    body: dict[str, Any]
    entries: dict[str | None, dict[str, Any]]
    if "foreach" in definition:
        body = dict(definition["do"])
        entries = _foreach(_fill(definition["foreach"], values, where))
    else:
        body = {key: value for key, value in definition.items() if key != "matrix"}
        entries = _matrix(_fill(definition["matrix"], values, where)) if "matrix" in definition else {None: {}}
    for key in body:
        if key not in _STAGE_KEYS:
            near = difflib.get_close_matches(key, _STAGE_KEYS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(_STAGE_KEYS)}."
            raise LineamentError(f"{where}: '{key}' is not understood here; {hint}")
    units = {key: _unit(name, key, _fill(body, {**values, **extra}, where)) for key, extra in entries.items()}
    shared = _fill(body, values, where, partial=True)
    description = _EXPRESSION.sub(lambda match: f"<{match[1].split('.')[-1]}>", shared.get("desc") or "")
    meta = validate(Meta, body.get("meta") or {}, f"{where}: meta")
    return StageSpec(name, " ".join(description.split()), meta, _unit(name, None, shared), units)


def _unit(stage: str, key: str | None, filled: Mapping[str, Any]) -> Unit:
    deps, outs, metrics, plots = (_paths(filled.get(kind)) for kind in ("deps", "outs", "metrics", "plots"))
    return Unit(
        stage=stage,
        key=key,
        command=filled.get("cmd", ""),
        deps=deps,
        params=_params(filled.get("params")),
        outs=outs + metrics + plots,
        metrics=metrics,
    )


def _foreach(data: Any) -> dict[str | None, dict[str, Any]]:
    if isinstance(data, Mapping):
        return {_text(key): {"key": _text(key), "item": value} for key, value in data.items()}
    nested = any(isinstance(value, Mapping | list) for value in data)
    return {str(i) if nested else _text(value): {"item": value} for i, value in enumerate(data)}


def _matrix(data: Mapping[str, list[Any]]) -> dict[str | None, dict[str, Any]]:
    entries: dict[str | None, dict[str, Any]] = {}
    for combination in itertools.product(*(enumerate(values) for values in data.values())):
        item = {name: value for name, (_, value) in zip(data, combination)}
        parts = [f"{n}{i}" if isinstance(v, Mapping | list) else _text(v) for n, (i, v) in zip(data, combination)]
        entries["-".join(parts)] = {"key": "-".join(parts), "item": item}
    return entries


def _fill(value: Any, values: Mapping[str, Any], where: str, partial: bool = False) -> Any:
    """Fill in ``${...}``; a template that is nothing else keeps the value's type. With partial, leave item and key."""
    if isinstance(value, Mapping):
        return {_fill(k, values, where, partial): _fill(v, values, where, partial) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(entry, values, where, partial) for entry in value]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> Any:
        name = match[1].strip()
        if partial and re.split(r"[.\[]", name)[0] in ("item", "key"):
            return match[0]
        try:
            return select(values, name)
        except KeyError:
            raise LineamentError(f"{where}: there is no value for ${{{name}}} in {PARAMS_FILE}.") from None

    whole = _EXPRESSION.fullmatch(value)
    if whole:
        return found(whole)

    def text(match: re.Match[str]) -> str:
        inner = found(match)
        if isinstance(inner, Mapping | list):
            raise LineamentError(f"{where}: {match[0]} is a {type(inner).__name__}; only plain values fit into text.")
        return _text(inner)

    return _EXPRESSION.sub(text, value).replace(r"\${", "${")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _paths(entries: Any) -> tuple[str, ...]:
    """The paths of a list whose entries are ``path`` or ``path: {options}``."""
    flat = (name for entry in entries or [] for name in (entry if isinstance(entry, Mapping) else [entry]))
    return tuple(posixpath.normpath(name) for name in flat)


def _params(entries: Any) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for entry in entries or []:
        if isinstance(entry, Mapping):
            found += [(file, name) for file, names in entry.items() for name in names or [""]]
        else:
            found.append((PARAMS_FILE, entry))
    return tuple(found)


def _feeds(units: Mapping[str, Unit]) -> dict[str, dict[str, tuple[str, ...]]]:
    maker = {out: name for name, unit in units.items() for out in unit.outs}
    inside: dict[str, list[str]] = {}
    for out, name in maker.items():
        for folder in _folders(out):
            inside.setdefault(folder, []).append(name)
    feeds: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, unit in units.items():
        feeds[name] = {}
        for dep in unit.deps:
            around = [maker[path] for path in (dep, *_folders(dep)) if path in maker]
            makers = tuple(dict.fromkeys(m for m in [*around, *inside.get(dep, [])] if m != name))
            if makers:
                feeds[name][dep] = makers
    return feeds


def _folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]


def _sorted(above: Mapping[str, set[str]]) -> list[str]:
    """A topological order that keeps the order of dvc.yaml where it can."""
    place = {name: i for i, name in enumerate(above)}
    sorter = TopologicalSorter(above)
    try:
        sorter.prepare()
    except CycleError as error:
        raise LineamentError(f"dvc.yaml: the stages form a circle: {' -> '.join(error.args[1])}.") from None
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready += sorter.get_ready()
        ready.sort(key=place.__getitem__)
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order
