"""The ``search`` source: picture search by keyword lists, the results downloaded by the one fetcher.

Openverse gives openly licensed pictures with the licence of each. For the engines without such an interface, icrawler
makes the addresses of the result pages and reads them; it never touches the network itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

from ops.crawl.download import Link
from ops.crawl.fetch import Fetched, Fetcher
from ops.runtime.errors import LineamentError
from ops.runtime.params import read_yaml

Result = tuple[str, dict[str, Any]]
Engine = tuple[Callable[[str, int], list[str]], Callable[[bytes], Iterator[Result]]]
OPENVERSE_PAGE = 20  # results a page without an account


def keywords(path: Path) -> list[str]:
    """The search phrases of a keyword file, each once.

    Raises:
        LineamentError: the file is missing or has not the form of ``hairstyles.yaml``.
    """
    content = read_yaml(path)
    found: dict[str, None] = {}
    try:
        for group in content["groups"].values():
            for style in group["styles"]:
                for phrase in group["phrases"]:
                    for view in content.get("views") or [""] if "{view}" in phrase else [""]:
                        found[" ".join(phrase.format(style=style, view=view).split())] = None
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise LineamentError(f"{path}: not of the form of ops/crawl/hairstyles.yaml ({error!r}).") from None
    if not found:
        raise LineamentError(f"{path}: there is no search phrase in it.")
    return list(found)


def search_links(
    engine: str, phrases: list[str], per_phrase: int, licence: str, fetcher: Fetcher, robots: bool = True
) -> Iterator[Link]:
    """What an engine finds for each phrase.

    Args:
        engine: one of ``ENGINES``.
        phrases: see keywords.
        per_phrase: results at most.
        licence: where the engine says nothing of it.
        fetcher: gets the result pages.
        robots: whether the engine's robots.txt has a say about its result pages.

    Raises:
        LineamentError: not one result page could be had; the message says why.
    """
    pages_of, results_of = ENGINES[engine]()
    answered, last = 0, Fetched("", "")
    for phrase in phrases:
        count = 0
        for page in pages_of(phrase, per_phrase):
            last = fetcher.fetch(page, robots=robots)
            if last.data is None:
                break  # one page that fails loses its phrase only
            answered += 1
            results = list(results_of(last.data))[: per_phrase - count]
            for url, known in results:
                yield Link(url, {"licence": licence, "page": page, "keyword": phrase, **known})
            count += len(results)
            if not results or count >= per_phrase:
                break
    if not answered:
        advice = " Its robots.txt forbids it; engine: openverse allows it." if last.problem == "robots_disallow" else ""
        raise LineamentError(f"{engine}: not one page of results could be had ({last.problem}).{advice}")


def _openverse() -> Engine:
    def pages(phrase: str, wanted: int) -> list[str]:
        base = "https://api.openverse.org/v1/images/?"
        count = -(-wanted // OPENVERSE_PAGE)
        return [base + urlencode({"q": phrase, "page_size": OPENVERSE_PAGE, "page": n + 1}) for n in range(count)]

    def results(data: bytes) -> Iterator[Result]:
        try:
            entries = json.loads(data)["results"]
            for entry in entries:
                words = (entry.get("license"), entry.get("license_version"))
                known = {
                    "licence": " ".join(str(word) for word in words if word) or None,
                    "licence_url": entry.get("license_url"),
                    "author": entry.get("creator"),
                    "title": entry.get("title"),
                    "page": entry.get("foreign_landing_url"),
                }
                yield str(entry["url"]), {name: value for name, value in known.items() if value}
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # an answer that is none of Openverse's ends the phrase

    return pages, results


def _icrawler(name: str) -> Engine:
    from icrawler.builtin import baidu, bing, google
    from icrawler.utils import Session, Signal

    module, prefix = {"bing": (bing, "Bing"), "google": (google, "Google"), "baidu": (baidu, "Baidu")}[name]
    signal, session = Signal(), Session(None)
    feeder = getattr(module, f"{prefix}Feeder")(1, signal, session)
    parser = getattr(module, f"{prefix}Parser")(1, signal, session)

    def pages(phrase: str, wanted: int) -> list[str]:
        feeder.out_queue = Queue()
        feeder.feed(keyword=phrase, offset=0, max_num=wanted)
        return [feeder.out_queue.get_nowait() for _ in range(feeder.out_queue.qsize())]

    def results(data: bytes) -> Iterator[Result]:
        page = SimpleNamespace(content=data, text=data.decode("utf-8", "ignore"))
        try:
            for found in parser.parse(page) or ():
                yield str(found["file_url"]), {}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return  # a page of another form has no results

    return pages, results


ENGINES: dict[str, Callable[[], Engine]] = {
    "openverse": _openverse,
    "bing": lambda: _icrawler("bing"),
    "google": lambda: _icrawler("google"),
    "baidu": lambda: _icrawler("baidu"),
}
