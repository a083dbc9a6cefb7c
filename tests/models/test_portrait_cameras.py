"""The two cameras: where they stand, how the face camera follows the head, what crops show."""

import pytest
import torch

from models import camera
from models.portrait_cameras import FACE_VIEW, PORTRAIT_VIEW, crop_face, follow, in_head_frame, torso, view_label
from tests.models import toy_body


def angles(n: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=g) * 0.4, torch.randn(n, generator=g) * 0.2


@pytest.mark.parametrize("view", [PORTRAIT_VIEW, FACE_VIEW])
def test_views_look_at_their_pivot_from_their_radius(view):
    azimuth, elevation = angles()
    label = view_label(view, azimuth, elevation)
    camera.check_label(label)
    pivot = torch.tensor(view.pivot)
    uv, depth = camera.project(label, pivot.expand(5, 1, 3))
    torch.testing.assert_close(uv, torch.full_like(uv, 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(depth, torch.full_like(depth, view.radius))
    found = camera.spherical_angles(camera.unpack_label(label)[0], pivot)
    torch.testing.assert_close(found[0], azimuth, atol=1e-4, rtol=0)
    assert view.near < view.radius < view.far


def test_the_face_camera_sees_the_deformed_head_as_if_it_were_neutral():
    azimuth, elevation = angles()
    head = toy_body.joint_transforms(toy_body.random_angles(5))[:, toy_body.HEAD]
    label = view_label(FACE_VIEW, azimuth, elevation)
    points = torch.randn(5, 20, 3) * 0.05
    moved = points @ head[:, :3, :3].transpose(1, 2) + head[:, None, :3, 3]
    for got, want in zip(camera.project(follow(label, head), moved), camera.project(label, points)):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(in_head_frame(follow(label, head), head), label, atol=1e-5, rtol=1e-5)


def test_the_torso_is_the_lower_quarter():
    picture = torch.arange(16.0)[None, None, :, None].expand(1, 3, 16, 16)
    assert torch.equal(torso(picture)[0, 0, :, 0], torch.tensor([12.0, 13, 14, 15]))
    with pytest.raises(ValueError, match="multiple of 4"):
        torso(torch.zeros(1, 3, 18, 18))


def test_a_crop_shows_the_plane_through_the_head_as_the_face_camera_sees_it():
    azimuth, elevation = torch.tensor([0.1]), torch.tensor([-0.05])
    head = toy_body.joint_transforms(toy_body.random_angles(1, 0.1))[:, toy_body.HEAD]
    portrait = view_label(PORTRAIT_VIEW, azimuth, elevation)
    face = follow(view_label(FACE_VIEW, azimuth * 0, elevation * 0), head)
    # A picture whose channels are its own coordinates tells where each pixel of the crop came from.
    side = 64
    picture = camera.pixel_grid(side).view(side, side, 2).permute(2, 0, 1)[None] * 2 - 1
    crop = crop_face(picture, portrait, face, 16)
    pose, _ = camera.unpack_label(face)
    uv = camera.pixel_grid(16)
    plane = torch.stack([(uv[:, 0] - 0.5) / FACE_VIEW.focal, (uv[:, 1] - 0.5) / FACE_VIEW.focal, torch.ones(256)], -1)
    world = plane @ pose[0, :3, :3].T + pose[0, :3, 3]
    expected = camera.project(portrait, world[None])[0][0] * 2 - 1
    assert expected.abs().max() < 0.95  # well inside the portrait
    torch.testing.assert_close(crop[0].flatten(1).T, expected, atol=1e-4, rtol=0)


def test_a_crop_beyond_the_portrait_is_white():
    portrait = view_label(PORTRAIT_VIEW, torch.zeros(1), torch.zeros(1))
    aside = torch.eye(4)[None].clone()
    aside[:, 0, 3] = 1.0
    face = follow(view_label(FACE_VIEW, torch.zeros(1), torch.zeros(1)), aside)
    assert torch.equal(crop_face(torch.zeros(1, 3, 32, 32), portrait, face, 8), torch.ones(1, 3, 8, 8))
