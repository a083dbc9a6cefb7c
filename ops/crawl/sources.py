"""The declared sources of pictures: ``sources:`` in params.yaml, a name and a kind each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from ops.crawl.fetch import FetchParams
from ops.runtime.cron import Cron
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params, read_yaml, section_of, validate
from ops.studio.params import StudioParams

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class _Source(Params):
    """What every source declares."""

    #: values that change what comes next, not what there is already: shards made under others are kept
    policies: ClassVar[frozenset[str]] = frozenset({"refresh"})

    path: str
    licence: str = Field("unknown", description="of the pictures; goes into each sample's provenance")
    refresh: Cron | None = Field(None, description="cron line of the schedule that looks for new pictures")

    @field_validator("path")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the path is empty")
        return value

    def settings(self) -> dict[str, Any]:
        """The values that shards depend on."""
        return self.model_dump(mode="json", exclude=set(self.policies))


class FolderSource(_Source):
    """Pictures that lie in a folder, at any depth."""

    kind: Literal["folder"] = "folder"
    path: str = Field(description="the folder; DVC watches it, and a change runs what is downstream")
    people: Literal["unknown", "folders"] = Field("unknown", description="folders: each right below shows one person")


class StudioSource(_Source):
    """Rendered people with exact ground truth."""

    kind: Literal["studio"] = "studio"
    path: str = Field("ops/studio", description="what DVC watches: the code that draws")
    licence: str = Field("CC0-1.0", description="of the rendered pictures")
    studio: StudioParams = StudioParams()


class UrlSource(_Source):
    """Pictures by their addresses."""

    policies = frozenset({"refresh", "path", "column", "recheck_days", "fetch"})
    kind: Literal["urls"] = "urls"
    path: str = Field(description="a .txt, .csv or .parquet list of addresses")
    column: str = Field("url", description="of a csv or parquet list")
    recheck_days: float | None = Field(None, ge=0, description="ask again after so many days whether one has changed")
    fetch: FetchParams = FetchParams()


class SearchSource(_Source):
    """What picture search finds for lists of keywords."""

    policies = frozenset({"refresh", "path", "engine", "engine_robots", "per_phrase", "recheck_days", "fetch"})
    kind: Literal["search"] = "search"
    path: str = Field("ops/crawl/hairstyles.yaml", description="the keyword lists")
    engine: Literal["openverse", "bing", "google", "baidu"] = Field(
        "openverse", description="openverse gives openly licensed pictures, the licence with each"
    )
    # SphereHead App. 0.B collects with icrawler, which does not ask the engine's robots.txt
    engine_robots: Literal["obey", "ignore"] = Field("obey", description="for result pages; picture hosts are obeyed")
    per_phrase: int = Field(100, ge=1, le=1000, description="results for each phrase")  # unpublished: our choice
    recheck_days: float | None = Field(None, ge=0, description="as for urls")
    fetch: FetchParams = FetchParams()


class VideoSource(_Source):
    """Frames, or clips, of the videos in a folder."""

    kind: Literal["video"] = "video"
    path: str = Field(description="the folder of videos")
    offer: Literal["frames", "clips"] = "frames"
    cut_threshold: float = Field(25.0, gt=0, description="mean change of colour, of 255")  # unpublished: our choice
    min_seconds: float = Field(1.0, ge=0, description="shorter clips are left out")  # unpublished: our choice
    every_seconds: float = Field(1.0, gt=0, description="between frames")  # unpublished: our choice
    max_frames: int = Field(50, ge=1, description="of one clip")  # unpublished: our choice
    quality: int = Field(95, ge=1, le=100, description="of the JPEG frames")  # unpublished: our choice


class DatasetSource(_Source):
    """A public data set as its owners ship it."""

    kind: Literal["dataset"] = "dataset"
    path: str = Field(description="its folder, or zip")
    layout: Literal["celeba_hq", "ffhq", "lpff", "k_hairstyle", "shhq", "vfhq", "hdtf", "300vw", "eg3d"]
    stride: int = Field(10, ge=1, description="of video sets, take each so many frames")  # unpublished: our choice


AnySource = FolderSource | StudioSource | UrlSource | SearchSource | VideoSource | DatasetSource
Source = Annotated[AnySource, Field(discriminator="kind")]
KINDS: dict[str, type[AnySource]] = {
    "folder": FolderSource,
    "studio": StudioSource,
    "urls": UrlSource,
    "search": SearchSource,
    "video": VideoSource,
    "dataset": DatasetSource,
}


def load_sources(params_file: Path = Path("params.yaml")) -> dict[str, AnySource]:
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


def parse_source(name: str, values: Any, where: Path) -> AnySource:
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


def load_source(name: str, params_file: Path = Path("params.yaml")) -> AnySource:
    """One source by name.

    Raises:
        LineamentError: it is not declared.
    """
    sources = load_sources(params_file)
    if name not in sources:
        raise LineamentError(f"{params_file}: no source '{name}' is declared; there are {', '.join(sources)}.")
    return sources[name]
