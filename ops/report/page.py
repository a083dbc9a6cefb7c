"""HTML in small pieces: text is escaped, pictures are embedded, what is missing says why. Nothing is fetched."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import simplejpeg
from PIL import Image

from ops.report.direction import KEY, arrow
from ops.runtime.errors import LineamentError
from ops.store.clips import decode_clip, frame_rate
from ops.store.pictures import decode, encode_png, shrink_to_width

T = TypeVar("T")
SMALL = 60_000  # bytes of a PNG that is embedded as it is; unpublished: our choice
SHORTEST = 2000  # milliseconds that a film lasts at least, before it begins anew; unpublished: our choice


class Html(str):
    """Text that is markup already; any other text is escaped when it enters the page."""


_ABSENT = Html("<strong>Not available: </strong>")


class Missing(LineamentError):
    """Something the report would show and cannot; the message ends the sentence "Not available: …"."""


@dataclass(frozen=True)
class Section:
    """A part of a page: its anchor, its heading, its content; ``absent`` says why there is none."""

    anchor: str
    title: str
    content: Html
    absent: str = ""

    @classmethod
    def of(cls, anchor: str, title: str, make: Callable[[], Html]) -> Section:
        """The section with what ``make`` gives, or with the sentence that says why it cannot."""
        try:
            return cls(anchor, title, make())
        except LineamentError as error:
            return cls(anchor, title, missing(str(error)), str(error))


@dataclass(frozen=True)
class Page:
    """One page of the report.

    Attributes:
        lead: what it is about, below the heading.
        sections: its parts, in order.
        facts: pairs (name, value) to remember; they stand first here and on the entry page.
        meaning: what the facts mean, in plain words.
        warnings: what must not be overlooked, beside the facts.
        limits: what must not be read into the page.
    """

    lead: str
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    meaning: str = ""
    warnings: Sequence[str] = field(default=())
    limits: Sequence[str] = ()

    @property
    def summary(self) -> Html:
        """The facts and what they mean."""
        boxes = [tag("div", tag("dt", name), tag("dd", value)) for name, value in self.facts]
        shown = [tag("dl", *boxes, class_="facts")] if boxes else []
        return join([*shown, *([tag("p", self.meaning)] if self.meaning else []), *map(warning, self.warnings)])

    @property
    def absences(self) -> list[str]:
        """The reasons of all that its sections could not show."""
        return absences("".join(section.content for section in self.sections))

    def whole(self) -> list[Section]:
        """All sections: the summary first, the limits last.

        Raises:
            Missing: no section has anything to show.
        """
        if all(section.absent for section in self.sections):
            raise Missing(self.sections[0].absent)
        lines = [*self.limits, *(f"Missing above: {line}" for line in self.absences)]
        first = [Section("summary", "Summary", self.summary)] if self.summary else []
        last = [Section("limits", "Failures and limits", notes(lines))] if lines else []
        return [*first, *self.sections, *last]


@dataclass(frozen=True)
class Embedding:
    """How pictures are embedded: no wider than ``width`` pixels, photographs as JPEG of ``quality``."""

    width: int
    quality: int


def tag(name: str, /, *content: str, **attributes: str | int | float | None) -> Html:
    """An element. ``class_`` and ``aria_label`` become ``class`` and ``aria-label``; None leaves an attribute out."""
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"')
    if name in ("img", "meta", "rect", "line", "path", "circle") and not content:
        return Html(f"<{' '.join(words)}/>")
    return Html(f"<{' '.join(words)}>{join(content)}</{name}>")


def join(parts: Iterable[str]) -> Html:
    """The parts one after the other, plain text escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> Html:
    """A table that scrolls sideways where it must; numbers stand right, the first column heads its row."""
    body, kept = [], [list(row) for row in rows]
    numbers = [bool(kept) and all(_is_number(value) for value in column) for column in zip(*kept)] or [False] * len(
        head
    )
    for row in kept:
        first, *rest = row
        cells = [tag("th", cell(first), scope="row")]
        cells += [tag("td", cell(value), class_="n" if _is_number(value) else None) for value in rest]
        body.append(tag("tr", *cells))
    parts = [
        tag(
            "thead",
            tag("tr", *(tag("th", *_headed(t), scope="col", class_="n" if n else None) for t, n in zip(head, numbers))),
        ),
        tag("tbody", *body),
    ]
    if any(map(arrow, head)):
        caption = f"{caption.rstrip('.')}. {KEY}" if caption else KEY
    if caption:
        parts.insert(0, tag("caption", tag("span", caption)))
    return tag("div", tag("table", *parts), class_="wide", tabindex=0, role="region", aria_label=caption or "table")


def _headed(title: str) -> list[str]:
    """A column's title, and an arrow to where its values are better."""
    return [title, f" {arrow(title)}"] if arrow(title) else [title]


