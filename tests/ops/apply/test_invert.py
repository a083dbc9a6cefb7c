"""Inversion finds what the generator itself drew, tuning comes closer, the source stays; photos in, checkpoint out."""

import cv2
import numpy as np
import pytest
import torch

from ops import cli
from ops.apply.cameras import orbit
from ops.apply.heads import Heads
from ops.apply.invert import InversionParams, Target, invert
from ops.apply.photo import align_portrait, read_portrait
from ops.curate.camera import angles
from ops.evaluate.features import load_features
from ops.runtime.errors import LineamentError
from ops.store.pictures import encode_png
from tests.ops.apply.tinyheads import write_heads

QUICK = {"steps": 14, "tuning_steps": 8, "perceptual_side": 32, "latents": 16, "noise": 0.0, "average": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_heads(tmp_path_factory.mktemp("c") / "spherehead")


@pytest.fixture(scope="module")
def heads(folder):
    return Heads(folder)


@pytest.fixture(scope="module")
def network(weights):
    return load_features(weights).network


def target_of(heads: Heads, seed: int = 5, azimuth: float = 20.0) -> Target:
    output = next(heads.views(heads.styles(heads.latent(seed), 1.0), orbit(azimuth)))
    classes = output.parsing.argmax(dim=1)
    return Target(output.image.clone(), orbit(azimuth), output.mask.clone().clamp(0, 1), classes.clone())


def far(net, ws, target: Target) -> float:
    with torch.no_grad():
        return (net.synthesise(ws, target.camera, noise="const").image - target.picture).square().mean().item()


def test_styles_then_weights_come_nearer(heads, network):
    before = {name: value.clone() for name, value in heads.net.state_dict().items()}
    target = target_of(heads)
    found = invert(heads, target, network, InversionParams(**QUICK, squares=1.0, mask=0.1, parsing=0.01))
    start, pivot, end = (
        far(net, ws, target)
        for net, ws in ((heads.net, found.average), (heads.net, found.styles), (found.net, found.styles))
    )
    assert end < 0.8 * pivot < 0.8 * start
    assert len(found.losses) == 22
    assert all(torch.equal(value, before[name]) for name, value in heads.net.state_dict().items())
    assert not any(w.requires_grad for w in found.net.parameters())


def test_one_style_for_all_layers_or_one_each(heads, network):
    target = target_of(heads)
    short = {**QUICK, "steps": 3, "tuning_steps": 0}
    one = invert(heads, target, network, InversionParams(**short)).styles
    each = invert(heads, target, network, InversionParams(**short, space="w+")).styles
    assert one.shape == each.shape == (1, heads.net.w_count, 16)
    assert (one - one[:, :1]).abs().max() == 0
    assert (each - each[:, :1]).abs().max() > 1e-3


def test_the_average_holds_styles_back(heads, network):
    target = target_of(heads)
    loose, held = (
        invert(heads, target, network, InversionParams(**{**QUICK, "tuning_steps": 0, "steps": 8, "average": weight}))
        for weight in (0.0, 100.0)
    )
    assert (held.styles - held.average).norm() < 0.5 * (loose.styles - loose.average).norm()


def test_equal_seeds_give_equal_results(heads, network):
    p = InversionParams(**{**QUICK, "steps": 3, "tuning_steps": 2, "noise": 0.05})
    a, b = (invert(heads, target_of(heads), network, p) for _ in range(2))
    assert torch.equal(a.styles, b.styles)
    assert a.losses == b.losses


def test_terms_that_cannot_be_are_refused(heads, network, tmp_path):
    target = target_of(heads)
    with pytest.raises(LineamentError, match="needs a mask"):
        invert(heads, target._replace(mask=None), network, InversionParams(**QUICK, mask=1.0))
    plain = Heads(write_heads(tmp_path / "eg3d", "eg3d"))
    with pytest.raises(LineamentError, match="renders one"):
        invert(plain, target, network, InversionParams(**QUICK, parsing=1.0))
    with pytest.raises(LineamentError, match="picture of 32 px"):
        invert(heads, target._replace(picture=torch.zeros(1, 3, 16, 16)), network, InversionParams(**QUICK))
    with pytest.raises(LineamentError, match="diverged"):
        invert(heads, target._replace(picture=target.picture * torch.nan), network, InversionParams(**QUICK))


# --- photos -----------------------------------------------------------------------------------------------------------


def test_a_photo_is_aligned_as_the_data_are(astronaut, weights):
    portrait = align_portrait(astronaut, 64, weights)
    assert portrait.crop.shape == (64, 64, 3)
    assert portrait.mask[40:50, 25:40].mean() > 200 > 60 > portrait.mask[:6, -6:].mean()
    yaw, pitch, roll = angles(portrait.camera[:16].reshape(4, 4))
    assert abs(yaw) < 25
    assert abs(pitch) < 25
    assert abs(roll) < 15
    assert np.linalg.norm(portrait.camera[[3, 7, 11]]) == pytest.approx(2.7, abs=1e-6)
    mirrored = align_portrait(np.ascontiguousarray(astronaut[:, ::-1]), 64, weights)
    assert angles(mirrored.camera[:16].reshape(4, 4))[0] == pytest.approx(-yaw, abs=4)


def test_photos_without_a_face_are_refused(weights, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    (tmp_path / "noise.png").write_bytes(encode_png(cv2.GaussianBlur(noise, (0, 0), 9)))
    with pytest.raises(LineamentError, match=r"noise\.png: no face was found"):
        read_portrait(tmp_path / "noise.png", 32, weights)
    (tmp_path / "text.jpg").write_bytes(b"hello")
    with pytest.raises(LineamentError, match="cannot be read as a picture"):
        read_portrait(tmp_path / "text.jpg", 32, weights)
    with pytest.raises(LineamentError, match="no such file"):
        read_portrait(tmp_path / "none.jpg", 32, weights)


def test_the_command_makes_a_checkpoint_of_its_own(folder, weights, astronaut, tmp_path, capsys):
    (tmp_path / "photo.png").write_bytes(encode_png(astronaut))
    options = ["--steps", "2", "--tuning-steps", "2", "--frames", "2", "--mask", "0.1", "--weights", str(weights)]
    words = ["invert-heads", str(tmp_path / "photo.png"), str(folder), str(tmp_path / "out"), *options]
    assert cli.main(words) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "config.json", "generator.safetensors", "styles.safetensors", "inversion.png", "video.mp4",
    }  # fmt: skip
    again = Heads(tmp_path / "out")
    assert again.identity(None).shape == (1, again.net.w_count, 16)
    assert not torch.equal(again.identity(None), again.identity(0))
    assert again.digest != Heads(folder).digest
    assert cli.main(["video", str(tmp_path / "out"), str(tmp_path / "v.mp4"), "--frames", "2", "--side", "32"]) == 0
    (tmp_path / "blank.png").write_bytes(encode_png(np.full((300, 300, 3), 200, np.uint8)))
    words[1], words[3] = str(tmp_path / "blank.png"), str(tmp_path / "none")
    assert cli.main(words) == 1
    assert "no face was found" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
