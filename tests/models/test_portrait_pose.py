"""Inverse skinning and its processing: identities, inverses, and the fast volume against the nearest vertex."""

import pytest
import torch
from scipy.spatial import cKDTree
from torch.nn.functional import avg_pool3d, interpolate, pad

from models.portrait_pose import (
    Body,
    NearestTransforms,
    PoseConfig,
    PoseField,
    PoseProcessor,
    apply_transforms,
    bake_transforms,
    nearest_vertex,
)
from tests.models import toy_body

CENTRE = (0.0, -0.02, -0.09)
SMALL = PoseConfig(kernel=(3, 5, 5))


def samples(n: int = 1, side: int = 12, count: int = 8) -> torch.Tensor:
    """(n, side, side, count, 3) points of a frontal, orthographic picture."""
    line = torch.linspace(-0.2, 0.2, side)
    y, x, z = torch.meshgrid(-line - 0.03, line, torch.linspace(0.12, -0.3, count), indexing="ij")
    return torch.stack([x, y, z], dim=-1).expand(n, -1, -1, -1, -1)


def lookup(angles: torch.Tensor) -> NearestTransforms:
    body = toy_body.body(angles)
    return NearestTransforms(body.vertices, body.inverse_transforms())


def test_nearest_vertex_agrees_with_a_kd_tree():
    vertices = toy_body.body(toy_body.random_angles(2)).vertices
    points = (torch.rand(2, 3000, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.6
    found = nearest_vertex(points, vertices, chunk=700)
    for v, p, index in zip(vertices, points, found):
        distance, expected = cKDTree(v.numpy()).query(p.numpy())
        assert (index.numpy() == expected).mean() > 0.999  # ties to rounding
        torch.testing.assert_close((p - v[index]).norm(dim=-1), torch.as_tensor(distance).float(), rtol=1e-4, atol=1e-6)


def test_nearest_vertex_stays_exact_far_from_the_origin():
    vertices = toy_body.body(toy_body.random_angles(1)).vertices + 50
    assert torch.equal(nearest_vertex(vertices, vertices)[0], torch.arange(vertices.shape[1]))


def test_inverse_skinning_takes_every_vertex_home():
    body = toy_body.body(toy_body.random_angles(3, 0.4))
    home, _ = toy_body.neutral()
    torch.testing.assert_close(
        apply_transforms(body.inverse_transforms(), body.vertices), home.expand(3, -1, -1), atol=1e-5, rtol=0
    )
    found = NearestTransforms(body.vertices, body.inverse_transforms()).at(body.vertices)
    torch.testing.assert_close(apply_transforms(found, body.vertices), home.expand(3, -1, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("processing", [True, False])
@pytest.mark.parametrize("way", ["nearest", "volume"])
def test_the_neutral_pose_deforms_nothing_whatever_is_learned(processing, way):
    torch.manual_seed(0)
    field = PoseField(SMALL.model_copy(update={"processing": processing, "lookup": way}), CENTRE)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    points = samples(2)
    body = toy_body.body(torch.zeros(2, 4, 3))
    torch.testing.assert_close(field(points, field.lookup(body)), points, atol=2e-6, rtol=0)


def test_one_rigid_motion_of_everything_is_undone_exactly_even_by_learned_filters():
    torch.manual_seed(0)
    field = PoseField(SMALL, CENTRE)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    turn = toy_body.joint_transforms(toy_body.random_angles(1))[:, :1].expand(-1, 4, -1, -1)
    vertices, weights = toy_body.neutral()
    home = samples()
    moved = home @ turn[0, 0, :3, :3].T + turn[0, 0, :3, 3]
    body = Body(vertices[None] @ turn[0, 0, :3, :3].T + turn[0, 0, :3, 3], weights, turn, toy_body.HEAD)
    torch.testing.assert_close(field(moved, field.lookup(body)), home, atol=1e-5, rtol=0)


def test_processing_starts_as_average_pooling_and_keeps_its_sum_while_learning():
    torch.manual_seed(0)
    process = PoseProcessor(PoseConfig())
    volume = torch.randn(1, 12, 4, 8, 8)
    torch.testing.assert_close(process(volume), process(volume, fixed=True), atol=1e-6, rtol=1e-5)
    expected = volume
    for _ in range(2):  # against the library's pooling
        expected = avg_pool3d(pad(expected, (4, 4, 4, 4, 2, 2), mode="reflect"), (5, 9, 9), stride=1)
        if expected.shape == volume.shape:
            expected = interpolate(expected, scale_factor=2, mode="trilinear")
    torch.testing.assert_close(process(volume), expected, atol=1e-6, rtol=1e-5)
    # The middle of a ramp is its mean, at twice the resolution.
    line = torch.arange(8.0).expand(1, 12, 4, 8, 8)
    wide = process(line).detach()
    torch.testing.assert_close(wide[0, 0, 4, 8], wide[0, 5, 2, 3])
    assert wide[0, 0, 4, 8, 7:9].mean() == pytest.approx(3.5, abs=1e-4)
    optimizer = torch.optim.SGD(process.parameters(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        (process(volume) - torch.randn(1, 12, 8, 16, 16)).square().mean().backward()
        optimizer.step()
    assert (process(volume) - process(volume, fixed=True)).abs().max() > 1e-4
    torch.testing.assert_close(process(torch.full_like(volume, 0.7)), torch.full((1, 12, 8, 16, 16), 0.7))


def test_processing_smooths_the_seam_between_head_and_shoulder():
    angles = torch.zeros(1, 4, 3)
    angles[0, toy_body.HEAD, 1] = 0.6
    points, found = samples(side=24, count=12), lookup(angles)
    jump = []
    for processing in (True, False):
        moved = PoseField(SMALL.model_copy(update={"processing": processing}), CENTRE)(points, found) - points
        jump.append((moved[:, 1:] - moved[:, :-1]).norm(dim=-1).max())
    assert jump[0] < 0.5 * jump[1]


def test_half_resolution_looks_at_the_middles_of_blocks():
    # A transform that is linear in space, so scaling up by trilinear interpolation gives it back: with samples
    # displaced by half a step, as in the public code, everything would shift.
    class Linear:
        def at(self, points):
            return points.repeat(1, 1, 4)

    field = PoseField(PoseConfig(kernel=(1, 1, 1)), CENTRE)
    points = samples(side=16, count=16)
    volume = field.process(field.half_volume(points, Linear()))
    expected = points.permute(0, 4, 3, 1, 2).repeat(1, 4, 1, 1, 1)
    inside = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(volume[inside], expected[inside], atol=1e-6, rtol=0)


def test_the_processing_network_gets_gradients():
    field = PoseField(SMALL, CENTRE)
    points = samples()
    field(points, lookup(toy_body.random_angles(1))).square().sum().backward()
    for parameter in field.parameters():
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize("shape", [(1, 11, 12, 8, 3), (1, 12, 12, 7, 3), (1, 4, 4, 8, 3)])
def test_volumes_that_cannot_be_halved_or_padded_are_refused(shape):
    field = PoseField(SMALL, CENTRE)
    with pytest.raises(ValueError, match="even numbers"):
        field(torch.zeros(shape), lookup(torch.zeros(1, 4, 3)))


@pytest.mark.parametrize(("candidates", "share"), [(1200, 1.0), (96, 0.999)])
def test_the_baked_volume_equals_the_nearest_vertex_outside_seams(candidates, share):
    body = toy_body.body(toy_body.random_angles(2, 0.25), count=1200)
    reference = NearestTransforms(body.vertices, body.inverse_transforms())
    lower, upper = torch.full((3,), -0.3), torch.full((3,), 0.3)
    volume = bake_transforms(body, lower, upper, resolution=32, candidates=candidates)
    points = (torch.rand(2, 4000, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.58
    step = 0.6 / 31
    around = torch.stack(torch.meshgrid(*[torch.tensor([-step, 0, step])] * 3, indexing="ij"), dim=-1).reshape(-1, 3)
    here = reference.at(points)
    # How much the nearest vertex's transform changes within a cell of the volume: where it does, there is a seam.
    spread = torch.stack([(reference.at(points + a) - here).abs().amax(-1) for a in around]).amax(0)
    difference = (volume.at(points) - here).abs().amax(-1)
    plain = spread < 1e-3
    assert plain.float().mean() > 0.7
    assert (difference[plain] < 1e-3).float().mean() >= share
    # Within a seam the volume is a mean of the transforms around.
    assert (difference <= spread + 1e-3).float().mean() >= share


def test_lattice_points_get_the_transform_of_their_nearest_vertex():
    body = toy_body.body(toy_body.random_angles(1, 0.25))
    lower, upper = torch.tensor([-0.25, -0.3, -0.2]), torch.tensor([0.25, 0.2, 0.15])
    volume = bake_transforms(body, lower, upper, resolution=16, candidates=600)
    steps = torch.linspace(0, 1, 16)
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    lattice = (lower + torch.stack([x, y, z], dim=-1) * (upper - lower)).reshape(1, -1, 3)
    expected = NearestTransforms(body.vertices, body.inverse_transforms()).at(lattice)
    torch.testing.assert_close(volume.at(lattice), expected, atol=1e-4, rtol=0)


def test_a_resolution_that_does_not_split_into_groups_is_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        bake_transforms(toy_body.body(torch.zeros(1, 4, 3)), torch.zeros(3), torch.ones(3), resolution=20)


def test_a_body_with_mismatched_parts_is_refused():
    vertices, weights = toy_body.neutral()
    transforms = torch.eye(4).repeat(2, 4, 1, 1)
    with pytest.raises(ValueError, match="need weights"):
        Body(vertices.expand(2, -1, -1), weights[:-1], transforms, 1)
    with pytest.raises(ValueError, match="head joint 4"):
        Body(vertices.expand(2, -1, -1), weights, transforms, 4)
