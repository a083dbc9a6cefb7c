"""LPIPS and ArcFace from files of the user's: read, measured under their own names, refused when they are others'."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.arcface import ArcFaceIR50 as Network
from models.lpips import CHANNELS, Lpips
from ops.evaluate import perceptual as module
from ops.evaluate.features import load_features
from ops.evaluate.identity import ARCFACE_CHIP, load_recogniser
from ops.evaluate.perceptual import perceptual
from ops.runtime.errors import LineamentError


def pictures(count, side=64):
    return [np.random.default_rng(n).integers(0, 256, (side, side, 3), dtype=np.uint8) for n in range(count)]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """LPIPS' two files for AlexNet, of random weights, where the registry looks for them."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = Lpips("alex")
    folder = Path("data/weights/user")
    folder.mkdir(parents=True)
    features = {f"features.{k}": v for k, v in network.backbone.state_dict().items()}
    heads = {f"lin{n}.model.1.weight": torch.rand(1, c, 1, 1) for n, c in enumerate(CHANNELS["alex"])}
    paths = {"alex_lpips": folder / "features.pth", "alex_lpips_heads": folder / "heads.pth"}
    torch.save(features, paths["alex_lpips"])
    torch.save(heads, paths["alex_lpips_heads"])
    absent = Path("absent")
    monkeypatch.setattr(module, "locate", lambda name: paths.get(name, absent))
    monkeypatch.setattr(module, "require", lambda name: paths[name])
    return paths, Lpips.from_state("alex", features, heads)


def test_lpips_is_measured_where_its_files_are(files, weights):
    _, network = files
    found = perceptual(load_features(weights, 64))
    assert set(found) == {"perceptual_mobilenetv2", "lpips_alex"}
    a, b = pictures(10), pictures(20)[10:]
    distances = found["lpips_alex"](a, b)
    tensors = [torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2) / 127.5 - 1 for part in (a, b)]
    with torch.no_grad():
        np.testing.assert_allclose(distances, network(*tensors).numpy(), rtol=1e-5)
    assert not found["lpips_alex"](a, a).any()


def test_without_files_only_the_embedded_distance_is_measured(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(perceptual(load_features(weights, 64))) == {"perceptual_mobilenetv2"}


def test_files_of_another_network_are_refused(files, weights):
    paths, _ = files
    torch.save({"x": torch.zeros(1)}, paths["alex_lpips_heads"])
    with pytest.raises(LineamentError, match="heads of LPIPS"):
        perceptual(load_features(weights, 64))


def test_arcface_embeds_aligned_faces_by_its_own_template(tmp_path):
    torch.manual_seed(1)
    network = Network()
    torch.save(network.state_dict(), tmp_path / "arcface.pth")
    recogniser = load_recogniser("arcface_ir50", tmp_path / "arcface.pth")
    images = pictures(3, 128)
    found = recogniser.embed(images)
    assert found.shape == (3, 512)
    chips = torch.from_numpy(np.stack([ARCFACE_CHIP.cut(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        np.testing.assert_allclose(found, network.eval()(chips).numpy(), atol=1e-5)
    same = recogniser.similarity(found, found)
    np.testing.assert_allclose(np.diag(same), 1, atol=1e-6)
    with pytest.raises(LineamentError, match="pinned"):
        load_recogniser("arcface_ir50", tmp_path / "arcface.pth", "0" * 64)
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(LineamentError, match="not the weights of arcface_ir50"):
        load_recogniser("arcface_ir50", tmp_path / "other.pth")
    with pytest.raises(LineamentError, match="published at"):
        load_recogniser("arcface_ir50")


def test_eyes_and_mouth_of_an_aligned_crop_fall_on_arcfaces_template():
    """FFHQ's rule puts the eyes' centre 0.1 eye-to-mouth distances above the middle, the mouth one below it."""
    step = 1 / 3.6
    for y, expected in ((0.5 - 0.1 * step, 51.6), (0.5 + 0.9 * step, 92.3)):
        assert (y - ARCFACE_CHIP.top) / ARCFACE_CHIP.side * 112 == pytest.approx(expected, abs=0.2)
    assert (0.5 - ARCFACE_CHIP.left) / ARCFACE_CHIP.side * 112 == pytest.approx(55.9, abs=0.1)
