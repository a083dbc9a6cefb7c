"""Stage ``crawl``: bring one declared source's pictures into raw shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ops.crawl import folder, studio, video
from ops.crawl.download import Downloads, Link
from ops.crawl.layouts import PICTURE_SETS
from ops.crawl.raw import RawPicture, add_pictures, earlier
from ops.crawl.search import keywords, search_links
from ops.crawl.sources import (
    AnySource,
    DatasetSource,
    FolderSource,
    SearchSource,
    StudioSource,
    UrlSource,
    VideoSource,
    load_source,
)
from ops.crawl.urls import read_links
from ops.crawl.videosets import VIDEO_SETS
from ops.curate import takedown
from ops.curate.sheets import contact_sheet
from ops.runtime.errors import LineamentError, PictureError
from ops.runtime.params import Params
from ops.runtime.shardwork import code_hash, digest
from ops.runtime.stage import Stage, stage
from ops.store import clips, pictures
from ops.store.reader import ShardDataset

SHOWN = 24


class CrawlParams(Params):
    per_shard: int = 256  # unpublished: our choice; about 50 MB of photos a shard


@dataclass(frozen=True)
class Offer:
    """What a source has to offer now.

    Attributes:
        pictures: one after the other.
        also: writes what else belongs into the raw folder.
        done: called when all is published.
    """

    pictures: Iterator[RawPicture]
    also: Callable[[Path], object] = lambda folder: None
    done: Callable[[], object] = lambda: None


def offered(s: Stage[Any], source: AnySource, raw: Path, fresh: bool = False) -> Offer:
    """All that a source has to offer now.

    Args:
        s: the running stage.
        source: as declared.
        raw: its raw folder as it is.
        fresh: whether what is there counts for nothing.
    """
    match source:
        case StudioSource():
            return Offer(studio.pictures(s, source))
        case FolderSource():
            return Offer(folder.pictures(source))
        case VideoSource():
            return Offer(video.pictures(source))
        case DatasetSource():
            return Offer(_dataset(source))
        case UrlSource() | SearchSource():
            downloads = Downloads(raw, s.work, source.fetch, source.recheck_days, fresh)
            if isinstance(source, UrlSource):
                links: Iterable[Link] = read_links(Path(source.path).expanduser(), source.column, source.licence)
            else:
                robots = source.engine_robots == "obey"
                phrases = keywords(Path(source.path).expanduser())
                s.log(f"asking {source.engine} for {len(phrases)} phrases")
                links = search_links(
                    source.engine, phrases, source.per_phrase, source.licence, downloads.fetcher, robots
                )
            unwanted = takedown.read().urls
            links = (link for link in links if link.url not in unwanted)  # not even asked for
            return Offer(downloads.pictures(links), downloads.write, downloads.forget)


def _dataset(source: DatasetSource) -> Iterator[RawPicture]:
    """The pictures of a data set, with whom they show where its owner says so, and the declared licence where its owner
    states none."""
    root = Path(source.path).expanduser()
    if not root.exists():
        raise LineamentError(f"{root}: no such folder or file. Correct the source's path in params.yaml.")
    if source.layout in VIDEO_SETS:
        found = VIDEO_SETS[source.layout](root, source.stride)
    else:
        found = PICTURE_SETS[source.layout](root)
    for picture in found:
        said = json.loads(picture.official.get("official.json", b"{}"))
        person = {"identity": str(said["identity"])} if said.get("identity") else {}
        yield replace(picture, provenance={"licence": source.licence, **person, **picture.provenance})


@stage("crawl", CrawlParams)
def main(s: Stage[CrawlParams], raw: Path, truth: Path, *, source: str) -> None:
    """Bring one declared source's pictures into raw shards: original bytes, provenance, and nothing twice."""
    declared = load_source(source, s.params_file)
    identity = [declared.settings(), s.params.per_shard]
    if isinstance(declared, StudioSource):
        identity.append(code_hash(studio.code()))  # another studio draws other pictures: nothing old is kept
    settings = digest(identity)
    offer = offered(s, declared, raw, fresh=earlier(raw, settings) is None)
    stream = s.progress(offer.pictures, desc=f"crawl {source}", unit="picture")
    stream = studio.write_truth(stream, truth, s.params.per_shard)
    taken = takedown.read()
    counts, new = add_pictures(raw, source, settings, stream, s.params.per_shard, offer.also, taken.names)
    offer.done()
    if not counts["kept"]:
        raise LineamentError(f"{source}: not one picture could be read.")
    s.log(f"{counts['kept']} pictures from {source}, {new} of them new; {counts['rejected']} left out")
    s.metrics(counts)
    s.preview(_sheet(raw))


def _sheet(raw: Path) -> np.ndarray:
    """Some pictures of all over the source, evenly chosen."""
    data = ShardDataset(raw)
    chosen = [data.place(int(i)) for i in np.linspace(0, len(data) - 1, min(SHOWN, len(data))).astype(int)]
    images, captions = [], []
    for shard, key in chosen:
        field = shard.original_field(key)
        try:
            found = shard.read(key, field)
            images.append(next(clips.decode_clip(found)) if field in clips.EXTENSIONS else pictures.decode(found))
            captions.append(key[:8])
        except PictureError as error:
            images.append(np.full((64, 64, 3), 200, np.uint8))
            captions.append(error.reason)
    return contact_sheet(images, captions)


if __name__ == "__main__":
    raise SystemExit(main())
