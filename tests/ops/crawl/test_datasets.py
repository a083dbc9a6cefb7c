"""Each public layout as its owners ship it, in a tiny tree; broken ones end in a clear message."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops.crawl.layouts import CELEBA_PARTS, PICTURE_SETS
from ops.crawl.videosets import VIDEO_SETS
from ops.runtime.errors import LineamentError
from ops.store.pictures import decode, decode_grey, encode_png
from tests.ops.crawl.conftest import jpeg, photo
from tests.ops.crawl.test_video import write_video

TINY = encode_png(np.zeros((4, 4, 3), np.uint8))
POINTS = [[float(i), float(i + 1)] for i in range(68)]


def put(path: str, data: bytes | str | dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(data) if isinstance(data, dict) else data
    Path(path).write_bytes(data.encode() if isinstance(data, str) else data)


def read(crawl, layout: str, path: str = "set", **more):
    """The crawled set: name to (fields, provenance, what the owner says)."""
    rows = crawl(kind="dataset", layout=layout, path=path, licence="as declared", **more)
    assert all(row["kept"] for row in rows.values()), rows
    found = {}
    for name, row in rows.items():
        fields, provenance = crawl.sample(row)
        found[name] = fields, provenance, json.loads(fields.get("official.json", b"{}"))
    return found


def test_celebamask_hq(crawl):
    masks = {part: np.zeros((16, 16), np.uint8) for part in ("skin", "hair")}
    masks["skin"][4:12] = 255
    masks["hair"][:6] = 255
    for name in ("2.jpg", "10.jpg"):
        put(f"set/CelebA-HQ-img/{name}", jpeg(int(name[:-4])))
    for part, mask in masks.items():
        put(f"set/CelebAMask-HQ-mask-anno/0/00002_{part}.png", encode_png(mask))
    put("set/CelebA-HQ-to-CelebA-mapping.txt", "idx orig_idx orig_file\n2 77 000078.jpg\n10 5 000006.jpg\n")
    put("set/identity_CelebA.txt", "000078.jpg 4455\n000006.jpg 12\n")
    put("set/CelebAMask-HQ-pose-anno.txt", "2\nYaw Pitch Raw\n2.jpg 1.5 -2.5 3.5\n10.jpg 0 0 0\n")
    found = read(crawl, "celeba_hq")
    assert list(found) == ["CelebA-HQ-img/2.jpg", "CelebA-HQ-img/10.jpg"]
    fields, provenance, said = found["CelebA-HQ-img/2.jpg"]
    assert fields["jpg"] == jpeg(2)
    assert provenance["licence"] == "as declared"
    assert provenance["identity"] == "4455", "what training and held-out pictures are told apart by"
    assert (said["identity"], said["celeba"], said["yaw_pitch_roll"]) == ("4455", "000078.jpg", [1.5, -2.5, 3.5])
    parsing = decode_grey(fields["official.parsing.png"])
    assert [parsing[row, 0] for row in (0, 5, 8, 14)] == [13, 13, 1, 0], "hair lies over skin"
    assert said["classes"][13] == "hair" == CELEBA_PARTS[12]
    assert "official.parsing.png" not in found["CelebA-HQ-img/10.jpg"][0]


@pytest.mark.parametrize(("folder", "section"), [("images1024x1024", "image"), ("in-the-wild-images", "in_the_wild")])
def test_ffhq(crawl, folder, section):
    put(f"set/{folder}/00000/00007.png", encode_png(photo(7)))
    entry = {
        "metadata": {"license": "Attribution License", "license_url": "http://l", "photo_url": "http://p",
                     "author": "Ann", "photo_title": "Me"},
        section: {"face_landmarks": POINTS},
    }  # fmt: skip
    put("set/ffhq-dataset-v2.json", {"7": entry})
    ((fields, provenance, said),) = read(crawl, "ffhq").values()
    assert (decode(fields["png"]) == photo(7)).all()
    assert (provenance["licence"], provenance["licence_url"]) == ("Attribution License", "http://l")
    assert (provenance["page"], provenance["author"], provenance["title"]) == ("http://p", "Ann", "Me")
    assert said["landmarks68"] == POINTS


def test_lpff(crawl):
    camera = [float(i) for i in range(25)]
    info = {
        "photo_url": "http://p", "high_resolution_download_url": "http://u", "username": "Ann",
        "license": {"name": "CC-BY", "url": "http://l"},
    }  # fmt: skip
    keys = ["1@N06_5_00", "1@N06_5_01"]
    put("set/raw/1@N06_5.jpg", jpeg(1))
    put("set/raw_lm.json", dict.fromkeys(keys, POINTS))
    put("set/camera_parameters.json", {keys[1]: camera})
    put("set/info.json", {key: {"raw_image_name": "1@N06_5", "image_info": info} for key in keys})
    ((_, provenance, said),) = read(crawl, "lpff").values()
    assert (provenance["licence"], provenance["url"], provenance["author"]) == ("CC-BY", "http://u", "Ann")
    assert [face["key"] for face in said["faces"]] == keys
    assert said["faces"][1]["camera_eg3d"] == camera
    assert said["faces"][0]["landmarks68"] == POINTS


def test_lpff_realigned_with_addresses_alone(crawl):
    put("set/realign2400/a_01.png", encode_png(photo(1)))
    put("set/realign2400_lm.json", {"a_01": POINTS})
    put("set/info.json", {"a_01": "http://u"})
    ((_, provenance, said),) = read(crawl, "lpff").values()
    assert provenance["url"] == "http://u"
    assert provenance["licence"] == "as declared"
    assert len(said["faces"]) == 1


def test_k_hairstyle(crawl):
    polygon = json.dumps([{"x": 2, "y": 2}, {"x": 20, "y": 2}, {"x": 20, "y": 10}, {"x": 2, "y": 10}])
    put("set/mqset/images/0001/CP1/a.jpg", jpeg(1))
    put("set/mqset/labels/0001/CP1/a.json", {"source": "CP1", "basestyle": "bob", "polygon1": polygon, "polygon2": "?"})
    put("set/mqset/images/0001/CP1/b.jpg", jpeg(2))
    found = read(crawl, "k_hairstyle")
    fields, _, said = found["mqset/images/0001/CP1/a.jpg"]
    assert (said["identity"], said["annotation"]["basestyle"]) == ("CP1", "bob")
    mask = decode_grey(fields["official.mask.png"])
    assert mask.shape == (24, 24)
    assert (mask[5, 10], mask[15, 10]) == (255, 0)
    assert found["mqset/images/0001/CP1/b.jpg"][2] == {}


def test_shhq(crawl):
    put("set/no_segment/0.png", encode_png(photo(0)))
    put("set/segments/0.png", encode_png(photo(1)))
    put("set/keypoints.txt", "0.png " + " ".join(str(i) for i in range(50)))
    ((fields, _, said),) = read(crawl, "shhq").values()
    assert fields["official.mask.png"] == encode_png(photo(1))
    assert said["body25"][24] == [48.0, 49.0]


def test_vfhq(crawl):
    clip = "Clip+abc_-1+P2+C0+F10-40"
    for number in range(5):
        put(f"set/train/{clip}/{number:08d}.png", encode_png(photo(number)))
    put(f"set/meta_info/{clip}.txt", "YOUTUBE abc\nCROP bbox: 10 20 30 40\n")
    found = read(crawl, "vfhq", stride=2)
    assert [Path(name).stem for name in found] == ["00000000", "00000002", "00000004"]
    _, provenance, said = next(iter(found.values()))
    assert (said["identity"], said["crop"]) == ("abc_-1+P2", [10, 20, 30, 40])
    assert provenance["page"].endswith("abc_-1")


def test_hdtf(crawl):
    write_video(Path("set/videos/Radio11.mp4"), [photo(i, 32) for i in range(40)], 10)
    write_video(Path("set/videos/Radio12_1.mp4"), [photo(i, 32) for i in range(50, 60)], 10)
    write_video(Path("set/videos/mine.mp4"), [photo(i, 32) for i in range(60, 70)], 10)
    put("set/HDTF_dataset/RD_annotion_time.txt", "Radio11.mp4 00:00-00:01 00:02-00:03\nRadio12.mp4 00:10-00:20\n")
    put("set/HDTF_dataset/RD_video_url.txt", "Radio11.mp4 http://y\nRadio12.mp4 http://z\n")
    put("set/HDTF_dataset/RD_crop_wh.txt", "Radio11_1.mp4 1 2 3 4\nRadio12_1.mp4 5 6 7 8\n")
    found = read(crawl, "hdtf", stride=5)
    people = {name.rpartition("/")[2].partition("#")[0]: p["identity"] for name, (_, p, _) in found.items()}
    assert people == {"Radio11.mp4": "Radio11", "Radio12_1.mp4": "Radio12", "mine.mp4": "mine"}
    frames = {name.partition("/")[2]: (p.get("page"), s) for name, (_, p, s) in found.items()}
    assert frames == {
        "Radio11.mp4#000000": ("http://y", {"clip": 0}),
        "Radio11.mp4#000005": ("http://y", {"clip": 0}),
        "Radio11.mp4#000020": ("http://y", {"clip": 1, "crop_x_w_y_h": [1, 2, 3, 4]}),
        "Radio11.mp4#000025": ("http://y", {"clip": 1, "crop_x_w_y_h": [1, 2, 3, 4]}),
        "Radio12_1.mp4#000000": ("http://z", {"clip": 1, "crop_x_w_y_h": [5, 6, 7, 8]}),
        "Radio12_1.mp4#000005": ("http://z", {"clip": 1, "crop_x_w_y_h": [5, 6, 7, 8]}),
        "mine.mp4#000000": (None, {"clip": 0}),
        "mine.mp4#000005": (None, {"clip": 0}),
    }


def test_300vw(crawl):
    write_video(Path("set/001/vid.avi"), [photo(i, 32) for i in range(9)], 10)
    body = "\n".join(f"{x} {y}" for x, y in POINTS)
    put("set/001/annot/000005.pts", f"version: 1\nn_points: 68\n{{\n{body}\n}}\n")
    put("set/001/annot/000009.pts", "version: 1\nn_points: 68\n{\n1 2\n}\n")
    found = read(crawl, "300vw", stride=4)
    said = [s for _, _, s in found.values()]
    assert [s.get("landmarks68") for s in said] == [None, POINTS, None]
    assert {s["identity"] for s in said} == {"001"}
    assert {provenance["identity"] for _, provenance, _ in found.values()} == {"001"}


def test_eg3d_zip_with_masks(crawl):
    camera = [float(i) for i in range(25)]
    with zipfile.ZipFile("set.zip", "w") as archive:
        archive.writestr("00000/img00000000.png", encode_png(photo(0)))
        archive.writestr("dataset.json", json.dumps({"labels": [["00000/img00000000.png", camera]]}))
    with zipfile.ZipFile("set_seg.zip", "w") as archive:
        archive.writestr("00000/img00000000.png", encode_png(photo(1)))
    ((fields, _, said),) = read(crawl, "eg3d", path="set.zip").values()
    assert fields["png"] == encode_png(photo(0))
    assert fields["official.mask.png"] == encode_png(photo(1))
    assert said["camera"] == camera


@pytest.mark.parametrize(
    ("layout", "files", "says"),
    [
        ("ffhq", {}, "no such folder"),
        ("ffhq", {"set/readme": b""}, "Is the layout right"),
        ("celeba_hq", {"set/readme": b""}, "Is the layout right"),
        ("vfhq", {"set/readme": b""}, "Is the layout right"),
        ("eg3d", {"set/readme": b""}, "no picture in it"),
        ("ffhq", {"set/images1024x1024/00000.png": b"x", "set/ffhq-dataset-v2.json": b"{"}, "not valid JSON"),
    ],
)
def test_what_is_not_there_is_named(crawl, capsys, layout, files, says):
    for path, data in files.items():
        put(path, data)
    crawl(code=1, kind="dataset", layout=layout, path="set")
    assert says in capsys.readouterr().err


def test_a_play_list_that_calls_itself_a_video_is_not_opened(crawl, capsys):
    Path("secret.avi").write_bytes(b"secret")
    put("set/001/vid.avi", "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    crawl(code=1, kind="dataset", layout="300vw", path="set")
    assert "not one picture could be read" in capsys.readouterr().err
    assert cv2.VideoCapture("set/001/vid.avi").isOpened() in (True, False)


def test_a_folder_a_person(crawl):
    for name in ("ada/1.jpg", "ada/older/2.jpg", "bob/3.jpg", "4.jpg"):
        put(f"photos/{name}", jpeg(int(name[-5])))
    for people, wanted in (("folders", ["ada", "ada", "bob", None]), ("unknown", [None] * 4)):
        rows = crawl(kind="folder", path="photos", people=people)
        found = {name: crawl.sample(row)[1].get("identity") for name, row in rows.items()}
        assert [found[name] for name in ("ada/1.jpg", "ada/older/2.jpg", "bob/3.jpg", "4.jpg")] == wanted


TOLD = {  # the files of each layout that say something of its pictures, and a picture
    "celeba_hq": (
        "CelebA-HQ-img/2.jpg",
        ["identity_CelebA.txt", "CelebA-HQ-to-CelebA-mapping.txt", "CelebAMask-HQ-pose-anno.txt"],
    ),
    "ffhq": ("images1024x1024/00002.png", ["ffhq-dataset-v2.json"]),
    "lpff": ("raw/2.png", ["raw_lm.json", "camera_parameters.json", "info.json"]),
    "k_hairstyle": ("images/2.jpg", ["labels/2.json"]),
    "shhq": ("no_segment/2.png", ["keypoints.txt"]),
    "vfhq": ("Clip+a+P0+C0+F0-9/00000000.png", ["meta_info/Clip+a+P0+C0+F0-9.txt"]),
}
NAMES = ["2", "2_0", "2.jpg", "2.png", "metadata", "image", "photo_url", "image_info", "license", "name", "source"]
NAMES += ["polygon1", "x", "y", "raw_image_name", "face_landmarks", "CROP", "x y", "nan", "1e999", "-3"]
SAID = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(NAMES) | st.text(max_size=3),
    lambda some: st.lists(some, max_size=4) | st.dictionaries(st.sampled_from(NAMES), some, max_size=4),
    max_leaves=12,
)
WORDS = st.lists(st.lists(st.sampled_from(NAMES), max_size=52).map(" ".join), max_size=5).map("\n".join)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(layout=st.sampled_from(sorted(TOLD)), data=st.data())
def test_whatever_an_owners_files_say_is_told_or_a_clear_error(tmp_path_factory, layout, data):
    root = tmp_path_factory.mktemp("set")
    picture, told = TOLD[layout]
    put(str(root / picture), TINY)
    for name in told:
        said = SAID.map(lambda value: json.dumps(value).encode()) if name.endswith("json") else WORDS.map(str.encode)
        put(str(root / name), data.draw(st.binary(max_size=40) | said, name))
    try:
        found = list(PICTURE_SETS[layout](root) if layout in PICTURE_SETS else VIDEO_SETS[layout](root, 1))
    except LineamentError:
        return
    assert [(one.name, one.data) for one in found] == [(picture, TINY)]
    for one in found:
        json.loads(one.official.get("official.json", b"{}"))
        assert all(isinstance(value, str) and value.encode() for value in one.provenance.values())
