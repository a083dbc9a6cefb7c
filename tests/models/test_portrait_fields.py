"""The fields at their start: parameter counts, geometry of M, D^e at rest, units."""

import torch

from models.portrait_fields import (
    SCALE,
    ExpressionConfig,
    ExpressionField,
    ManifoldConfig,
    ManifoldField,
    RadianceConfig,
    RadianceField,
)


def test_manifolds_start_as_shells_about_their_centre():
    torch.manual_seed(0)
    field = ManifoldField(ManifoldConfig())
    points = (torch.rand(4000, 3) - 0.5) * torch.tensor([0.3, 0.3, 0.2])
    value = field(points).detach()
    distance = 10 * (points * SCALE - torch.tensor([0.0, 0.0, -1.5])).norm(dim=-1)
    ratio = value / distance
    assert 0.7 < float(ratio.mean()) < 1.3
    assert float(ratio.std()) < 0.15
    # Sheets are there to be crossed: before the face the field lies above the levels, behind it below.
    front, back = field(torch.tensor([[0.0, 0.0, 0.16], [0.0, 0.0, -0.12]])).detach()
    assert front > 20 > 11 > back


def test_expression_starts_at_rest_and_speaks_world_units():
    torch.manual_seed(0)
    field = ExpressionField(20, ExpressionConfig(width=32, mapping_width=16))
    film = field.mapping(torch.randn(2, 20))
    points = torch.randn(2, 9, 3) * 0.1
    assert torch.equal(field(points, film), torch.zeros_like(points))
    # A bias of one scaled unit is one unit of the box: 0.12 in the world, at every point.
    torch.nn.init.ones_(field.last.bias)
    torch.testing.assert_close(field(points, film), torch.full_like(points, 0.12))


def test_features_do_not_change_what_is_seen():
    torch.manual_seed(0)
    field = RadianceField(12, RadianceConfig(width=16, layers=4, mapping_width=16, features=5))
    film = field.mapping(torch.randn(2, 12))
    points, directions = torch.randn(2, 7, 3) * 0.1, torch.nn.functional.normalize(torch.randn(2, 7, 3), dim=-1)
    bare, full = field(points, directions, film), field(points, directions, film, features=True)
    assert bare.features is None
    assert full.features.shape == (2, 7, 5)
    torch.testing.assert_close(bare.colour, full.colour)
    torch.testing.assert_close(bare.density, full.density)


def test_only_colour_depends_on_the_viewing_direction():
    torch.manual_seed(0)
    field = RadianceField(12, RadianceConfig(width=16, layers=4, mapping_width=16, features=5))
    film = field.mapping(torch.randn(1, 12))
    points = torch.randn(1, 7, 3) * 0.1
    one, other = (field(points, d.expand(1, 7, 3), film, features=True) for d in torch.eye(3)[:2])
    assert not torch.allclose(one.colour, other.colour)
    assert torch.equal(one.density, other.density)
    assert torch.equal(one.features, other.features)


def test_radiance_gradients_agree_with_finite_differences():
    torch.manual_seed(0)
    field = RadianceField(4, RadianceConfig(width=6, layers=3, mapping_width=8, features=2)).double()
    film = field.mapping(torch.randn(1, 4, dtype=torch.double))
    points = (torch.randn(1, 2, 3, dtype=torch.double) * 0.02).requires_grad_()
    directions = torch.randn(1, 2, 3, dtype=torch.double).requires_grad_()
    detached = type(film)(*(part.detach() for part in film))
    assert torch.autograd.gradcheck(
        lambda p, d: torch.cat([x.flatten() for x in field(p, d, detached, features=True)]), (points, directions)
    )
