"""The stage that inverts held-out heads: whose numbers they are, truth of unseen views, bad input."""

import hashlib
import json

import numpy as np
import pytest
import torch

from models import camera
from ops.apply.cameras import orbit
from ops.evaluate import invert_heads
from ops.evaluate.features import load_features
from ops.evaluate.held_out import TrueHead, held_out_heads
from ops.evaluate.invert_heads import GREY, compare, main, mean_of
from ops.evaluate.pairwise import psnr
from ops.evaluate.perceptual import perceptual
from ops.store.pictures import decode
from tests.ops.apply.tinyheads import write_heads

MEASURES = ("psnr", "ssim", "perceptual_mobilenetv2")
PARAMS = """
invert_heads:
  heads: 2
  azimuth: 10
  unseen: [90, 180]
  frames: 2
  device: cpu
  inversion: {steps: 2, tuning_steps: 1, perceptual_side: 32, latents: 8, mask: 0.1, parsing: 0.01}
"""


def toy_heads(count, azimuths, side, seed=0):
    """Heads of flat colour, a colour a head and brightness a view."""
    found = []
    for number in range(count):
        values = 60 + 40 * number + 20 * np.arange(len(azimuths))
        pictures = np.broadcast_to(values[:, None, None, None], (len(azimuths), side, side, 3)).astype(np.uint8)
        masks = np.zeros((len(azimuths), side, side), np.uint8)
        masks[:, side // 4 : -side // 4, side // 4 : -side // 4] = 255
        cameras = np.concatenate([orbit(a).numpy() for a in azimuths])
        found.append(TrueHead(pictures.copy(), masks, masks // 255, cameras))
    return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory, weights):
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(invert_heads, "held_out_heads", toy_heads)
        write_heads(root / "checkpoints/spherehead")
        write_heads(root / "checkpoints/eg3d", "eg3d")
        (root / "params.yaml").write_text(PARAMS)
        assert main(["checkpoints", str(weights), "out", "--metrics", "m.json", "--preview", "p.png"]) == 0
        first = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (root / "out").iterdir()}
        assert main(["checkpoints", str(weights), "out"]) == 0
        again = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (root / "out").iterdir()}
        assert first == again
        yield root


def test_numbers_by_variant_stage_and_view(ran):
    record, metrics = (json.loads((ran / name).read_text()) for name in ("out/inversions.json", "m.json"))
    assert list(record["variants"]) == ["eg3d", "spherehead"]
    for name, found in record["variants"].items():
        assert metrics["variants"][name] == found["mean"]
        assert len(found["heads"]) == 2
        for stage in ("average", "styles", "tuned"):
            means = found["mean"][stage]
            assert set(means["input"]) == set(MEASURES)
            assert list(means["by_azimuth"]) == ["180", "90"]
            both = [means["by_azimuth"][angle]["psnr"] for angle in ("90", "180")]
            assert means["unseen"]["psnr"] == pytest.approx(np.mean(both), rel=1e-4)
        assert decode((ran / f"out/inversions_{name}.png").read_bytes()).shape == (4 * 34 - 2, 3 * 34 - 2, 3)
        assert (ran / f"out/video_{name}.mp4").stat().st_size > 0
    assert "lpips" not in json.dumps(record["variants"]).lower()
    assert "seconds" not in json.dumps(metrics)


def test_unseen_views_are_compared_over_the_head_alone(weights):
    (truth,) = toy_heads(1, [0.0, 90.0], 32)
    views = truth.pictures.copy()
    views[:, :6] = 255  # beyond the head
    found = compare(truth, {"tuned": views}, perceptual(load_features(weights, 32)))
    seen, unseen = found["tuned"]
    assert seen["psnr"] == pytest.approx(psnr(truth.pictures[0], views[0]), rel=1e-4)
    assert seen["psnr"] < 30
    assert unseen["psnr"] == np.inf
    assert unseen["perceptual_mobilenetv2"] == 0
    assert invert_heads._on_grey(views[0], truth.masks[0])[0, 0].tolist() == [GREY] * 3


def test_means_are_over_heads_and_views():
    row = dict.fromkeys(MEASURES, 1.0)
    entries = [{"tuned": [row, dict.fromkeys(MEASURES, 2.0)]}, {"tuned": [row, dict.fromkeys(MEASURES, 4.0)]}]
    assert mean_of(entries, (90.0,))["tuned"]["by_azimuth"]["90"]["psnr"] == 3
    assert mean_of(entries, (90.0,))["tuned"]["input"]["ssim"] == 1


def test_held_out_heads_are_one_person_from_all_sides():
    """The front has eyes, the back has none; another number is another person; the same again is the same."""
    first, second = held_out_heads(2, [0.0, 180.0], 64)
    assert first.pictures.shape == (2, 64, 64, 3)
    assert 0.2 < (first.masks > 127).mean() < 0.9
    eyes = np.isin(first.parsings, (4, 5))
    assert eyes[0].any()
    assert not eyes[1].any()
    camera.check_label(torch.from_numpy(first.cameras))
    assert np.abs(first.pictures[0].astype(int) - second.pictures[0]).mean() > 5
    (again, _) = held_out_heads(2, [0.0, 180.0], 64)
    assert np.array_equal(again.pictures, first.pictures)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("unseen: [90, 180]", "not the one that is given"),
        ("variants: [panohead]", "no checkpoint of panohead; there are eg3d, spherehead"),
        ("heads: 0", "greater than or equal to 1"),
    ],
)
def test_bad_settings_end_in_a_clear_line(ran, weights, monkeypatch, capsys, change, words):
    monkeypatch.chdir(ran)
    extra = "azimuth: 90, " if change.startswith("unseen") else ""
    path = ran / "other.yaml"
    path.write_text(f"invert_heads: {{{extra}{change}, device: cpu}}\n")
    assert main(["checkpoints", str(weights), "none", "--params", str(path)]) == 1
    assert words in capsys.readouterr().err
    assert not (ran / "none").exists()
