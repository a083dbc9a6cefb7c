"""Crops, squares and cameras: round trips, invariances, and known answers."""

import numpy as np
import pytest
import torch

from models import camera as geometry
from ops.curate import camera
from ops.curate.align import EYE_LEFT, EYE_RIGHT, MOUTH_LEFT, MOUTH_RIGHT, ffhq_quad
from ops.curate.crop import crop_quad, from_crop, outside_share, quad_side, to_crop

RNG = np.random.default_rng(0)


def square(centre, side, angle=0.0):
    c, s = np.cos(angle), np.sin(angle)
    corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * side / 2
    return corners @ np.array([[c, s], [-s, c]]) + centre


def test_crop_coordinates_round_trip():
    quad = square((120, 80), 90, 0.4)
    points = RNG.uniform(0, 200, (50, 2))
    np.testing.assert_allclose(from_crop(to_crop(points, quad), quad), points, atol=1e-9)
    np.testing.assert_allclose(to_crop(quad, quad), [[0, 0], [0, 1], [1, 1], [1, 0]], atol=1e-12)
    assert quad_side(quad) == pytest.approx(90)


@pytest.mark.parametrize(("side", "size", "angle"), [(64, 64, 0.0), (90, 64, 0.3), (40, 64, -0.7), (180, 32, 0.5)])
def test_a_crop_of_a_ramp_is_the_ramp(side, size, angle):
    """Colour is linear in the place, so every crop pixel must have the colour of the place it shows."""
    y, x = np.mgrid[:256, :256] + 0.5
    image = np.stack([x, y, 255 - x], -1).round().clip(0, 255).astype(np.uint8)
    quad = square((128, 128), side, angle)
    crop = crop_quad(image, quad, size).astype(float)
    v, u = (np.mgrid[:size, :size] + 0.5) / size
    places = from_crop(np.stack([u, v], -1), quad)
    assert np.abs(crop[..., :2] - places).max() < 1.6


def test_shrinking_does_not_alias():
    y, x = np.mgrid[:512, :512]
    checker = (((x + y) % 2) * 255).astype(np.uint8)[..., None].repeat(3, -1)
    crop = crop_quad(checker, square((256, 256), 512), 64)
    assert np.abs(crop.astype(float) - 127.5).max() < 3


def test_outside_the_picture_the_edge_goes_on():
    image = np.full((50, 50, 3), 77, np.uint8)
    assert (crop_quad(image, square((0, 0), 60), 32) == 77).all()
    assert outside_share(square((0, 0), 60), 50, 50) == pytest.approx(0.75, abs=0.02)
    assert outside_share(square((25, 25), 40), 50, 50) == 0


def face(turn=((1, 0), (0, 1)), scale=1.0, shift=(0, 0)):
    points = np.zeros((468, 2))
    points[list(EYE_RIGHT)], points[list(EYE_LEFT)] = (-32, 0), (32, 0)
    points[MOUTH_RIGHT], points[MOUTH_LEFT] = (-25, 70), (25, 70)
    return scale * points @ np.transpose(turn) + shift


def test_the_square_of_an_upright_face_by_ffhqs_rule():
    quad = ffhq_quad(face())
    half = max(64 * 2.0, 70 * 1.8)
    np.testing.assert_allclose(quad.mean(0), (0, 7), atol=1e-9)
    np.testing.assert_allclose(quad - (0, 7), np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * half, atol=1e-9)


def test_the_square_turns_and_grows_with_the_face():
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    expected = 3 * ffhq_quad(face()) @ turn.T + (10, 20)
    np.testing.assert_allclose(ffhq_quad(face(turn, 3, (10, 20))), expected, atol=1e-9)


def project(azimuth, elevation, roll, radius=2.7, mirror=False):
    pose = geometry.pose_on_sphere(torch.tensor(azimuth), torch.tensor(elevation), radius, roll=roll).double()
    label = geometry.pack_label(pose, geometry.intrinsics(camera.CROP_FOCAL).double())
    uv, _ = geometry.project(label[None], torch.tensor(camera.canonical_points())[None])
    return label.numpy(), uv[0].numpy()


@pytest.mark.parametrize("azimuth", [-1.2, -0.5, 0.0, 0.8, 1.4])
@pytest.mark.parametrize(("elevation", "roll"), [(0.0, 0.0), (0.5, 0.3), (-0.6, -0.2)])
def test_known_cameras_are_found(azimuth, elevation, roll):
    label, uv = project(azimuth, elevation, roll)
    pose, residual = camera.solve_camera(uv)
    np.testing.assert_allclose(camera.label_of(pose, "measured"), label, atol=1e-4)
    np.testing.assert_allclose(np.deg2rad(camera.angles(pose)), (azimuth, elevation, roll), atol=1e-4)
    assert residual < 1e-3


def test_the_distance_is_renormalised_when_asked():
    _, uv = project(0.3, 0.1, 0.0, radius=3.3)
    pose, _ = camera.solve_camera(uv)
    assert np.linalg.norm(camera.label_of(pose, "measured")[[3, 7, 11]]) == pytest.approx(3.3, abs=1e-3)
    assert np.linalg.norm(camera.label_of(pose, "fixed")[[3, 7, 11]]) == pytest.approx(2.7, abs=1e-6)


def test_noise_moves_the_camera_little_and_the_residual_says_how_much():
    _, uv = project(0.4, 0.1, 0.0)
    pose, residual = camera.solve_camera(uv + RNG.normal(size=uv.shape) * 0.004)
    eyes = np.hypot(*(uv[263] - uv[33]))
    assert residual == pytest.approx(100 * 0.004 * np.sqrt(2) / eyes, rel=0.15)
    assert abs(camera.angles(pose)[0] - np.rad2deg(0.4)) < 1


def test_the_canonical_head_is_symmetric_and_looks_forward():
    points = camera.canonical_points()
    assert points.shape == (468, 3)
    assert points[1, 2] > points[33, 2]  # the nose is before the eyes
    assert points[263, 0] > 0 > points[33, 0]  # the subject's left eye at +x
    assert points[10, 1] > points[152, 1]  # the forehead above the chin
    np.testing.assert_allclose(points[33] * (-1, 1, 1), points[263], atol=1e-3)