def cell(value: object) -> str:
    """A value as text: whole numbers with thousands apart, others to four digits, None as a dash."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def measured(value: Mapping[str, Any]) -> Html:
    """A mean with its interval and count, as :mod:`ops.evaluate.intervals` gives them."""
    if not value["n"] or value["mean"] is None:
        return tag("span", "–", class_="soft")
    bounds = f" [{value['interval'][0]:.3g}, {value['interval'][1]:.3g}]" if value["interval"] else ""
    return join([tag("b", f"{value['mean']:.3g}"), tag("small", f"{bounds} n = {value['n']:,}")])


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return not isinstance(value, Html) and (value[:1].isdigit() or value == "–")
    return value is None or isinstance(value, int | float | np.number)


def picture(path: Path, caption: str, how: Embedding, made_by: str) -> Html:
    """A figure with the picture of a file embedded.

    Args:
        path: the picture.
        caption: below it, and its description for who cannot see it.
        how: width and quality.
        made_by: the unit that makes the file, for the sentence that stands where there is none.

    Raises:
        Missing: there is no such file, or it is no picture.
    """
    if not path.is_file():
        raise Missing(f"{path.name} of {made_by} has not been made; dvc repro {made_by} makes it")
    data, kind = path.read_bytes(), "png"
    try:
        image = decode(data)
    except LineamentError as error:
        raise Missing(f"{path.name} of {made_by} is damaged ({error}); dvc checkout restores it") from None
    if len(data) > SMALL or image.shape[1] > how.width or not data.startswith(b"\x89PNG"):
        image = shrink_to_width(image, how.width)
        data = encode_png(image)
        smaller = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=how.quality, colorspace="RGB")
        if len(smaller) < len(data):
            data, kind = smaller, "jpeg"
    source_text = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    height, width = image.shape[:2]
    shown = tag("img", src=source_text, alt=caption, width=width, height=height, class_="tiny" if width < 300 else None)
    return tag("figure", shown, tag("figcaption", caption))


def film(path: Path, caption: str, how: Embedding, made_by: str) -> Html:
    """A figure in which a short video moves: an animated WebP, which every browser shows, from disk and without a
    script, where most do not play the videos themselves.

    Args, raises: as :func:`picture`.
    """
    if not path.is_file():
        raise Missing(f"{path.name} of {made_by} has not been made; dvc repro {made_by} makes it")
    data = path.read_bytes()
    try:
        frames, rate = [Image.fromarray(shrink_to_width(f, how.width)) for f in decode_clip(data)], frame_rate(data)
    except LineamentError as error:
        raise Missing(f"{path.name} of {made_by} is damaged ({error}); dvc checkout restores it") from None
    moving, pause = io.BytesIO(), round(max(1000 / rate, SHORTEST / len(frames)))
    frames[0].save(moving, "WEBP", save_all=True, append_images=frames[1:], duration=pause, loop=0, quality=how.quality)
    source_text = f"data:image/webp;base64,{base64.b64encode(moving.getvalue()).decode()}"
    width, height = frames[0].size
    shown = tag("img", src=source_text, alt=caption, width=width, height=height, class_="tiny" if width < 300 else None)
    return tag("figure", shown, tag("figcaption", caption))


def missing(why: str) -> Html:
    """The sentence that stands where something could not be shown."""
    return tag("p", _ABSENT, why.rstrip(".") + ".", class_="missing")


def warning(text: str) -> Html:
    """A sentence that must not be overlooked."""
    return tag("p", tag("strong", "Mind: "), text, class_="missing")


def absences(content: str) -> list[str]:
    """The reasons of all that ``content`` could not show."""
    return [html.unescape(part.partition("</p>")[0]) for part in content.split(_ABSENT)[1:]]


def attempt(make: Callable[[], Html]) -> Html:
    """What ``make`` gives, or the sentence that says why it cannot."""
    try:
        return make()
    except LineamentError as error:
        return missing(str(error))


def facts(make: Callable[[], list[T]]) -> list[T]:
    """The facts or limits that ``make`` gives, none where it cannot: the sections made of the same files say why."""
    try:
        return make()
    except LineamentError:
        return []


def notes(lines: Iterable[str]) -> Html:
    """A list of plain sentences."""
    return tag("ul", *(tag("li", line) for line in lines))


def render(title: str, lead: str, sections: Sequence[Section], foot: str, site: Html | None = None) -> str:
    """The whole page as text; ``site`` holds the links to the other pages."""
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    links = [tag("a", s.title, href=f"#{s.anchor}") for s in sections]
    parts = [tag("section", tag("h2", s.title), s.content, id=s.anchor) for s in sections]
    head = tag(
        "head",
        Html('<meta charset="utf-8"/>'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        Html(f"<style>{style}</style>"),
    )
    above = [tag("nav", site, class_="site", aria_label="Pages")] if site else []
    inside = tag("nav", *links, aria_label="Sections")
    header = tag("header", *above, tag("h1", title), tag("p", lead, class_="lead"), inside)
    body = tag("body", header, tag("main", *parts), tag("footer", foot))
    return f'<!doctype html>\n<html lang="en-GB">{head}{body}</html>\n'
