"""Stage ``crawl``: bring one declared source's pictures into raw shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ops.crawl import folder, studio
from ops.crawl.raw import RawPicture, add_pictures
from ops.crawl.sources import FolderSource, StudioSource, load_source
from ops.curate.sheets import contact_sheet
from ops.runtime.errors import LineamentError, PictureError
from ops.runtime.params import Params
from ops.runtime.shardwork import code_hash, digest
from ops.runtime.stage import Stage, stage
from ops.store import clips, pictures, tables
from ops.store.tar import Shard, shard_paths

SHOWN = 24


class CrawlParams(Params):
    per_shard: int = 256  # unpublished: our choice; about 50 MB of photos a shard


def offered(s: Stage[Any], source: FolderSource | StudioSource) -> Iterator[RawPicture]:
    """All that a source has to offer now."""
    if isinstance(source, StudioSource):
        return studio.pictures(s, source)
    return folder.pictures(source)


@stage("crawl", CrawlParams)
def main(s: Stage[CrawlParams], raw: Path, truth: Path, *, source: str) -> None:
    """Bring one declared source's pictures into raw shards: original bytes, provenance, and nothing twice."""
    declared = load_source(source, s.params_file)
    identity = [declared.model_dump(mode="json", exclude={"refresh"}), s.params.per_shard]
    if isinstance(declared, StudioSource):
        identity.append(code_hash(studio.code()))  # another studio draws other pictures: nothing old is kept
    stream = s.progress(offered(s, declared), desc=f"crawl {source}", unit="picture")
    stream = studio.write_truth(stream, truth, s.params.per_shard)
    table, new = add_pictures(raw, source, digest(identity), stream, s.params.per_shard)
    counts = tables.counts(table)
    if not counts["kept"]:
        raise LineamentError(f"{source}: not one picture could be read.")
    s.log(f"{counts['kept']} pictures from {source}, {new} of them new; {counts['rejected']} left out")
    s.metrics(counts)
    s.preview(_sheet(raw))


def _sheet(raw: Path) -> np.ndarray:
    """Some pictures of all over the source, evenly chosen."""
    places = [(shard, key) for shard in map(Shard, shard_paths(raw)) for key in shard.keys]
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, min(SHOWN, len(places))).astype(int)]
    images, captions = [], []
    for shard, key in chosen:
        field = next(f for f in shard.fields(key) if f != "json")
        try:
            data = shard.read(key, field)
            images.append(next(clips.decode_clip(data)) if field in clips.EXTENSIONS else pictures.decode(data))
            captions.append(key[:8])
        except PictureError as error:
            images.append(np.full((64, 64, 3), 200, np.uint8))
            captions.append(error.reason)
    return contact_sheet(images, captions)


if __name__ == "__main__":
    raise SystemExit(main())
