"""The report's page on portraits: the numbers of the evaluation, each with its count."""

import json

import numpy as np

from ops.evaluate import intervals
from ops.report import portrait
from ops.report.page import Embedding
from ops.store.pictures import encode_png

HOW = Embedding(800, 80)


def write(root):
    distances = {"fd_mobilenetv2": 12.25, "fd_mobilenetv2_low": 3.5, "kd_mobilenetv2": 0.0625, "kd_error": 0.03125}
    asked = np.linspace(-1, 1, 9)
    turned = {
        "correlation": intervals.correlation(asked, asked + 0.3 * asked**2),
        "error_degrees": intervals.mean(np.array([7.5, 7.5])),
    }
    variant = {
        "distances": {what: {**distances, "samples": [64, 146]} for what in ("whole", "face")},
        "control": {
            "seen": intervals.share(3, 4),
            "expression": {"n": 156, "mean": 0.3125, "interval": [0.25, 0.375]},
            "camera": turned,
            "turn": {**turned, "correlation": {"n": 2, "mean": None, "interval": None}},
        },
        "silhouettes": {"asked": intervals.mean(np.array([0.8125])), "another": intervals.mean(np.array([0.6875]))},
        "read": {name: {"n": 41, "mean": 0.1875, "interval": [0.125, 0.25]} for name in ("generated", "photos")},
        "identity": {"auc": 0.875, "pairs": 552, "recogniser": "dlib_128d"},
        "deformation": {"processed": intervals.mean(np.array([1.75])), "nearest": intervals.mean(np.array([4.25]))},
    }
    folder = root / portrait.EVALUATION
    folder.mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    larger = {**variant, "distances": {**variant["distances"], "whole_before": {**distances, "samples": [32, 33]}}}
    variants = {"full": variant, "full_superresolution": larger}
    (folder / "portrait.json").write_text(json.dumps({"protocol": {"seed": 0}, "variants": variants}))
    for name in variants:
        (folder / f"strips_{name}.png").write_bytes(encode_png(np.zeros((8, 12, 3), np.uint8)))
    large = root / "data/checkpoints/portrait_superresolution/full"
    large.mkdir(parents=True)
    (large / "config.json").write_text(json.dumps({"step": 7, "images": 56, "params": {"objective": {"portrait": 64}}}))
    for name in ("grid.png", "snapshots.png"):
        (large / name).write_bytes(encode_png(np.zeros((8, 12, 3), np.uint8)))
    (large / "curves.csv").write_text("step,images,consistency\n7,56,0.5\n")
    return root


def test_every_number_is_shown_with_its_count(tmp_path):
    found = portrait.page(write(tmp_path), HOW)
    shown = {section.anchor: section.content for section in found.whole()}
    for words in ("AniPortraitGAN, whole", "12.25", "3.5", "0.0625", "0.03125", "64", "146", "not FID"):
        assert words in shown["distances"]
    for words in ("AniPortraitGAN, super-resolution, whole before", "32", "33", "enlarged as they are"):
        assert words in shown["distances"]
    for words in ("in pairs", "AniPortraitGAN", "56", "64", "consistency"):
        assert words in shown["superresolution"]
    assert shown["superresolution"].count("<img") == 2
    for words in ("0.75", "n = 4", "0.312", "[0.25, 0.375] n = 156", "7.5", "n = 9", "0.875", "n = 552 pairs"):
        assert words in shown["control"]
    for words in ("0.812", "0.688", "0.188", "n = 41"):
        assert words in shown["silhouettes"], words
    assert "1.75" in shown["deformation"]
    assert "4.25" in shown["deformation"]
    assert shown["strips"].count("<img") == 2
    facts = dict(found.facts)
    assert facts["fd_mobilenetv2, AniPortraitGAN"] == "12.25"
    assert facts["expression, asked and seen (n = 156)"] == "0.3125"
    assert "nothing has been trained yet" in shown["limits"]


def test_without_an_evaluation_there_is_no_headline_number(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    found = portrait.page(tmp_path, HOW)
    assert "no headline number" in found.meaning
    assert all(section.absent for section in found.sections)
