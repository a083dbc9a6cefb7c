"""The studio as a source of a crawl: numbered pictures of a seed, each with its bytes, provenance and truth.

Picture ``i`` is a function of the parameters and ``i`` alone: the same bytes in whatever order, batch or process.

After the pictures come ``clips`` videos, clip ``k`` of identity ``k % people``: an .mp4 each, of kind ``clip``, whose
truth is that of its frames. In raw shards a clip is a sample with a field ``mp4`` (ops.store.clips reads it); the first
labelling step leaves it out for the reason ``clip``, and what labels clips goes through the raw shards for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from models.parametric.anny import Anny, load_anny
from ops.store.clips import encode_clip
from ops.studio import rubbish
from ops.studio.avatar import Avatar, make_avatar
from ops.studio.motion import clip_views
from ops.studio.params import RUBBISH, RubbishShares, StudioParams
from ops.studio.people import draw_person, stream
from ops.studio.render import Shot, photograph
from ops.studio.scene import View, draw_background, draw_view
from ops.studio.standing import draw_figure
from ops.studio.truth import NUMBERS, truth_of, uv_map

__all__ = ["RubbishShares", "StudioParams", "StudioPicture", "picture_count", "plan", "render_pictures"]

_WIDE_NUMBERS = 10_000_000  # where the numbers of the wide views begin
_NUMBERED = {"portrait_wide": _WIDE_NUMBERS, "full_body": 2 * _WIDE_NUMBERS}
_FIGURE_VIEWS = 2  # full bodies of a person, before the next one's come
_AVATARS_KEPT = 3  # pictures of one identity come one after the other; a few MB each


@dataclass(frozen=True)
class Item:
    """A line of the plan: what picture to make."""

    kind: str  # "portrait", "portrait_wide", one of RUBBISH, "clip" or "full_body"
    identity: int
    view: int


@dataclass(frozen=True)
class StudioPicture:
    """A picture as a crawl would find it, and what only the studio knows.

    Attributes:
        name: file name.
        data: the file's bytes.
        provenance: name, url, page, licence, as a crawler records them.
        truth: ``kind``; ``identity`` (-1 for none); and where one person is shown: :data:`ops.studio.truth.NUMBERS`,
            ``mask`` (H, W) uint8, ``parsing`` (H, W) uint8 of ``ops.store.parsing.CLASSES``, ``depth`` (H, W) float32,
            and with ``uv`` among the parameters :func:`ops.studio.truth.uv_map`.
            Without a person, or with several, those are None. A clip has ``frames``: the numbers of each frame.
    """

    name: str
    data: bytes
    provenance: dict[str, Any]
    truth: dict[str, Any] = field(repr=False)


@lru_cache(maxsize=8)
def plan(params: StudioParams) -> tuple[Item, ...]:
    """All pictures in order: identity by identity, portraits and then the share of the rubbish; clips; whole people."""
    portraits = params.people * params.views
    extra: list[list[Item]] = [[] for _ in range(params.people)]
    rng = stream(params.seed, 20)
    for kind in RUBBISH:
        count = round(getattr(params.rubbish, kind) * portraits)
        for _ in range(count):
            identity = int(rng.integers(params.people))
            extra[identity].append(Item(kind, identity, int(rng.integers(params.views))))
    items: list[Item] = []
    for identity in range(params.people):
        items.extend(Item("portrait", identity, view) for view in range(params.views))
        items.extend(Item("portrait_wide", identity, view) for view in range(params.wide))
        items.extend(extra[identity])
    items.extend(Item("clip", number % params.people, number) for number in range(params.clips))
    figures = range(params.full_body)
    items.extend(Item("full_body", number // _FIGURE_VIEWS % params.people, number) for number in figures)
    return tuple(items)


def picture_count(params: StudioParams) -> int:
    """Number of pictures of the source."""
    return len(plan(params))


def render_pictures(params: StudioParams, indices: Iterable[int]) -> Iterator[StudioPicture]:
    """The pictures of these indices, in this order. Neighbouring indices share a person and are cheaper together.

    Raises:
        IndexError: an index is not below :func:`picture_count`.
    """
    items = plan(params)
    studio = Studio(params)
    for index in indices:
        if not 0 <= index < len(items):
            raise IndexError(f"the studio has pictures 0..{len(items) - 1}, not {index}")
        yield studio.picture(index, items[index])


class Studio:
    """Renders the pictures of one set of parameters and keeps the last few people at hand."""

    def __init__(self, params: StudioParams) -> None:
        self.params = params
        self.model: Anny = shared_model()
        self._avatars: dict[tuple[int, bool], Avatar] = {}

    def avatar(self, identity: int, *, whole: bool = False) -> Avatar:
        """The person, made on first use; ``whole``: from head to foot."""
        key = identity, whole
        if key not in self._avatars:
            while len(self._avatars) >= _AVATARS_KEPT:
                self._avatars.pop(next(iter(self._avatars)))
            model = shared_model(whole)
            self._avatars[key] = make_avatar(model, draw_person(self.params.seed, identity, model), self.params.seed)
        return self._avatars[key]

    def shot(self, identity: int, number: int, *, wide: bool = False) -> tuple[View, Shot]:
        """A portrait and its view: of the head, or head and shoulders."""
        if wide:
            extent = stream(self.params.seed, 11, identity, number).uniform(
                self.params.wide_extent_min, self.params.wide_extent_max
            )
            view = draw_view(self.params, self.model, identity, _WIDE_NUMBERS + number, extent=extent)
        else:
            view = draw_view(self.params, self.model, identity, number)
        return view, photograph(self.model, self.avatar(identity), view)

    def picture(self, index: int, item: Item) -> StudioPicture:
        """The picture of a line of the plan."""
        rng = stream(self.params.seed, 30, index)
        if item.kind == "clip":
            return self._clip(index, item)
        # Duplicates repeat a portrait's bytes, so they are encoded with that portrait's stream.
        original = None
        if item.kind in ("portrait", "portrait_wide", "full_body", "duplicate", "near_duplicate"):
            number = item.view + _NUMBERED.get(item.kind, 0)
            original = stream(self.params.seed, 31, item.identity, number)
        truth: dict[str, Any] = {"kind": item.kind, "identity": item.identity, **_NOTHING}
        if item.kind == "no_person":
            picture = rubbish.scenery(rng, self.params.size)
            truth["identity"] = -1
        elif item.kind == "several":
            picture = self._group(item, rng)
            truth["identity"] = -1
        else:
            whole = item.kind == "full_body"
            model, avatar = shared_model(whole), self.avatar(item.identity, whole=whole)
            if whole:
                view = draw_figure(self.params, model, avatar, item.view)
                shot = photograph(model, avatar, view)
            else:
                view, shot = self.shot(item.identity, item.view, wide=item.kind == "portrait_wide")
            picture = shot.picture
            truth.update(truth_of(model, avatar, view, shot))
            truth.update({name: getattr(shot, name) for name in _PICTURES})
            truth["uv"] = uv_map(model, view, shot) if self.params.uv else None
        if original is not None:
            picture = rubbish.sensor_noise(picture, original)
            data, extension = rubbish.encode(picture, original, self.params)
            if item.kind == "near_duplicate":
                data, extension = rubbish.again(picture, rng)
        else:
            data, extension, truth = rubbish.spoil(picture, rng, item.kind, truth)
        return self._delivered(index, extension, data, truth)

    def film(self, identity: int, number: int) -> Iterator[tuple[View, Shot]]:
        """The frames of a clip, one after the other, each with its view and truth."""
        avatar = self.avatar(identity)
        for view in clip_views(self.params, self.model, avatar.joints, identity, number):
            yield view, photograph(self.model, avatar, view)

    def _clip(self, index: int, item: Item) -> StudioPicture:
        frames: list[np.ndarray] = []
        known: list[dict[str, Any]] = []
        for view, shot in self.film(item.identity, item.view):
            frames.append(shot.picture)
            known.append(truth_of(self.model, self.avatar(item.identity), view, shot))
        truth: dict[str, Any] = {"kind": "clip", "identity": item.identity, **_NOTHING, "frames": known}
        return self._delivered(index, "mp4", encode_clip(frames, self.params.clip_fps), truth)

    def _delivered(self, index: int, extension: str, data: bytes, truth: dict[str, Any]) -> StudioPicture:
        name = f"{index:06d}.{extension}"
        provenance = {
            "name": name,
            "url": f"studio://seed-{self.params.seed}/{name}",
            "page": "",
            "licence": "CC0-1.0",
        }
        return StudioPicture(name, data, provenance, truth)

    def _group(self, item: Item, rng: np.random.Generator) -> np.ndarray:
        """Two or three people beside one another."""
        size = self.params.size
        count = int(rng.integers(2, 4))
        scene = draw_background(rng, size)
        members = [item.identity, *rng.integers(self.params.people, size=count - 1).tolist()]
        centres = (np.arange(count) + 0.5) / count + rng.normal(0, 0.02, count)
        picture = rubbish.develop(scene)
        for place, identity in enumerate(members):
            view = self._group_view(int(identity), rng, 1.25 * count)
            shot = photograph(self.model, self.avatar(int(identity)), view, scene)
            picture = rubbish.paste(picture, shot, centres[place] - 0.5)
        return picture

    def _group_view(self, identity: int, rng: np.random.Generator, extent: float) -> View:
        """A view from the front half, beyond the numbers of the portraits."""
        for _ in range(64):
            number = self.params.views + int(rng.integers(1_000_000))
            view = draw_view(self.params, self.model, identity, number, extent=extent)
            if abs(view.azimuth) < 60:
                return view
        return view


_PICTURES = ("mask", "parsing", "depth")
_NOTHING: dict[str, Any] = dict.fromkeys((*NUMBERS, *_PICTURES, "uv"))


@lru_cache(maxsize=2)
def shared_model(whole: bool = False) -> Anny:
    """The model, loaded once a process; ``whole``: with hands and legs."""
    return load_anny(whole=whole)
