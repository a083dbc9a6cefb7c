"""The report's page on heads: numbers, paper's rows, views to scroll, what is missing and why."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from ops.evaluate import published
from ops.report import heads
from ops.report.page import Embedding, Missing
from ops.store.clips import encode_clip
from ops.store.pictures import encode_png

HOW = Embedding(800, 80)
DISTANCE = {"value": 12.5, "se": 0.25, "samples": [10, 24], "note": ""}


def results() -> dict:
    views = ("all", "front", "back")
    detectors = ("face_behind", "pieces", "cover", "dull", "unlike")
    variant = {
        "fd": dict.fromkeys(views, DISTANCE),
        "fd_low": dict.fromkeys(views, DISTANCE),
        "kd": dict.fromkeys(views, DISTANCE),
        "fd_curve": [{"step": 0, "fd": 9.0, "fd_low": 4.0}, {"step": 5, "fd": 8.0, "fd_low": 1.0}],
        "artefacts": {
            "fake_face_rate": 0.25,
            "high_quality_rate": 0.5,
            "by_detector": dict.fromkeys(detectors, 0.125),
        },
        "face_in_front": 0.75,
        "mirrored": {"score": 0.31},
        "consistency": {"depth": 0.0123, "colour": 0.1, "seen": 0.9},
        "identity": {"auc": 0.875},
    }
    about = {
        "samples": 10, "real": 24, "seed": 0, "heads": 2, "views": 4, "truncation": 0.7, "backbone": "mobilenetv2",
        "resize": "pil-bilinear-32",
        "calibration": {
            "false_alarms": dict.fromkeys(detectors, 0.0625), "any_alarm": 0.1, "pictures": 12, "back_views": 5,
            "face_in_front": 0.9,
        },
    }  # fmt: skip
    return {
        "protocol": about,
        "variants": {"spherehead": variant},
        "paper": published.SPHEREHEAD_ABLATION,
        "differs": ["Said plainly."],
    }


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data/evaluation/heads"
    folder.mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (folder / "heads.json").write_text(json.dumps(results()))
    strip = np.zeros((16, 32, 3), np.uint8)  # two heads from four sides of 8 pixels
    (folder / "turntable_spherehead.png").write_bytes(encode_png(strip))
    return tmp_path


def shown(root) -> str:
    return "".join(section.content for section in heads.page(root, HOW).whole())


def test_numbers_stand_beside_the_papers(root):
    page = shown(root)
    for words in ("SphereHead", "12.5 ± 0.25", "25.0%", "50.0%", "7.8", "92.6%", "6.2%", "Said plainly."):
        assert words in page
    assert dict(heads.page(root, HOW).facts)["fd_mobilenetv2, SphereHead"] == "12.5"
    assert "front on 75.0% of these heads" in heads.page(root, HOW).meaning
    assert "not FID" in page
    assert 'class="turn"' in page
    assert "<script" not in page


def test_what_is_missing_says_so(root):
    assert "no head has been inverted" in shown(root)
    assert "nothing has been trained yet; dvc repro train_heads" in shown(root)
    (root / "data/evaluation/heads/heads.json").unlink()
    with pytest.raises(Missing, match="dvc repro train_heads"):
        shown(root)


def test_inversions_are_shown_by_stage(root):
    folder = root / "data/inversions/heads"
    folder.mkdir(parents=True)
    row = {"psnr": 21.5, "ssim": 0.5, "perceptual_mobilenetv2": 0.25}
    stage = {"input": row, "unseen": {**row, "psnr": 17.25}}
    mean = dict.fromkeys(("average", "styles", "tuned"), stage)
    record = {"variants": {"spherehead": {"mean": mean}}, "protocol": {"heads": 2}, "limits": ["Rendered heads."]}
    (folder / "inversions.json").write_text(json.dumps(record))
    page = shown(root)
    for words in ("17.25", "21.5", "generator tuned", "Rendered heads.", "inversions_spherehead.png"):
        assert words in page
    assert "video_spherehead.mp4 of invert_heads has not been made" in page

    frames = [np.full((32, 64, 3), 40 * number, np.uint8) for number in range(5)]
    (folder / "video_spherehead.mp4").write_bytes(encode_clip(frames, 24))
    found = re.search(r"data:image/webp;base64,([^\"]+)", shown(root))
    assert found
    moving = Image.open(io.BytesIO(base64.b64decode(found[1])))
    assert (moving.n_frames, moving.size, moving.info["loop"]) == (5, (64, 32), 0)
    moving.seek(3)
    assert abs(np.asarray(moving.convert("RGB")).mean() - 120) < 8

    (folder / "video_spherehead.mp4").write_bytes(b"no video")
    assert "video_spherehead.mp4 of invert_heads is damaged" in shown(root)
