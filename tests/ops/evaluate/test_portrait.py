"""The stage from portrait checkpoints to numbers; control is measured on pictures that show it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import judged

from models.portrait_body import UNITS
from models.render import raster
from ops.apply.portraits import Portraits
from ops.evaluate import portrait, portrait_control
from ops.perception.headpose import Head
from ops.runtime.errors import LineamentError
from ops.store.pictures import decode
from ops.store.reader import ShardDataset
from tests.ops.train import test_portrait_stage as stage
from tests.ops.train import test_superresolution_stage as large

PARAMS = """
evaluate_portrait: {samples: 8, characters: 6, bodies: 2, side: 32, kd_subsets: 3, kd_size: 4, device: cpu}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = stage.trained_project(tmp_path_factory.mktemp("portrait"), "full", "nearest")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        large.write_params()
        assert large.run() == 0
    return root


@pytest.fixture
def portraits(place):
    return Portraits(place / "data/checkpoints/portrait/full", place / "data/priors")


def head(azimuth):
    return Head(np.zeros(2), 1.0, 0.0, azimuth, 0.0, 1.0, 0.0)


def test_the_stage_measures_every_variant(place, weights, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(portrait, "headpose", lambda folder: None)
    monkeypatch.setattr(portrait, "look", lambda image, network: head(5.0))
    (place / "params.yaml").write_text(PARAMS)
    reader = stage.write_reader(place / "reader")
    words = [
        "data/checkpoints",
        "data/shards/portraits",
        "data/priors",
        str(weights),
        "network",
        reader,
        "out",
    ]
    assert portrait.main([*words, "--metrics", "m.json", "--preview", "p.png"]) == 0
    found = json.loads((place / "out/portrait.json").read_text())["variants"]
    assert list(found) == ["full", "full_superresolution", "nearest"]
    full, enlarged = found["full"], found["full_superresolution"]
    assert set(full["distances"]) == {"whole", "face"}
    assert set(enlarged["distances"]) == {"whole", "whole_before", "face", "face_before"}
    before, after = enlarged["distances"]["whole_before"], enlarged["distances"]["whole"]
    assert before["samples"] == after["samples"] == [8, 6]
    assert before["fd_mobilenetv2"] != after["fd_mobilenetv2"]
    assert enlarged["distances"]["face_before"] == full["distances"]["face"], "faces of the same size, 16 px"
    assert full["distances"]["face"]["samples"] == [8, 6]
    assert full["control"]["seen"]["n"] == 6
    assert full["control"]["turn"]["error_degrees"]["n"] == 6
    assert full["same_data"]
    assert full["silhouettes"]["asked"]["n"] == full["silhouettes"]["another"]["n"] == 6
    assert full["read"]["generated"]["n"] > 6
    assert full["read"]["photos"]["mean"] is None, "these photos were never fitted"
    torn = found["nearest"]["deformation"]
    assert torn["processed"]["mean"] == pytest.approx(torn["nearest"]["mean"])
    assert decode((place / "out/strips_full.png").read_bytes()).ndim == 3
    metrics = json.loads((place / "m.json").read_text())
    for system in ("portrait", "portrait_superresolution"):
        low, score, high = judged(metrics, system, "full")
        assert low < score < high, "by which a new training is judged"
    assert metrics["variants"]["full"]["turn"] is None, "an answer that never varies has no correlation"


def test_control_is_perfect_where_the_pictures_show_what_was_asked(portraits, weights, monkeypatch):
    """Labelling networks that answer with the truth, then with its mirror image."""
    asked = []
    original = portraits.head_azimuth

    def remember(latents, label):
        asked.append((original(latents, label), latents.expression[0].numpy()))
        return asked[-1][0]

    monkeypatch.setattr(portraits, "head_azimuth", remember)
    monkeypatch.setattr(portrait, "headpose", lambda folder: None)
    monkeypatch.setattr(portrait, "look", lambda image, network: head(asked[-1][0]))
    monkeypatch.setattr(portrait, "fit_picture", lambda face, weights: (asked[-1][1], -asked[-1][0]))
    p = portrait.EvaluatePortraitParams(characters=8, samples=8)
    found = portrait.control(portraits, weights, weights, p)
    assert found["seen"]["mean"] == 1
    assert found["turn"]["correlation"]["mean"] == pytest.approx(1)
    assert found["turn"]["error_degrees"]["mean"] == pytest.approx(0, abs=1e-6)
    assert found["expression"]["mean"] == pytest.approx(1)
    assert found["camera"]["correlation"]["mean"] == pytest.approx(-1)


def test_a_silhouette_as_asked_overlaps_wholly_and_anothers_less(portraits, monkeypatch):
    """Drawn silhouettes that are the bodies asked for; then always the first one's."""
    people, size = portraits.people, portraits.sides["portrait"]
    monkeypatch.setattr(people, "triangles", torch.combinations(torch.arange(0, 300, 9), 3))  # a hull, more or less

    def body(latents, label):
        vertices = people.posed(latents.shape, latents.pose, latents.identity, latents.expression) * UNITS
        screen = raster.to_screen(vertices, portraits.portrait_camera(label), size, size)
        return raster.rasterise(screen, people.triangles, size, size).mask[0].float().numpy()

    monkeypatch.setattr(portraits, "opacity", body)
    found = portrait_control.silhouettes(portraits, 5, 0)
    assert found["asked"]["mean"] == pytest.approx(1)
    assert 0 < found["another"]["mean"] < 0.99


def test_codes_are_read_where_the_reader_reads_them(place, portraits, monkeypatch):
    """A reader that knows what was asked, and one that answers at random."""
    asked, g = [], torch.Generator().manual_seed(0)
    original = portraits.render

    def remember(latents, label, face):
        asked.append(latents.expression)
        return original(latents, label, face=face)

    monkeypatch.setattr(portraits, "render", remember)
    data = ShardDataset(place / "data/shards/portraits")
    for answer, right in (
        (lambda face: (None, 0.5 * asked[-1] + 0.1), 1),
        (lambda _: (None, torch.rand(1, 52, generator=g)), 0),
    ):
        monkeypatch.setattr(portrait_control, "coefficients", lambda folder, answer=answer: answer)
        found = portrait_control.read_codes(portraits, Path("reader"), data, 20, 0)
        assert found["generated"]["mean"] == pytest.approx(right, abs=0.12)
        assert found["photos"]["n"] == 0


def test_the_heads_azimuth_adds_camera_and_pose_up(portraits):
    latents, _ = portraits.characters([0])
    still = portraits.neutral(latents)
    assert portraits.head_azimuth(still, portraits.camera(30.0)) == pytest.approx(
        30, abs=4
    )  # the pivot is not the head
    turned = still.pose.clone()
    turned[0, 1, 1] = np.deg2rad(20)  # the head turns to its left
    asked = replace(still, pose=turned)
    change = portraits.head_azimuth(asked, portraits.camera(30.0)) - portraits.head_azimuth(
        still, portraits.camera(30.0)
    )
    assert change == pytest.approx(-20, abs=3)


def test_nothing_is_torn_without_a_pose(portraits, monkeypatch):
    """In the neutral pose neighbours stay as far apart as they were."""
    original = portraits.characters
    monkeypatch.setattr(
        portraits, "characters", lambda seeds: (portraits.neutral(original(seeds)[0]), original(seeds)[1])
    )
    found = portrait.roughness(portraits, portrait.EvaluatePortraitParams(bodies=1))
    assert found["nearest"]["mean"] == pytest.approx(1, abs=1e-3)
    assert found["processed"]["mean"] == pytest.approx(1, abs=1e-3)


def test_a_picture_without_a_face_is_not_fitted(weights):
    assert portrait.fit_picture(np.full((256, 256, 3), 90, np.uint8), weights) is None


def test_without_a_checkpoint_the_stage_says_what_to_do(tmp_path):
    with pytest.raises(LineamentError, match="dvc repro train_portrait"):
        portrait.find_variants(tmp_path)


def test_seeds_draw_the_same_pictures(portraits):
    one, two = (list(portrait.drawn(portraits, 3, 0, face=False)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, two))
