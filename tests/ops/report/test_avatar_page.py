"""The report's page on avatars: every number with its count, what is missing with its reason."""

import json

import numpy as np

from ops.evaluate import intervals
from ops.report import avatar
from ops.report.page import Embedding
from ops.store.clips import encode_clip
from ops.store.pictures import encode_png

HOW = Embedding(800, 80)


def compared(psnr, faces=3):
    values = {
        "psnr": intervals.mean(np.array([psnr - 1, psnr + 1, psnr, psnr])),
        "l1": intervals.mean(np.full(4, 0.0625)),
        "perceptual_mobilenetv2": intervals.mean(np.full(4, 0.375)),
        "csim_dlib_128d": intervals.mean(np.full(4, 0.9375)),
        "akd": intervals.mean(np.full(faces, 0.03125)),
        "gaze": intervals.mean(np.full(faces, 0.1875)),
    }
    return {**values, "faces": intervals.share(faces, 4)}


def results():
    distance = {"value": 12.25, "se": None, "samples": [48, 9], "note": ""}
    generator = {
        "distances": {"fd_mobilenetv2": distance, "kd_mobilenetv2": {**distance, "value": 0.5}},
        "akd": intervals.mean(np.full(5, 0.078125)),
        "faces": intervals.share(5, 12),
        "csim_dlib_128d": intervals.mean(np.full(3, 0.84375)),
        "parameters": 123456,
        "same_data": False,
    }
    method = {
        "same": compared(21.5),
        "cross": {name: value for name, value in compared(0, 0).items() if name not in ("psnr", "l1")},
        "by_frames": {"ordered": {"1": compared(20), "4": compared(23)}, "unordered": {"4": compared(22)}},
        "truth": {
            "unseen_gain": {"4": intervals.mean(np.array([1.40625, 1.40625]), np.arange(2))},
            "unseen_psnr": {"1": intervals.mean(np.array([17.25, 17.25])), "4": intervals.mean(np.array([18.75]))},
            "expression": intervals.mean(np.full(3, 0.171875)),
            "expression_floor": intervals.mean(np.full(3, 0.046875)),
        },
        "reconstruction": {**compared(24.5), "fd_mobilenetv2": distance},
    }
    takes = [{"name": "a", "frames": 15}, {"name": "b", "frames": 15}]
    about = {"samples": 48, "identity": "csim_dlib_128d", "takes": takes}
    return {"protocol": about, "generators": {"avatar": generator}, "encoders": {"recurrent": method}, "why_not": ""}


def write(root, found):
    folder = root / avatar.EVALUATION
    folder.mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (folder / "avatar.json").write_text(json.dumps(found))
    for name in ("heads_avatar", "reenactment", "frames"):
        (folder / f"{name}.png").write_bytes(encode_png(np.zeros((8, 12, 3), np.uint8)))
    (folder / "reenactment.mp4").write_bytes(encode_clip([np.full((16, 48, 3), n, np.uint8) for n in (0, 99)], 4))
    return root


def test_every_number_is_shown_with_its_count(tmp_path):
    page = avatar.page(write(tmp_path, results()), HOW)
    shown = {section.anchor: section.content for section in page.whole()}
    for words in ("InvertAvatar", "12.25", "48 / 9", "0.0781", "n = 5", "0.417", "n = 12", "0.844", "123,456"):
        assert words in shown["generators"], words
    for words in ("21.5", "n = 4", "0.0625", "0.0312", "n = 3", "own motion", "another&#x27;s motion"):
        assert words in shown["reenactment"], words
    assert shown["frames"].count("<figure><svg") == 3
    for words in ("recurrent encoders, 4, unordered", ">23<", 'class="curve dash"'):
        assert words in shown["frames"], words
    for words in ("17.2", "18.8", "1.41", "0.172", "0.0469"):
        assert words in shown["truth"], words
    assert "24.5" in shown["reconstruction"]
    assert [shown[name].count("<img") for name in ("generators", "reenactment", "frames")] == [1, 2, 1]
    assert shown["reenactment"].count("data:image/webp") == 1
    assert "2 clips" in shown["limits"]
    assert "finds no face" not in shown["limits"]
    assert "trained on other shards" in shown["limits"]
    assert dict(page.facts)["PSNR of one frame, driven (n = 4)"] == "21.5 dB"


def test_where_no_face_was_found_there_is_a_dash_and_the_count(tmp_path):
    found = results()
    found["encoders"]["recurrent"]["same"] = compared(21.5, faces=0)
    shown = {s.anchor: s.content for s in avatar.page(write(tmp_path, found), HOW).whole()}
    assert "–" in shown["reenactment"]
    assert "recurrent encoders: the detector finds no face" in shown["limits"]
    assert "InvertAvatar: the detector" not in shown["limits"]


def test_without_encoders_the_generator_is_shown_and_the_rest_says_why(tmp_path):
    found = results() | {"encoders": {}, "why_not": "no encoders have been trained; dvc repro train_recurrent does"}
    shown = {s.anchor: s for s in avatar.page(write(tmp_path, found), HOW).whole()}
    assert "12.25" in shown["generators"].content
    for name in ("reenactment", "frames", "truth", "reconstruction"):
        assert "dvc repro train_recurrent" in shown[name].absent


def test_without_an_evaluation_there_is_no_headline_number(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    page = avatar.page(tmp_path, HOW)
    assert "no headline number" in page.meaning
    assert all("dvc repro" in section.absent for section in page.sections)
