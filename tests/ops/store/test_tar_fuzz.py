"""Any bytes that call themselves a shard are read or refused with its name; never anything else."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ops.runtime.errors import LineamentError
from ops.store.tar import Shard, TarWriter, index_path


def whole() -> bytes:
    """A shard of three samples."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key in ("a", "b", "c"):
            for field, data in (("jpg", key.encode() * 700), ("json", b"{}")):
                member = tarfile.TarInfo(f"{key}.{field}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


WHOLE = whole()


def read(path: Path) -> None:
    try:
        shard = Shard(path)
        for _, fields in shard.samples():
            assert all(isinstance(data, bytes) for data in fields.values())
    except LineamentError as error:
        assert str(path.with_suffix("")) in str(error)  # noqa: PT017  either outcome is right


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(WHOLE)))
def test_a_damaged_tar_without_an_index(tmp_path_factory, changes, end):
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    path = tmp_path_factory.mktemp("tars") / "000000.tar"
    path.write_bytes(bytes(data[:end]))
    read(path)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("tars") / "000000.tar"
    path.write_bytes(data)
    read(path)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5000), st.integers(0, 255))
@example(place=92, value=128)  # a key that is no text
def test_a_damaged_index(tmp_path_factory, place, value):
    path = tmp_path_factory.mktemp("tars") / "000000.tar"
    with TarWriter(path) as writer:
        writer.add("a", {"jpg": b"x" * 99, "json": b"{}"})
    data = bytearray(index_path(path).read_bytes())
    data[place % len(data)] = value
    index_path(path).write_bytes(bytes(data))
    read(path)
