"""Landmarks by face-alignment's networks: the loader, the reading of heat maps, and the camera from 68 points."""

import numpy as np
import pytest
import torch
from torch import nn

from models import camera as geometry
from ops.curate import camera
from ops.curate.align import ffhq_quad
from ops.curate.camera import OF_68, canonical_points, solve_camera
from ops.perception.fan import fan, fan_landmarks, load_fan, read_maps
from ops.runtime import weights as registry
from ops.runtime.errors import LineamentError

RNG = np.random.default_rng(0)


class Scripted(nn.Module):
    """The interface of FAN: a list of heat maps, the last of which counts. Each map seeks a colour of its own."""

    def __init__(self, colours):
        super().__init__()
        self.colours = torch.tensor(colours).view(1, 68, 2, 1, 1)

    def forward(self, x):
        away = (nn.functional.avg_pool2d(x[:, None, :2].flatten(1, 2), 4)[:, None] - self.colours).abs().sum(2)
        return [torch.zeros_like(away), 1 - away]


def test_the_peaks_come_back_in_the_pictures_pixels():
    """A picture that is redder to the right and greener below: each map finds its place by its colour."""
    y, x = np.mgrid[:255, :255].astype(np.uint8)
    image = np.stack([x, y, np.zeros_like(x)], -1)
    box = np.array([80.0, 90.0, 150.0, 160.0])
    places = RNG.uniform(70, 160, (68, 2))
    points, score = fan_landmarks(image, box, Scripted((places - 0.5) / 255))
    assert np.abs(points[:, :2] - places).max() < 2.5  # a cell of the maps is 2.7 pixels wide
    assert score > 0.98
    assert (points[:, 2] == 0).all()


def test_a_peak_moves_a_quarter_towards_its_higher_neighbour():
    maps = np.zeros((2, 8, 8))
    maps[0, 3, 4], maps[0, 3, 5], maps[0, 2, 4] = 1, 0.5, 0.4
    maps[1, 0, 7] = 0.6
    places, peaks = read_maps(maps)
    np.testing.assert_allclose(places * 8, [[4.75, 3.25], [7.5, 0.5]])
    assert peaks.tolist() == [1, 0.6]


@pytest.fixture
def network_file(tmp_path, monkeypatch):
    """Weights of the real class with one module, as the user's file."""
    from face_alignment.models import FAN

    torch.manual_seed(0)
    path = tmp_path / "3DFAN4-7835d9f11d.pth.tar"
    torch.save(FAN(1).state_dict(), path)
    monkeypatch.setattr(registry, "USER", tmp_path)
    return path


def test_the_real_class_is_loaded_from_the_users_file(network_file, monkeypatch):
    network = load_fan(network_file)
    points, score = fan_landmarks(
        RNG.integers(0, 255, (99, 99, 3), dtype=np.uint8), np.array([20.0, 20, 60, 70]), network
    )
    assert points.shape == (68, 3)
    assert np.isfinite(points).all()
    assert 0 <= score <= 1
    fan.cache_clear()
    with pytest.raises(LineamentError, match="sha256"):  # not the published ones
        fan("fan_3d")


def test_other_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.pth.tar"
    path.write_bytes(b"no tensors")
    with pytest.raises(LineamentError, match="not the weights of a face-alignment network"):
        load_fan(path)
    torch.save({"m0.weight": torch.zeros(2)}, path)
    with pytest.raises(LineamentError, match="not the weights of a face-alignment network"):
        load_fan(path)
    monkeypatch.setattr(registry, "USER", tmp_path / "none")
    fan.cache_clear()
    with pytest.raises(LineamentError, match="face-alignment"):
        fan("fan_2d")


def test_68_points_give_the_square_and_the_camera_that_468_give():
    pose = geometry.pose_on_sphere(torch.tensor(0.5), torch.tensor(0.1), 2.9).double()
    label = geometry.pack_label(pose, geometry.intrinsics(camera.CROP_FOCAL).double())
    uv = geometry.project(label[None], torch.tensor(canonical_points())[None])[0][0].numpy()
    points = np.zeros((68, 2))
    for number, mesh in OF_68.items():
        points[number] = uv[mesh]
    np.testing.assert_allclose(ffhq_quad(points), ffhq_quad(uv), atol=1e-9)
    found, residual = solve_camera(points)
    np.testing.assert_allclose(found, pose.numpy(), atol=1e-4)
    assert residual < 1e-3
    _, noisy = solve_camera(points + 0.004 * RNG.normal(size=points.shape))
    eyes = np.hypot(*(uv[263] - uv[33]))
    assert noisy == pytest.approx(100 * 0.004 * np.sqrt(2) / eyes, rel=0.3)


def test_both_sets_agree_about_left_and_right():
    points = canonical_points()
    mirrored = {17: 26, 21: 22, 31: 35, 36: 45, 39: 42, 48: 54, 50: 52, 60: 64, 59: 55}
    for right, left in mirrored.items():
        np.testing.assert_allclose(points[OF_68[right]] * [-1, 1, 1], points[OF_68[left]], atol=2e-3)
