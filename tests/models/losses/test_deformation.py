"""The losses of deformation: zero where they should be, right elsewhere, gradients against finite differences."""

import math

import pytest
import torch

from models.losses.deformation import (
    expression_smoothness,
    imitation_loss,
    imitation_target,
    landmark_loss,
    minimal_deformation,
    occupancy_loss,
    pose_smoothness,
)


def face(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A sphere of vertices with an expression that moves its lower half."""
    g = torch.Generator().manual_seed(seed)
    neutral = torch.nn.functional.normalize(torch.randn(2, 300, 3, generator=g), dim=-1) * 0.1
    offsets = torch.where(neutral[..., 1:2] < 0, torch.tensor([0.0, -0.02, 0.01]), torch.zeros(3))
    return neutral, offsets


def test_landmarks_are_compared_point_by_point():
    wanted = torch.randn(2, 5, 3)
    assert landmark_loss(wanted, wanted) == 0
    assert landmark_loss(wanted + torch.tensor([0.0, 3.0, 4.0]), wanted).item() == pytest.approx(25, rel=1e-5)


def test_imitation_brings_every_expressive_vertex_home():
    neutral, offsets = face()
    target, weight = imitation_target(neutral + offsets, neutral, offsets)
    torch.testing.assert_close(neutral + offsets + target, neutral)
    assert torch.equal(weight, torch.ones(2, 300))
    assert imitation_loss(target, target, weight) == 0
    assert imitation_loss(torch.zeros_like(target), target, weight) > 0


def test_imitation_without_expression_asks_for_no_motion():
    neutral, offsets = face()
    target, _ = imitation_target(torch.randn(2, 50, 3), neutral, torch.zeros_like(offsets))
    assert torch.equal(target, torch.zeros_like(target))


def test_imitation_fades_with_the_distance_to_the_face():
    neutral = torch.zeros(1, 1, 3)
    points = torch.tensor([[[0.0, 0, 0], [0.02, 0, 0], [0.2, 0, 0]]])
    _, weight = imitation_target(points, neutral, torch.zeros(1, 1, 3), reach=0.02)
    torch.testing.assert_close(weight, torch.tensor([[1.0, math.exp(-0.5), math.exp(-50)]]))


def test_pose_smoothness_is_a_mean_of_absolute_differences():
    volume = torch.randn(1, 12, 2, 3, 4)
    assert pose_smoothness(volume, volume) == 0
    assert pose_smoothness(volume + 0.25, volume).item() == pytest.approx(0.25, rel=1e-5)


def test_expression_smoothness_lets_common_motion_pass_and_measures_stretch():
    points = torch.randn(2, 4000, 3)
    assert expression_smoothness(lambda x: torch.ones_like(x), points, 0.1) == 0
    # Displacement 0.5 x differs by half the step: expected square 3 (0.5 sigma)^2.
    stretch = expression_smoothness(lambda x: 0.5 * x, points, 0.1, torch.Generator().manual_seed(0))
    assert stretch.item() == pytest.approx(3 * 0.05**2, rel=0.05)


def test_minimal_deformation_has_a_gradient_everywhere():
    moved = torch.zeros(1, 4, 3, requires_grad=True)
    minimal_deformation(moved).backward()
    assert torch.equal(moved.grad, torch.zeros_like(moved))
    assert minimal_deformation(torch.tensor([[[0.0, 3.0, 4.0]]])).item() == 25


@pytest.mark.parametrize("loss", [minimal_deformation, lambda x: landmark_loss(x, x.detach().flip(1))])
def test_gradients_agree_with_finite_differences(loss):
    assert torch.autograd.gradcheck(
        minimal_deformation, (torch.randn(1, 4, 3, dtype=torch.double, requires_grad=True),)
    )
    x = torch.randn(1, 4, 3, dtype=torch.double)
    target = x.flip(1)
    assert torch.autograd.gradcheck(lambda y: landmark_loss(y, target), (x.requires_grad_(),))
    weight = torch.rand(1, 4, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda y: imitation_loss(y, target, weight), (x,))
    assert loss(x.detach()) > 0


def test_occupancy_wants_the_inside_dense_the_outside_clear_and_the_shell_left_alone():
    g = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(1, 2000, 3, generator=g), dim=-1)
    radius = torch.tensor([0.02, 0.06, 0.12, 0.2])  # of a ball of radius 0.1: inside twice, the shell, outside
    points = normals[:, :1] * radius.view(1, -1, 1)
    right = torch.tensor([[0.99, 0.99, 0.5, 0.01]])
    loss = occupancy_loss(right, points, 0.1 * normals, normals)
    assert loss.item() == pytest.approx(-math.log(0.99), rel=1e-4)
    assert occupancy_loss(right.clone().index_fill_(1, torch.tensor(2), 0.9), points, 0.1 * normals, normals) == loss
    alpha = right.clone().requires_grad_()
    occupancy_loss(alpha, points, 0.1 * normals, normals).backward()
    assert (alpha.grad[0, :2] < 0).all()
    assert alpha.grad[0, 2] == 0 < alpha.grad[0, 3]
    assert occupancy_loss(right[:, 2:3], points[:, 2:3], 0.1 * normals, normals) == 0
