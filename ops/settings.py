"""Editing ``params.yaml`` with its comments kept: the profile in use, and the declared sources."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ops.crawl.sources import parse_source
from ops.runtime.errors import LineamentError
from ops.runtime.params import read_yaml
from ops.runtime.publish import publish

PROFILES = Path("profiles")
_PLACES = {"folder": "folder", "video": "folder", "urls": "file", "search": "file"}  # what a source's path names
NOT_A_STAGE = ("profile", "sources", "checks", "policy", "preflight")


def profiles() -> list[str]:
    """The names of the profiles at hand."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def use_profile(name: str, params_file: Path = Path("params.yaml")) -> None:
    """Put a profile's values into params.yaml in place of the last profile's; sources and policies stay.

    Raises:
        LineamentError: there is no such profile.
    """
    if name not in profiles():
        raise LineamentError(f"there is no profile '{name}'; there are {', '.join(profiles())}.")
    content = _load(params_file)
    for section in [key for key in content if key not in NOT_A_STAGE]:
        del content[section]
    content["profile"] = name
    content.update(_load(PROFILES / f"{name}.yaml"))
    _save(content, params_file)


def add_source(name: str, values: dict[str, Any], params_file: Path = Path("params.yaml")) -> None:
    """Declare a source.

    Raises:
        LineamentError: the name is taken or not allowed, or a value is wrong, or there is no such folder or file.
    """
    content = _load(params_file)
    if name in content["sources"]:
        raise LineamentError(f"a source '{name}' is declared already; remove it first, or choose another name.")
    source = parse_source(name, values, params_file)
    path = Path(source.path).expanduser()
    kind = _PLACES.get(source.kind, "folder or file")
    if not {"folder": path.is_dir, "file": path.is_file}.get(kind, path.exists)():
        raise LineamentError(f"{source.path}: no such {kind}.")
    content["sources"][name] = source.model_dump(exclude_unset=True)
    _save(content, params_file)


def remove_source(name: str, params_file: Path = Path("params.yaml")) -> None:
    """Take a source out of the declaration; its files stay until `dvc gc`.

    Raises:
        LineamentError: it is not declared, or it is the last one.
    """
    content = _load(params_file)
    if name not in content["sources"]:
        raise LineamentError(f"no source '{name}' is declared; there are {', '.join(content['sources'])}.")
    if len(content["sources"]) == 1:
        raise LineamentError(f"'{name}' is the last source: add another one first.")
    del content["sources"][name]
    _save(content, params_file)


def set_value(name: str, value: Any, params_file: Path = Path("params.yaml")) -> None:
    """Put a value under a dotted name; None takes it out. Sections in between are made.

    Raises:
        LineamentError: something on the way is no mapping.
    """
    content = node = _load(params_file)
    *above, last = name.split(".")
    for part in above:
        if value is None and part not in node:
            return
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise LineamentError(f"{params_file}: '{part}' of {name} is no mapping.")
    if value is None:
        node.pop(last, None)
    else:
        node[last] = value
    _save(content, params_file)


def stored_path(path: str) -> str:
    """A folder's path as params.yaml holds it: relative to the project when it was given so, else absolute."""
    given = Path(path).expanduser()
    return str(given) if given.is_absolute() else os.path.relpath(given)


def _load(path: Path) -> Any:
    read_yaml(path)  # the same clear errors as everywhere
    return YAML().load(path.read_text(encoding="utf-8"))


def _save(content: Any, path: Path) -> None:
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 120
    yaml.dump(content, stream)
    with publish(path) as temporary:
        temporary.write_text(stream.getvalue(), encoding="utf-8")
