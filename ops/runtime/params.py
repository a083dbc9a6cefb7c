"""Typed parameters: one pydantic class a stage, one section of ``params.yaml`` each.

The classes hold the papers' numbers as defaults; ``profiles/*.yaml`` hold what differs on a laptop or one GPU;
``params.yaml`` is the merge in use (``lineament profile use NAME`` writes it), so that `dvc params diff` and
`dvc exp run -S screen.min_side=256` see every value.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ops.runtime.errors import LineamentError


class Params(BaseModel):
    """Base of all stage parameters: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


P = TypeVar("P", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a file.

    Raises:
        LineamentError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LineamentError(f"{path}: no such file. Run from the project's folder, or pass --params FILE.") from None
    except yaml.YAMLError as error:
        raise LineamentError(f"{path}: not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise LineamentError(f"{path}: expected a mapping of sections, found {type(content).__name__}.")
    return content


def section_of(content: dict[str, Any], section: str, path: Path) -> dict[str, Any]:
    """The mapping under a dotted name such as ``sources.studio``."""
    node: Any = content
    walked: list[str] = []
    for part in section.split("."):
        if not isinstance(node, dict) or part not in node:
            where = ".".join(walked) or "the file"
            near = difflib.get_close_matches(part, list(node) if isinstance(node, dict) else [], n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise LineamentError(f"{path}: there is no section '{part}' in {where}.{hint}")
        node = node[part]
        walked.append(part)
    if node is None:
        return {}
    if not isinstance(node, dict):
        raise LineamentError(f"{path}: section '{section}' should be a mapping, found {type(node).__name__}.")
    return node


def validate(cls: type[P], values: dict[str, Any], where: str) -> P:
    """``cls(**values)``, with each problem named in words.

    Raises:
        LineamentError: lists every wrong key and value; an unknown key comes with the nearest valid one.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = [_describe(cls, problem, where) for problem in error.errors()]
        raise LineamentError("\n".join(lines)) from None


def _describe(cls: type[BaseModel], problem: Any, where: str) -> str:
    location = [str(part) for part in problem["loc"]]
    name = ".".join([where, *location])
    if problem["type"] == "extra_forbidden":
        owner: type[BaseModel] = cls
        for part in location[:-1]:
            field = owner.model_fields.get(part)
            annotation = field.annotation if field else None
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                owner = annotation
        names = list(owner.model_fields)
        near = difflib.get_close_matches(location[-1], names, n=1, cutoff=0.4)
        hint = f"the nearest valid key is '{near[0]}'" if near else f"valid keys are {', '.join(names)}"
        return f"{name}: unknown key; {hint}."
    if problem["type"] == "missing":
        return f"{name}: is missing."
    return f"{name}: {problem['msg']} (found {problem['input']!r})."


def load_params(cls: type[P], section: str, path: Path = Path("params.yaml")) -> P:
    """The typed parameters of a stage from its section of ``params.yaml``.

    Raises:
        LineamentError: the file or section is missing, a key is unknown, or a value has the wrong type.
    """
    return validate(cls, section_of(read_yaml(path), section, path), f"{path}: {section}")
