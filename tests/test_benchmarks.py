"""What the benchmarks write."""

from __future__ import annotations

import json

from benchmarks.__main__ import beside_others
from benchmarks.harness import Row


def test_an_area_run_again_replaces_its_own_rows_alone(tmp_path):
    path = tmp_path / "bench.json"
    first = [Row("reader/rate", 1.0, "x"), Row("giraffe/old", 2.0, "s"), Row("giraffe/step", 3.0, "s")]
    path.write_text(json.dumps(beside_others(first, {"reader", "giraffe"}, path)))
    again = beside_others([Row("giraffe/step", 4.0, "s")], {"giraffe"}, path)
    assert [(row["name"], row["value"]) for row in again] == [("giraffe/step", 4.0), ("reader/rate", 1.0)]
    assert len(beside_others([], set(), path)) == 3, "an area that failed keeps what was known of it"
