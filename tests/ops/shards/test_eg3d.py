"""EG3D's zips: a lossless round trip, EG3D's own rules of reading, and no trust in what others send."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.camera import intrinsics, pack_label, pose_on_sphere
from ops import cli
from ops.runtime.errors import LineamentError
from ops.shards.eg3d import export, import_
from ops.store.eg3d import Archive
from ops.store.pictures import encode_jpeg, encode_png
from ops.store.reader import ShardDataset
from ops.store.tar import ShardWriter


def camera(number: int) -> list[float]:
    return pack_label(pose_on_sphere(torch.tensor(0.1 * number), torch.tensor(0.05)), intrinsics()).tolist()


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)


@pytest.fixture
def shards(tmp_path) -> Path:
    folder = tmp_path / "shards"
    with ShardWriter(folder, 2) as writer:
        for number in range(5):
            label = {"camera": camera(number), "duplicates": 1 + number % 2, "source": "studio", "yaw": 1.5}
            fields = {
                "jpg": encode_jpeg(picture(number)),
                "mask.png": encode_png(picture(number)[..., 0]),
                "parsing.png": encode_png(picture(number)[..., 1] % 19),
                "json": json.dumps(label, sort_keys=True).encode(),
            }
            writer.add(f"{number:016x}", fields)
    (folder / "dataset.json").write_text('{"samples": 5, "resolution": 16, "hash": "x"}\n')
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("repeat", [[], ["--repeat"]])
def test_a_round_trip_gives_the_same_bytes(shards, tmp_path, repeat):
    out = tmp_path / "out" / "set.zip"
    assert cli.main(["dataset", "export", str(shards), str(out), "--format", "eg3d", *repeat]) == 0
    assert cli.main(["dataset", "import", str(out), str(tmp_path / "back")]) == 0
    assert content(tmp_path / "back") == content(shards)
    first = content(out.parent)
    export(shards, out, bool(repeat))
    assert content(out.parent) == first, "equal shards give equal zips"


def test_the_zip_reads_as_eg3d_and_panohead_read_it(shards, tmp_path):
    """Their rules: pictures by extension in sorted order, a label for each by name, masks by the same stem."""
    assert export(shards, tmp_path / "set.zip", repeat=True) == 7
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith((".png", ".jpg")))
        labels = dict(json.loads(archive.read("dataset.json"))["labels"])
        assert {name: len(labels[name]) for name in names} == dict.fromkeys(names, 25)
        assert archive.testzip() is None
    data = ShardDataset(shards)
    wanted = [(n, c) for n in range(5) for c in range(1 + n % 2)]
    assert [labels[name] for name in names] == [camera(n) for n, _ in wanted]
    with zipfile.ZipFile(tmp_path / "set_seg.zip") as masks:
        stems = {n.rsplit(".", 1)[0]: n for n in masks.namelist()}
        for name, (number, _) in zip(names, wanted, strict=True):
            assert masks.read(stems[name.rsplit(".", 1)[0]]) == data.read(number)["mask.png"]


def foreign(path: Path, labels: object, names=("00000/a.png", "00000/b.png")) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, encode_png(picture(number)))
        if labels is not None:
            archive.writestr("dataset.json", labels if isinstance(labels, str) else json.dumps({"labels": labels}))
    return path


def test_another_projects_set_becomes_shards(tmp_path):
    names = ["00000/a.png", "00000/b.png"]
    path = foreign(tmp_path / "set.zip", [[name, camera(n)] for n, name in enumerate(names)])
    with zipfile.ZipFile(tmp_path / "set_seg.zip", "w") as masks:
        masks.writestr("00000/a.png", encode_png(picture(9)[..., 0]))
    assert import_(path, tmp_path / "out", "CC0-1.0") == 2
    data = ShardDataset(tmp_path / "out")
    first, second = data.read(0), data.read(1)
    label = json.loads(second["json"])
    assert first["png"] == encode_png(picture(0))
    assert first["mask.png"] == encode_png(picture(9)[..., 0])
    assert (label["camera"], label["licence"], label["name"]) == (camera(1), "CC0-1.0", names[1])
    assert label["yaw"] == pytest.approx(np.rad2deg(0.1), abs=1e-3)
    assert json.loads((tmp_path / "out/dataset.json").read_text())["resolution"] == 16


BROKEN = {
    "{": "not valid JSON",
    "[]": 'has no "labels"',
    '{"labels": 3}': "should be a list",
    '{"labels": [["00000/a.png"]]}': "entry 0",
    '{"labels": [["00000/a.png", [1, 2]]]}': "25 finite numbers",
    json.dumps({"labels": [["00000/a.png", ["x"] * 25]]}): "25 finite numbers",
    json.dumps({"labels": [["00000/a.png", [float("nan")] * 25]]}): "25 finite numbers",
    json.dumps({"labels": [["00000/a.png", [0.0] * 25]]}): "1 pictures have no label",
    json.dumps({"labels": [["00000/a.png", [0.0] * 25]] * 2}): "two labels",
    "[" * 100_000: "not valid JSON",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_dataset_json_is_named(tmp_path, text):
    with pytest.raises(LineamentError, match=BROKEN[text]):
        import_(foreign(tmp_path / "set.zip", text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def unsafe(kind: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", encode_png(picture(0)))
        if kind == "link":
            info = zipfile.ZipInfo("b.png")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
        elif kind == "twice":
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("a.png", b"other")
        else:
            archive.writestr(kind, b"x")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "says"),
    [("../b.png", "leaves"), ("/b.png", "leaves"), ("x/../../b.png", "leaves"), ("C:/b.png", "leaves"),
     ("link", "a link"), ("twice", "comes twice")],
)  # fmt: skip
def test_unsafe_members_are_refused(tmp_path, kind, says):
    (tmp_path / "set.zip").write_bytes(unsafe(kind))
    with pytest.raises(LineamentError, match=says):
        import_(tmp_path / "set.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ops.store.eg3d.MAX_MEMBER", 10_000)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", encode_png(picture(0)) + bytes(1_000_000))
    with pytest.raises(LineamentError, match="unpacks to more"):
        import_(tmp_path / "set.zip", tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "words", "none", "not_a_picture", "no_zip_name", "ours"])
def test_damage_is_named(shards, tmp_path, damage):
    path = tmp_path / "set.zip"
    export(shards, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "words":
        path.write_bytes(b"no zip")
    elif damage == "none":
        path.unlink()
    elif damage == "not_a_picture":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.png", b"no picture")
    elif damage == "no_zip_name":
        with pytest.raises(LineamentError, match=r"\.zip"):
            export(shards, tmp_path / "set.tar")
        return
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.png", encode_png(picture(0)))
            archive.writestr("lineament.json", '{"version": 1}')
    with pytest.raises(LineamentError, match=r"set\.zip"):
        import_(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5000), st.integers(0, 255), st.booleans())
def test_any_damaged_zip_is_read_or_a_clear_error(tmp_path_factory, place, value, cut):
    path = tmp_path_factory.mktemp("zips") / "set.zip"
    data = bytearray(_whole(tmp_path_factory))
    place %= len(data)
    data[place:] = data[place + 1 :] if cut else bytes([value]) + data[place + 1 :]
    path.write_bytes(bytes(data))
    try:
        archive = Archive(path)
        for name in archive.names:
            archive.read(name)
    except LineamentError as error:
        assert "set.zip" in str(error)  # noqa: PT017  either outcome is right


_cache: list[bytes] = []


def _whole(factory) -> bytes:
    if not _cache:
        path = foreign(factory.mktemp("whole") / "set.zip", [[f"00000/{n}.png", [0.0] * 25] for n in "ab"])
        _cache.append(path.read_bytes())
    return _cache[0]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(json_values, st.booleans())
def test_any_dataset_json_is_read_or_a_clear_error(tmp_path_factory, value, wrap):
    path = tmp_path_factory.mktemp("zips") / "set.zip"
    foreign(path, json.dumps({"labels": value} if wrap else value))
    try:
        Archive(path)
    except LineamentError as error:
        assert "dataset.json" in str(error)  # noqa: PT017  either outcome is right
