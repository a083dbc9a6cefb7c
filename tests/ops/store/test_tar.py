"""Shards: the same bytes every time, readable by WebDataset, and every kind of damage is named."""

import io
import random
import tarfile

import pytest

from ops.runtime.errors import LineamentError
from ops.store.tar import Shard, ShardWriter, TarWriter, build_index, index_path, shard_paths


def samples(n: int, seed: int = 0) -> list[tuple[str, dict[str, bytes]]]:
    rng = random.Random(seed)
    return [
        (f"{i:016x}", {"jpg": rng.randbytes(rng.randrange(1, 3000)), "mask.png": rng.randbytes(7), "json": b"{}"})
        for i in range(n)
    ]


def write(folder, items, per_shard=5):
    with ShardWriter(folder, per_shard) as writer:
        for key, fields in items:
            writer.add(key, fields)
    return shard_paths(folder)


def test_round_trip_in_order(tmp_path):
    items = samples(13)
    paths = write(tmp_path / "a", items)
    assert [p.name for p in paths] == ["000000.tar", "000001.tar", "000002.tar"]
    assert [sample for path in paths for sample in Shard(path).samples()] == items


def test_same_content_same_bytes(tmp_path):
    first, second = write(tmp_path / "a", samples(12)), write(tmp_path / "b", samples(12))
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert index_path(a).read_bytes() == index_path(b).read_bytes()


def test_webdataset_reads_the_same(tmp_path):
    import webdataset

    items = samples(7)
    paths = write(tmp_path / "a", items)
    stream = webdataset.WebDataset([str(p) for p in paths], shardshuffle=False)
    read = [(s["__key__"], {k: s[k] for k in ("jpg", "mask.png", "json")}) for s in stream]
    assert read == items


def test_an_index_made_from_the_headers_equals_the_written_one(tmp_path):
    path = write(tmp_path / "a", samples(5))[0]
    written = Shard(path)
    index_path(path).unlink()
    rebuilt = Shard(path)
    assert rebuilt.keys == written.keys
    assert list(rebuilt.samples()) == list(written.samples())
    assert rebuilt.sha256 == written.sha256


@pytest.mark.parametrize("change", [-1, 1])
def test_a_byte_less_or_more_is_noticed(tmp_path, change):
    path = write(tmp_path / "a", samples(5))[0]
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + b"\0")
    with pytest.raises(LineamentError, match="bytes, where"):
        Shard(path)


def test_a_deleted_shard_is_named(tmp_path):
    path = write(tmp_path / "a", samples(5))[0]
    path.unlink()
    with pytest.raises(LineamentError, match="missing"):
        Shard(path)


def test_changed_content_fails_verification(tmp_path):
    path = write(tmp_path / "a", samples(5))[0]
    shard = Shard(path)
    shard.verify()
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with pytest.raises(LineamentError, match="sha256"):
        shard.verify()


def test_nothing_appears_when_writing_fails(tmp_path):
    def fail_midway():
        with TarWriter(tmp_path / "x.tar") as writer:
            writer.add("a", {"jpg": b"1"})
            raise RuntimeError("pulled the plug")

    with pytest.raises(RuntimeError):
        fail_midway()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "field", "message"), [("a.b", "jpg", "key"), ("../x", "jpg", "key"), ("a", "../jpg", "field")]
)
def test_names_that_would_be_read_otherwise_are_refused(tmp_path, key, field, message):
    with pytest.raises(LineamentError, match=message), TarWriter(tmp_path / "x.tar") as writer:
        writer.add(key, {field: b""})


def test_the_same_key_twice_is_refused(tmp_path):
    with pytest.raises(LineamentError, match="twice"), TarWriter(tmp_path / "x.tar") as writer:
        writer.add("a", {"jpg": b""})
        writer.add("a", {"jpg": b""})


def hostile(path, members):
    with tarfile.open(path, "w") as tar:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "/etc/passwd"
            info.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"abc") if info.size else None)


@pytest.mark.parametrize(
    "members",
    [
        [("../a.jpg", tarfile.REGTYPE)],
        [("/a.jpg", tarfile.REGTYPE)],
        [("a.jpg", tarfile.SYMTYPE)],
        [("a.jpg", tarfile.LNKTYPE)],
        [("a.jpg", tarfile.REGTYPE), ("a.jpg", tarfile.REGTYPE)],
        [("a.jpg", tarfile.REGTYPE), ("b.jpg", tarfile.REGTYPE), ("a.json", tarfile.REGTYPE)],
    ],
)
def test_hostile_tars_are_refused(tmp_path, members):
    hostile(tmp_path / "x.tar", members)
    with pytest.raises(LineamentError, match="refuses|twice"):
        build_index(tmp_path / "x.tar")


def test_no_tar_at_all(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"hello" * 300)
    with pytest.raises(LineamentError, match="not a readable tar"):
        build_index(tmp_path / "x.tar")


def test_folders_without_shards_are_named(tmp_path):
    with pytest.raises(LineamentError, match="no such folder"):
        shard_paths(tmp_path / "none")
    with pytest.raises(LineamentError, match="no shard"):
        shard_paths(tmp_path)
