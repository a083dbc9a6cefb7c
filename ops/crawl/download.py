"""Many addresses to pictures: several hosts at a time, results in the list's order, nothing fetched twice.

``urls.parquet`` in the raw folder has a row for every address: what came of it and what a later conditional request
needs. Addresses that succeeded are left alone until they are due for another look; those that failed are tried again.
What is known of them is kept in a file, so memory does not grow with their number.
Bytes lie in the work area until the shards that hold them are published, so a killed crawl goes on where it was.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from ops.crawl.fetch import Fetched, Fetcher, FetchParams
from ops.crawl.raw import RawPicture, sample_id
from ops.runtime.publish import publish
from ops.store.pictures import picture_problem
from ops.store.tables import ROW_GROUP

TABLE = "urls.parquet"
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("url", "final", "problem", "etag", "modified", "id", "time")),
        ("code", pa.int32()),
        ("attempts", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Link:
    """An address with what its list says of it: licence, page, author …"""

    url: str
    provenance: dict[str, Any] = field(default_factory=dict)


def spread(links: Iterable[Link]) -> Iterator[Link]:
    """The links with hosts in turn, each address once: no host is asked for all its pictures in a row."""
    with closing(_scratch()) as db:
        db.execute("CREATE TABLE links (url TEXT PRIMARY KEY, host TEXT, place INTEGER, said TEXT) WITHOUT ROWID")
        rows = ((_plain(x.url), _plain(_host(x.url)), n, json.dumps(x.provenance)) for n, x in enumerate(links))
        db.executemany("INSERT OR IGNORE INTO links VALUES (?, ?, ?, ?)", rows)
        turns = "SELECT url, said, host, row_number() OVER (PARTITION BY host ORDER BY place) AS turn FROM links"
        for url, said in db.execute(f"SELECT url, said FROM ({turns}) ORDER BY turn, host"):
            yield Link(url, json.loads(said))


def _scratch() -> sqlite3.Connection:
    """A data base without a name on the disk, gone when it is closed; a fixed part of it is in memory."""
    db = sqlite3.connect("", isolation_level=None)
    db.executescript("PRAGMA cache_size = -32768; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
    return db


def _plain(text: str) -> str:
    """Text that can be stored: what is no character becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""  # no address at all; the fetcher says so


class Downloads:
    """One crawl's downloads and the table of what came of each address.

    Args:
        raw: the raw folder as it is; its ``urls.parquet`` says what is there already.
        work: where bytes wait until they are published.
        params: how to behave.
        recheck_days: after how many days an address that succeeded is asked whether it has changed; None: never.
        fresh: disregard what is there, as when the source's declaration has changed.
    """

    def __init__(
        self, raw: Path, work: Path, params: FetchParams, recheck_days: float | None = None, fresh: bool = False
    ) -> None:
        self.fetcher = Fetcher(params)
        self._work = work / "downloads"
        self._recheck_days = recheck_days
        self._db = _scratch()  # a row an address, as the table has it
        columns = ", ".join(name if name != "url" else "url TEXT PRIMARY KEY" for name in SCHEMA.names)
        self._db.execute(f"CREATE TABLE answers ({columns}) WITHOUT ROWID")
        path = raw / TABLE
        if path.is_file() and not fresh:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=SCHEMA.names):
                    self._put(*batch.to_pylist())

    def pictures(self, links: Iterable[Link]) -> Iterator[RawPicture]:
        """A picture, or the reason why there is none, for every link that is new, failed before, or is due."""
        todo = ((link, row) for link in spread(links) if self._due(row := self._row(link.url)))
        waiting: deque[tuple[Link, Future[Fetched]]] = deque()
        window = 4 * self.fetcher.params.connections
        with ThreadPoolExecutor(self.fetcher.params.connections) as pool:
            try:
                while True:
                    for link, row in itertools.islice(todo, window - len(waiting)):
                        waiting.append((link, pool.submit(self._fetch, link.url, row)))
                    if not waiting:
                        break
                    link, future = waiting.popleft()
                    picture = self._picture(link, future.result())
                    if picture is not None:
                        yield picture
            finally:
                for _, future in waiting:
                    future.cancel()

    def write(self, folder: Path) -> None:
        """The table of all addresses into the raw folder."""
        cursor = self._db.execute(f"SELECT {', '.join(SCHEMA.names)} FROM answers ORDER BY url")
        with pq.ParquetWriter(folder / TABLE, SCHEMA, compression="zstd") as out:
            rows = cursor.fetchmany(ROW_GROUP)
            while True:
                out.write_table(pa.Table.from_pylist([dict(zip(SCHEMA.names, row)) for row in rows], schema=SCHEMA))
                rows = cursor.fetchmany(ROW_GROUP)
                if not rows:
                    break

    def forget(self) -> None:
        """Drop the bytes that wait, once they are published."""
        self._db.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def _row(self, url: str) -> dict[str, Any] | None:
        found = self._db.execute(f"SELECT {', '.join(SCHEMA.names)} FROM answers WHERE url = ?", (url,)).fetchone()
        return None if found is None else dict(zip(SCHEMA.names, found))

    def _put(self, *rows: dict[str, Any]) -> None:
        marks = ", ".join(f":{name}" for name in SCHEMA.names)
        self._db.executemany(f"INSERT OR REPLACE INTO answers ({', '.join(SCHEMA.names)}) VALUES ({marks})", rows)

    def _due(self, row: dict[str, Any] | None) -> bool:
        if row is None or row["problem"] is not None:
            return True
        if self._recheck_days is None:
            return False
        return datetime.now(UTC) - datetime.fromisoformat(row["time"]) >= timedelta(days=self._recheck_days)

    def _fetch(self, url: str, row: dict[str, Any] | None) -> Fetched:
        place = self._work / hashlib.sha256(url.encode()).hexdigest()[:32]
        if place.with_suffix(".json").is_file():
            return Fetched(**json.loads(place.with_suffix(".json").read_text()), data=place.read_bytes())
        known = {"etag": row["etag"], "modified": row["modified"]} if row and row["problem"] is None else {}
        result = self.fetcher.fetch(url, **known)
        if result.data is None:
            return result
        problem = picture_problem(result.data)
        if problem is not None:
            return replace(result, data=None, problem=problem)
        with publish(place) as temporary:
            temporary.write_bytes(result.data)
        record = {name: value for name, value in asdict(result).items() if name != "data"}
        with publish(place.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(record))
        return result

    def _picture(self, link: Link, result: Fetched) -> RawPicture | None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        before = self._row(link.url)
        if before is not None and before["problem"] is None and (result.unchanged or result.problem is not None):
            self._put({**before, "time": now})  # what we have stays, whatever became of the address
            return None
        row = {name: getattr(result, name) for name in ("final", "problem", "etag", "modified", "code", "attempts")}
        key = sample_id(result.data) if result.data is not None else None
        self._put({**row, "url": link.url, "id": key, "time": now})
        if result.data is None:
            return RawPicture(link.url, None, problem=result.problem or "empty")
        seen = {"url": link.url, "time": now} | ({"final_url": result.final} if result.final != link.url else {})
        return RawPicture(link.url, result.data, {**link.provenance, **seen})
