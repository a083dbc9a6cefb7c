"""Carrying depths to another camera: exact for a ball, wrong depths and colours found out."""

import pytest
import torch

from models import camera
from ops.apply.cameras import orbit
from ops.evaluate.consistency import reproject

SIDE, RADIUS = 48, 0.3


def ball(label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Exact depth, colour (the place in the world) and mask of a ball."""
    origin, direction = camera.rays(label, SIDE)
    middle = (origin * direction).sum(-1)
    inner = middle.square() - origin.square().sum(-1) + RADIUS**2
    depth = torch.where(inner > 0, -middle - inner.clamp_min(0).sqrt(), torch.full_like(middle, 3.3))
    points = origin + direction * depth.unsqueeze(-1)
    shape = (len(label), -1, SIDE, SIDE)
    return depth.view(shape), (points / RADIUS).transpose(1, 2).reshape(shape), (inner > 0).view(shape)


@pytest.fixture
def views():
    label = torch.cat([orbit(0.0), orbit(20.0), orbit(40.0, 10.0)])
    return *ball(label), label, torch.tensor([1, 2, 0])


def test_a_solid_ball_agrees_with_itself(views):
    found = reproject(*views)
    assert found.depth < 2e-3
    assert found.colour < 5e-3
    assert found.seen > 0.5
    assert found.points > 1000


def test_a_view_that_is_nearer_or_of_another_colour_is_found_out(views):
    depth, colour, solid, label, partner = views
    assert reproject(depth + torch.tensor([0, 0.03, 0]).view(3, 1, 1, 1), colour, solid, label, partner).depth > 0.015
    assert reproject(depth, colour * torch.tensor([1, -1, 1]).view(3, 1, 1, 1), solid, label, partner).colour > 0.1


def test_what_lies_behind_is_hidden_not_wrong():
    opposite = torch.cat([orbit(0.0), orbit(180.0)])
    depth, colour, solid = ball(opposite)
    assert reproject(depth, colour, solid, opposite, torch.tensor([1, 0])).seen < 0.1


def test_nothing_solid_gives_no_number(views):
    depth, colour, solid, label, partner = views
    found = reproject(depth, colour, torch.zeros_like(solid), label, partner)
    assert found.points == 0
    assert found.depth != found.depth
