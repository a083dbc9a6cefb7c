"""The declared sources of pictures: ``sources:`` in params.yaml, a name and a kind each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ops.runtime.errors import LineamentError
from ops.runtime.params import Params, read_yaml, section_of, validate
from ops.studio.params import StudioParams

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class FolderSource(Params):
    """Pictures that lie in a folder, at any depth."""

    kind: Literal["folder"] = "folder"
    path: str = Field(description="the folder; DVC watches it, and a change runs what is downstream")
    licence: str = Field("unknown", description="of the pictures; goes into each sample's provenance")
    refresh: str | None = Field(None, description="cron line of the schedule that looks for new pictures")

    @field_validator("path")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the path is empty")
        return value


class StudioSource(Params):
    """Rendered people with exact ground truth."""

    kind: Literal["studio"] = "studio"
    path: str = Field("ops/studio", description="what DVC watches: the code that draws")
    licence: str = Field("CC0-1.0", description="of the rendered pictures")
    refresh: str | None = Field(None, description="cron line; the studio changes only with its parameters")
    studio: StudioParams = StudioParams()


Source = Annotated[FolderSource | StudioSource, Field(discriminator="kind")]
KINDS: dict[str, type[FolderSource] | type[StudioSource]] = {"folder": FolderSource, "studio": StudioSource}


def load_sources(params_file: Path = Path("params.yaml")) -> dict[str, FolderSource | StudioSource]:
    """All declared sources by name, in the file's order.

    Raises:
        LineamentError: none is declared, or one is declared wrongly.
    """
    content = read_yaml(params_file)
    section = section_of(content, "sources", params_file)
    if not section:
        raise LineamentError(
            f"{params_file}: no source is declared. `lineament source add NAME --folder PATH` adds one."
        )
    return {name: parse_source(name, values, params_file) for name, values in section.items()}


def parse_source(name: str, values: Any, where: Path) -> FolderSource | StudioSource:
    """One declared source.

    Raises:
        LineamentError: the name, the kind or a value is wrong.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise LineamentError(f"{where}: '{name}' cannot be a source's name: lower-case letters, digits, - and _ only.")
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in KINDS:
        raise LineamentError(f"{where}: sources.{name}.kind should be one of {', '.join(KINDS)} (found {kind!r}).")
    return validate(KINDS[kind], values, f"{where}: sources.{name}")


def load_source(name: str, params_file: Path = Path("params.yaml")) -> FolderSource | StudioSource:
    """One source by name.

    Raises:
        LineamentError: it is not declared.
    """
    sources = load_sources(params_file)
    if name not in sources:
        raise LineamentError(f"{params_file}: no source '{name}' is declared; there are {', '.join(sources)}.")
    return sources[name]
