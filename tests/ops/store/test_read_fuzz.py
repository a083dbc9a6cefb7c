"""Damaged label tables and pictures: read, or refused with a clear error; never anything else."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.synthetic import label_table
from ops.runtime.errors import LineamentError, PictureError
from ops.store import tables
from ops.store.inorder import InOrder
from ops.store.pictures import KINDS, decode, picture_problem, sniff
from tests.ops.odd_pictures import encode

KEYS = [f"{number:016x}" for number in range(40)]
IMAGE = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(9, 12, 3)
REASONS = {"empty", "not_a_picture", "too_large", "truncated", "undecodable", None}


def damaged(data: bytes, changes: list[tuple[int, int]], end: int) -> bytes:
    """Some bytes changed, and the end cut off."""
    content = bytearray(data)
    for place, value in changes:
        content[place % len(content)] = value
    return bytes(content[: len(content) - end % len(content)])


DAMAGE = (
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    st.just(0) | st.integers(0, 10**6),
)


@pytest.fixture(scope="module")
def table_bytes(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "t.parquet"
    reasons = [None if number % 3 else "blurred" for number in range(len(KEYS))]
    table = label_table(KEYS, reasons, quad=[[float(number)] * 8 for number in range(len(KEYS))])
    tables.write(path, table, "s")
    return path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(*DAMAGE)
def test_any_damaged_table_is_read_or_a_clear_error(table_bytes, tmp_path_factory, changes, end):
    path = tmp_path_factory.mktemp("tables") / "t.parquet"
    path.write_bytes(damaged(table_bytes, changes, end))
    with contextlib.suppress(LineamentError):
        table = InOrder(path, ["quad"], kept=True)
        assert set(table.rows(KEYS)) <= set(KEYS)
        table.end()
    with contextlib.suppress(LineamentError):
        tables.check(tables.read(path), path)
    with contextlib.suppress(LineamentError):
        assert tables.counts(tables.parts(path, tables.NAMES))["in"] >= 0


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"]), *DAMAGE)
def test_any_damaged_picture_is_decoded_or_refused_for_a_reason(kind, changes, end):
    data = damaged(encode(Image.fromarray(IMAGE), kind), changes, end)
    assert picture_problem(data) in REASONS
    reason = None
    try:
        decode(data)
    except PictureError as error:
        reason = error.reason
    assert reason in REASONS


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a", b"P5\n", b"II*\x00"]),
    st.binary(max_size=80),
)
def test_any_bytes_are_a_picture_or_refused(magic, rest):
    data = magic + rest
    assert sniff(data) in KINDS or picture_problem(data) in ("empty", "not_a_picture")
    with contextlib.suppress(PictureError):
        decode(data)
