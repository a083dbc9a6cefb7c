"""Poses in numpy are those of models.camera."""

import numpy as np
import pytest
import torch

from models import camera
from ops.curate import poses

RNG = np.random.default_rng(0)


def test_poses_and_labels_are_those_of_the_projects_camera():
    assert (poses.FFHQ_FOCAL, poses.FFHQ_RADIUS) == (camera.FFHQ_FOCAL, camera.FFHQ_RADIUS)
    for _ in range(20):
        azimuth, elevation, roll = RNG.uniform(-1.5, 1.5, 3) * [2, 1, 1]
        wanted = camera.pose_on_sphere(
            torch.tensor(azimuth, dtype=torch.float64), torch.tensor(elevation, dtype=torch.float64), roll=roll
        )
        pose = poses.on_sphere(azimuth, elevation, roll=roll)
        np.testing.assert_allclose(pose, wanted.numpy(), atol=1e-12)
        label = poses.pack(pose, poses.intrinsics(3.4))
        packed = camera.pack_label(wanted, camera.intrinsics(torch.tensor(3.4, dtype=torch.float64)))
        np.testing.assert_allclose(label, packed.numpy(), atol=1e-12)
        points = RNG.normal(size=(7, 3)) * 0.3
        there, _ = camera.project(packed[None], torch.from_numpy(points)[None])
        np.testing.assert_allclose(poses.project(label, points), there[0].numpy(), atol=1e-12)
    for height in (2.0, -2.0):  # straight above and below
        origin = np.array([0.0, height, 0.0])
        wanted = camera.look_at(torch.from_numpy(origin), torch.zeros(3, dtype=torch.float64), 0.3)
        np.testing.assert_allclose(poses.look_at(origin, np.zeros(3), 0.3), wanted.numpy(), atol=1e-12)


def test_what_is_no_pose_is_no_label():
    good = poses.on_sphere(0.2, 0.1)
    mirrored, bent, open_end, gone = (good.copy() for _ in range(4))
    mirrored[:3, 0] *= -1
    bent[0, 0] += 0.1
    open_end[3, 0] = 0.5
    gone[0, 3] = np.nan
    for bad in (mirrored, bent, open_end, gone):
        with pytest.raises(ValueError, match="rotation and a shift"):
            poses.pack(bad, poses.intrinsics(2.0))


def test_the_angle_between_rotations():
    a, b = poses.on_sphere(0.1, 0.0)[:3, :3], poses.on_sphere(0.6, 0.0)[:3, :3]
    assert poses.rotation_angle(a, b) == pytest.approx(np.rad2deg(0.5))
    assert poses.rotation_angle(a, a) == pytest.approx(0, abs=1e-5)
    assert poses.rotation_angle(np.eye(3), np.diag([1.0, -1.0, -1.0])) == pytest.approx(180)
