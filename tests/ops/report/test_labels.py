"""The page about labels: every number of the results, and a sentence for whatever is missing."""

import json

import pytest

from ops.report import labels
from ops.report.page import Embedding, Missing, render

HOW = Embedding(800, 80)


def value(mean, n=7):
    return {"n": n, "mean": mean, "interval": [mean * 0.9, mean * 1.1], "median": mean, "p90": mean * 1.2}


def some_results():
    def error(method, quantity, mean):
        bins = [{"from": low, "to": low + 15, **value(mean)} for low in range(0, 60, 15)]
        bins += [{"from": 60, "to": 75, "n": 0, "mean": None, "interval": None}]
        parts = {part: value(mean) for part in ("all", "near_front", "within_60")}
        return {"method": method, "quantity": quantity, "unit": "", "bins": bins, **parts}

    known = {
        "errors": [error("fit_face", "yaw", 2.345), error("theirs", "yaw", 1.234), error("segment", "mask_iou", 0.951)],
        "expression": {
            "fit_face": {"mean": 0.31, "seen": 0.5, "seen_units": 1, "n": 7, "units": {"jawOpen": value(0.62)}}
        },
        "parsing": [{"class": "left_eye", **value(0.777)}],
        "filters": [
            {"stage": "screen", "reason": "too_small", "kinds": ["tiny"], "precision": value(0.9), "recall": value(0.8)}
        ],
        "losses": [{"stage": "detect", "in": 40, "lost": value(0.25), "reasons": {"no_face": value(0.25)}}],
    }
    skipped = {"photos": {"why": "there is no truth of these pictures", "losses": []}}
    return {"bin": 15, "near_front": 30.0, "sources": {"studio": known}, "skipped": skipped}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data/evaluation/labels"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(some_results()))
    return tmp_path


def test_the_page_shows_every_part(root):
    found = labels.page(root, HOW)
    page = render("A <title>", found.lead, found.whole(), "foot")
    for words in (
        "2.35",
        "1.23",
        "theirs",
        "0.951",
        "left eye",
        "0.777",
        "jawOpen",
        "too small",
        "no face 25.0 %",
        "n = 7",
    ):
        assert words in page, words
    assert "A &lt;title&gt;" in page
    assert "photos is not measured: there is no truth of these pictures" in page
    assert "overlays_studio.png of evaluate_labels has not been made" in page
    assert "not supplied" in page
    assert page.count("<svg") >= 3
    assert "<script" not in page
    assert "http" not in page.split("<main>")[1]


def test_the_facts_are_the_most_important_numbers(root):
    facts = dict(labels.page(root, HOW).facts)
    assert facts["yaw error within ±60° (n = 7)"] == "2.3°"
    assert facts["mask IoU (n = 7)"] == "0.951"


def test_without_results_it_says_so(tmp_path):
    with pytest.raises(Missing, match="dvc repro evaluate_labels"):
        labels.page(tmp_path, HOW)
