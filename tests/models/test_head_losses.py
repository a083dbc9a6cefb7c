"""View consistency, density variation and mask losses."""

import math

import pytest
import torch

from models import camera
from models.losses.density import density_variation
from models.losses.mask import mask_agreement, mask_decision
from models.losses.viewconsistency import mismatch, view_angles, view_consistency_loss


def labels(*degrees: float, roll: float = 0.0) -> torch.Tensor:
    azimuth = torch.tensor(degrees).deg2rad()
    return camera.pack_label(camera.pose_on_sphere(azimuth, 0 * azimuth, roll=roll), camera.intrinsics())


def test_view_angle_is_the_turn_about_the_head_and_ignores_roll():
    angle = view_angles(labels(0, 10, 170, 90), labels(0, -30, -170, -90, roll=0.4)).rad2deg()
    torch.testing.assert_close(angle, torch.tensor([0.0, 40, 20, 180]), atol=0.05, rtol=0)


def test_near_equal_views_are_never_punished():
    torch.manual_seed(0)
    label = labels(0, 5, 10, 180)
    for _ in range(20):
        shuffled, wrong = mismatch(label)
        assert (view_angles(label, shuffled)[wrong] >= math.radians(15) - 1e-5).all()
        assert (view_angles(label, shuffled)[~wrong] < math.radians(15) + 1e-5).all()
        torch.testing.assert_close(shuffled.sort(dim=0).values, label.sort(dim=0).values)  # a permutation


def test_loss_is_the_mean_over_mismatched_pairs_and_pushes_their_logits_down():
    torch.manual_seed(1)
    label = labels(0, 90, 180, 270)
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0], requires_grad=True)
    given = []

    def critic(shuffled):
        given.append(shuffled)
        return logits

    loss = view_consistency_loss(critic, label)
    wrong = view_angles(label, given[0]) > math.radians(15)
    torch.testing.assert_close(loss, torch.nn.functional.softplus(logits[wrong]).mean())
    loss.backward()
    assert (logits.grad[wrong] > 0).all()
    assert (logits.grad[~wrong] == 0).all()
    assert view_consistency_loss(lambda c: logits, labels(0, 1, 2, 3)).item() == 0


def test_density_variation_of_a_linear_field_is_its_slope_times_the_mean_step():
    torch.manual_seed(0)
    seen = []

    def density(points):
        seen.append(points)
        return 3 * points[..., 0]

    value = density_variation(density, batch=4, box=0.6, points=5000)
    assert value.item() == pytest.approx(3 * 0.004 * math.sqrt(2 / math.pi), rel=0.05)
    drawn = seen[0][:, :5000]
    assert drawn.abs().max() <= 0.3
    assert drawn.abs().max() > 0.29


def test_mask_losses_prefer_the_right_and_the_decided():
    target = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert mask_agreement(target * 1.002 - 0.001, target) < 1e-3
    assert mask_agreement(1 - target, target) > 5
    assert mask_decision(torch.full((1, 1, 4, 4), 0.5)).item() == pytest.approx(math.log(2))
    assert mask_decision(target) < 2e-3
    fog = torch.full((1, 1, 4, 4), 0.7, requires_grad=True)
    mask_decision(fog).backward()
    assert (fog.grad < 0).all()  # descending makes it more opaque
