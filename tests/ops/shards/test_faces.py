"""Fitted faces in the training shards: those that were kept, and none where nothing was fitted."""

import pyarrow as pa

from ops.shards.faces import FIT, fits_of
from ops.store import tables


def test_only_fits_that_were_kept_are_told(tmp_path):
    rows = {
        "id": ["a", "b"],
        "identity": [[0.1] * 80, [0.2] * 80],
        "expression": [[0.3] * 52, [0.4] * 52],
        "pose": [[0.0] * 6] * 2,
        "camera": [[1.0] * 25] * 2,
        "residual": [1.5, 9.0],
        "converged": [True, True],
        "kept": [True, False],
        "reason": [None, "large_residual"],
    }
    tables.write(tmp_path / "fit_face.parquet", pa.table(rows), stage="fit_face")
    fits = fits_of(tmp_path)
    assert fits is not None
    found = fits.rows(["a", "b"])
    assert set(found) == {"a"}
    assert set(FIT) <= set(found["a"])
    assert found["a"]["residual"] == 1.5
    assert found["a"]["identity"] == [0.1] * 80


def test_a_source_without_fits_has_none(tmp_path):
    assert fits_of(tmp_path) is None
