"""The camera: round trips, the conventions of the labels, and what an invalid label says."""

import math

import pytest
import torch

from models import camera


def random_labels(n: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    azimuth = (torch.rand(n, generator=g) * 2 - 1) * math.pi
    elevation = (torch.rand(n, generator=g) - 0.5) * 2.6
    roll = (torch.rand(n, generator=g) - 0.5) * 0.8
    return camera.pack_label(camera.pose_on_sphere(azimuth, elevation, 2.7, roll=roll), camera.intrinsics())


def test_front_camera_stands_on_plus_z_and_looks_back():
    pose = camera.pose_on_sphere(torch.tensor(0.0), torch.tensor(0.0), 2.7)
    expected = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.7], [0, 0, 0, 1]])
    torch.testing.assert_close(pose, expected)


def test_subjects_left_is_on_the_right_of_a_frontal_picture():
    label = camera.pack_label(camera.pose_on_sphere(torch.zeros(1), torch.zeros(1)), camera.intrinsics())
    uv, depth = camera.project(label, torch.tensor([[[0.1, 0.0, 0.0], [0.0, 0.1, 0.0]]]))
    assert uv[0, 0, 0] > 0.5
    assert uv[0, 1, 1] < 0.5
    assert (depth > 0).all()


def test_angles_round_trip():
    azimuth = torch.linspace(-3.1, 3.1, 50, dtype=torch.float64)
    elevation = torch.linspace(-1.4, 1.4, 50, dtype=torch.float64)
    pivot = torch.tensor([0.0, 0.0, 0.2], dtype=torch.float64)
    back = camera.spherical_angles(camera.pose_on_sphere(azimuth, elevation, 2.5, pivot), pivot)
    torch.testing.assert_close(back[0], azimuth)
    torch.testing.assert_close(back[1], elevation)
    torch.testing.assert_close(back[2], torch.full_like(azimuth, 2.5))


def test_projection_inverts_rays():
    label = random_labels(8).double()
    pixels = torch.rand(8, 20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    origin, direction = camera.rays_through(label, pixels)
    uv, depth = camera.project(label, origin + 1.7 * direction)
    torch.testing.assert_close(uv, pixels, atol=1e-6, rtol=0)  # the labels were rounded to float32
    torch.testing.assert_close(direction.norm(dim=-1), torch.ones(8, 20, dtype=torch.float64), atol=1e-12, rtol=0)
    assert (depth <= 1.7 + 1e-9).all()


def test_rays_pass_pixel_centres_row_by_row():
    grid = camera.pixel_grid(2)
    torch.testing.assert_close(grid, torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]))


def test_mirrored_label_projects_mirrored_points_to_mirrored_pixels():
    label = random_labels(16)
    points = torch.randn(16, 30, 3, generator=torch.Generator().manual_seed(2)) * 0.3
    uv, _ = camera.project(label, points)
    mirrored, _ = camera.project(camera.mirror_label(label), points * torch.tensor([-1.0, 1, 1]))
    torch.testing.assert_close(mirrored[..., 0], 1 - uv[..., 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(mirrored[..., 1], uv[..., 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(camera.mirror_label(camera.mirror_label(label)), label)


def test_pack_and_unpack():
    label = random_labels(4)
    torch.testing.assert_close(camera.pack_label(*camera.unpack_label(label)), label)


def test_looking_straight_down_is_still_a_rotation():
    pose = camera.look_at(torch.tensor([0.0, 2.0, 0.0]), torch.zeros(3))
    camera.check_label(camera.pack_label(pose, camera.intrinsics()))


def test_ffhq_focal_is_a_horizontal_field_of_view_of_13_degrees():
    assert camera.focal_from_fov(13.37) == pytest.approx(camera.FFHQ_FOCAL, rel=2e-3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.__setitem__(0, c[0] + 0.5), "no rotation"),
        (lambda c: c.__setitem__(slice(0, 9, 4), -c[0:9:4]), "reflection"),
        (lambda c: c.__setitem__(3, float("nan")), "NaN"),
        (lambda c: c.__setitem__(12, 1.0), "last row"),
        (lambda c: c.__setitem__(16, -1.0), "focal"),
    ],
)
def test_spoilt_labels_are_named(spoil, message):
    label = random_labels(1)[0]
    spoil(label)
    with pytest.raises(ValueError, match=message):
        camera.check_label(label)


def test_wrong_length_is_named():
    with pytest.raises(ValueError, match="25"):
        camera.unpack_label(torch.zeros(24))
