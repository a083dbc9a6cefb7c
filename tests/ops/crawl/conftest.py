"""A crawl stage in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ops.crawl.__main__ import main
from ops.crawl.raw import TABLE
from ops.store import tables
from ops.store.pictures import encode_jpeg
from ops.store.tar import Shard, shard_paths
from tests.ops.crawl.internet import internet

__all__ = ["internet"]


def photo(number: int, side: int = 24) -> np.ndarray:
    """A picture like no other, (side, side, 3) uint8."""
    return np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)


def jpeg(number: int) -> bytes:
    return encode_jpeg(photo(number))


class Crawl:
    """The source ``web`` of a project, crawled."""

    raw = Path("data/raw/web")

    def __call__(self, code: int = 0, **source: Any) -> dict[str, dict[str, Any]]:
        """Run the stage; the crawl table's rows by name."""
        content = {"crawl": {"per_shard": 2}, "sources": {"web": source}}
        Path("params.yaml").write_text(yaml.safe_dump(content))
        assert main([str(self.raw), "data/truth/web", "--source", "web", "--metrics", "m.json"]) == code
        return {row["name"]: row for row in tables.read(self.raw / TABLE).to_pylist()} if code == 0 else {}

    def sample(self, row: dict[str, Any]) -> tuple[dict[str, bytes], dict[str, Any]]:
        """A row's fields and its provenance."""
        fields = Shard(self.raw / f"{row['shard']}.tar").sample(row["id"])
        return fields, json.loads(fields["json"])

    def shards(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in shard_paths(self.raw)}


@pytest.fixture
def crawl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crawl:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINEAMENT_WORKERS", "1")
    return Crawl()
