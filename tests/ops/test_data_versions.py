"""What is new, gone and taken down between two versions, and how far they drifted, on versions made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ops.data_versions import BLUR_EDGES, SCHEMA, VIEW_EDGES, changes, compare, drift, gain, profile, taken_down
from ops.runtime.errors import LineamentError
from ops.store import tables
from ops.store.reader import ShardDataset
from ops.store.tar import ShardWriter

FACES = Path("data/shards/faces")


def version(ids: list[str], yaws: list[float], blur: float = 8.0) -> pa.Table:
    columns = {"id": ids, "source": ["s"] * len(ids), "yaw": yaws, "blur": [2.0**blur] * len(ids)}
    return pa.table(columns, schema=SCHEMA)


def write_shards(root: Path, samples: dict[str, float], sharpness: float = 100.0) -> None:
    """Shards with yaw labels, and the label table with their sharpness."""
    folder = root / FACES
    for old in folder.glob("*"):
        old.unlink()
    with ShardWriter(folder) as writer:
        for key, yaw in samples.items():
            writer.add(key, {"json": json.dumps({"source": "mine", "yaw": yaw}).encode()})
    (folder / "dataset.json").write_text(json.dumps({"hash": ShardDataset(folder).hash, "samples": len(samples)}))
    columns = {"id": list(samples), "laplacian": [sharpness] * len(samples), "kept": [True] * len(samples)}
    table = pa.table({**columns, "reason": pa.array([None] * len(samples), pa.string())})
    (root / "data/labels/mine").mkdir(parents=True, exist_ok=True)
    tables.write(root / "data/labels/mine/screen.parquet", table, "screen")


def test_new_gone_and_taken_down() -> None:
    before = version(["a", "b", "c", "d"], [0, 0, 0, 0])
    found = compare(before, version(["c", "d", "e"], [0, 0, 0]), {"a", "z"})
    assert (found.new, found.gone, found.taken_down) == (1, 2, 1)
    assert (found.samples_before, found.samples, found.gain) == (4, 3, -25.0)
    assert found.new_by_source == {"s": 1}
    assert found.view_drift == found.blur_drift == 0


def test_drift_is_the_share_that_moved() -> None:
    front, half = version(list("abcd"), [5, 5, 5, 5]), version(list("abcd"), [5, 5, 175, -175])
    assert compare(front, half, set()).view_drift == 0.5
    assert compare(front, version(list("abcd"), [5] * 4, blur=3.5), set()).blur_drift == 1.0


def test_drift_is_a_metric_whatever_the_counts() -> None:
    generator = np.random.default_rng(0)
    a, b, c = (tuple(generator.integers(0, 50, 12).tolist()) for _ in range(3))
    assert drift(a, a) == drift(a, tuple(3 * n for n in a)) == 0
    assert drift(a, b) == drift(b, a)
    assert 0 < drift(a, c) <= drift(a, b) + drift(b, c) <= 2
    assert drift((1, 0), (0, 1)) == 1
    assert drift((), ()) == drift((0, 0), (1, 1)) == 0
    assert gain(0, 0) == 0
    assert gain(0, 3) == 100


def test_views_wrap_and_sharpness_ends_in_the_outer_bins(tmp_path: Path) -> None:
    write_shards(tmp_path, {"a": 185.0, "b": -175.0, "c": 540.0}, sharpness=1e9)
    found = profile(tmp_path, FACES)
    assert len(found.views) == len(VIEW_EDGES) - 1
    assert len(found.blurs) == len(BLUR_EDGES) - 1
    assert found.views[0] == 3, "540° is 180°, which is -180°"
    assert found.blurs[-1] == found.samples == 3


def test_a_first_version_then_the_next_and_looking_twice(tmp_path: Path) -> None:
    write_shards(tmp_path, {"a" * 16: 0.0, "b": 0.0})
    first = changes(tmp_path, FACES)
    assert first.before is None
    assert (first.new, first.gone) == (2, 0)
    write_shards(tmp_path, {"b": 0.0, "c": 90.0, "d": 90.0})
    (tmp_path / "data/takedown.csv").write_text(f"id,reason\n{'a' * 16},asked\n")
    second = changes(tmp_path, FACES)
    assert second.before == first.after
    assert (second.new, second.gone, second.taken_down) == (2, 1, 1)
    assert second.view_drift == pytest.approx(2 / 3, abs=1e-6)
    assert changes(tmp_path, FACES) == second
    metrics = json.loads((tmp_path / "metrics/changes/faces.json").read_text())
    assert metrics["gain_percent"] == 50.0
    assert metrics["new_by_source"] == {"mine": 2}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("id,url\nAAAAAAAAAAAAAAAA,\n", {"a" * 16}),
        ("sha256\n" + "b" * 64 + "\n", {"b" * 16}),
        ("# a remark\nid,sha256\n," + "c" * 64 + "\n", {"c" * 16}),
        ("url\nhttps://example.org/1.jpg\n", {"d" * 16}),
        ("url\nhttps://example.org/3.jpg\n", set()),
        ("", set()),
    ],
)
def test_the_takedown_list(tmp_path: Path, text: str, found: set[str]) -> None:
    assert taken_down(tmp_path) == set()
    (tmp_path / "data/raw/mine").mkdir(parents=True)
    crawled = {"id": ["d" * 16, "e" * 16], "url": ["https://example.org/1.jpg", "https://example.org/2.jpg"]}
    pq.write_table(pa.table(crawled), tmp_path / "data/raw/mine/crawl.parquet")
    (tmp_path / "data/takedown.csv").write_text(text)
    assert taken_down(tmp_path) == found


def test_a_list_of_unknown_columns_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/takedown.csv").write_text("picture\nme.jpg\n")
    with pytest.raises(LineamentError, match="none of the columns"):
        taken_down(tmp_path)
