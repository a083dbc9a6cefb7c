"""The default face and body model: its basis carries the crowd, its codes are standard, and the parts are one mesh."""

import numpy as np
import pytest
import torch

from models.parametric import person_basis
from models.parametric.anny import load_anny
from models.parametric.base import JOINTS, BodyModel, FaceModel
from models.parametric.person import EXPRESSION, IDENTITY, SHAPE, Person, load_person
from models.parametric.population import draw_codes

MM = 1000 / 2.7


@pytest.fixture(scope="module")
def model() -> Person:
    return load_person()


@pytest.fixture(scope="module")
def strangers() -> tuple[torch.Tensor, torch.Tensor]:
    """Rest vertices and joints of people who were not in the crowd that the basis was made from."""
    anny = load_anny()
    return anny.rest(torch.from_numpy(draw_codes(anny, 96, seed=7)))


def codes(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    expression = torch.rand(count, EXPRESSION, generator=g) * 0.3
    return torch.randn(count, IDENTITY, generator=g), expression, torch.randn(count, SHAPE, generator=g)


def test_offers_both_interfaces(model):
    assert isinstance(model, FaceModel)
    assert isinstance(model, BodyModel)
    assert model.vertices(torch.zeros(2, 80), torch.zeros(2, 52)).shape == (2, len(model.mean), 3)
    assert model.posed(torch.zeros(2, 10), torch.zeros(2, 6, 3)).shape == (2, len(model.mean), 3)


def test_the_basis_carries_the_crowd(model):
    head, body = model.explained.tolist()
    assert head >= 0.99
    assert body >= 0.99
    assert head < 1


def test_strangers_are_described_to_a_fraction_of_a_millimetre(model, strangers):
    rest, joints = strangers
    identity, shape = model.encode(rest)
    error = (model.vertices(identity, shape=shape) - rest).norm(dim=-1) * MM
    plain = (model.mean - rest).norm(dim=-1) * MM
    head = model.head_share > 0.99
    assert error[:, head].mean() < 0.3 < 3 < plain[:, head].mean()
    assert error[:, ~head].mean() < 3
    assert ((model.joints(shape, identity) - joints).norm(dim=-1) * MM).mean() < 1


def test_codes_are_in_standard_deviations(model, strangers):
    identity, shape = model.encode(strangers[0])
    for scores in (identity, shape):
        assert abs(scores.var() - 1) < 0.1
        assert scores.mean().abs() < 0.06


def test_components_agree_with_a_singular_value_decomposition():
    g = torch.Generator().manual_seed(0)
    spread = torch.randn(40, 9, generator=g, dtype=torch.float64)
    spread -= spread.mean(0)
    shapes = torch.randn(9, 60, generator=g, dtype=torch.float64)
    mixing, scores, kept = person_basis.components(spread, shapes, 4)
    _, singular, right = np.linalg.svd((spread @ shapes).numpy(), full_matrices=False)
    basis = (mixing @ shapes).numpy()
    assert np.linalg.norm(basis, axis=1) == pytest.approx(singular[:4] / np.sqrt(40))
    assert np.abs(basis @ right[:4].T).diagonal() == pytest.approx(np.linalg.norm(basis, axis=1))
    assert float(kept) == pytest.approx((singular[:4] ** 2).sum() / (singular**2).sum())
    torch.testing.assert_close(scores.square().mean(0), torch.ones(4, dtype=torch.float64))
    rebuilt = scores @ mixing @ shapes
    assert float((rebuilt - spread @ shapes).square().sum() / 40) == pytest.approx((singular[4:] ** 2).sum() / 40)


def test_the_same_crowd_gives_the_same_basis():
    anny = load_anny()
    first, second = (person_basis.build(anny, crowd=128) for _ in range(2))
    other = person_basis.build(anny, crowd=128, seed=1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["identity_basis"], other["identity_basis"])


def test_encoding_undoes_decoding(model):
    identity, _, shape = codes(3)
    found = model.encode(model.vertices(identity, shape=shape))
    torch.testing.assert_close(found[0], identity, atol=2e-3, rtol=0)
    torch.testing.assert_close(found[1], shape, atol=2e-3, rtol=0)


def test_head_and_body_are_one_mesh(model):
    """The head's code leaves the torso alone, the body's the head; between them nothing tears."""
    identity, _, shape = codes(4)
    head = model.vertices(identity) - model.mean
    body = model.vertices(torch.zeros(4, 80), shape=shape) - model.mean
    assert head[:, model.head_share == 0].abs().max() == 0
    assert body[:, model.head_share == 1].abs().max() == 0
    assert (model.head_share == 0).sum() > 500
    assert (model.head_share == 1).sum() > 2000
    edges = torch.cat([model.triangles[:, [0, 1]], model.triangles[:, [1, 2]]])
    rest, moved = model.mean, model.vertices(identity, shape=shape)
    seam = ((model.head_share > 0.02) & (model.head_share < 0.98))[edges].any(1)
    before = (rest[edges[:, 0]] - rest[edges[:, 1]]).norm(dim=-1)[seam]
    after = (moved[:, edges[:, 0]] - moved[:, edges[:, 1]]).norm(dim=-1)[:, seam]
    assert ((after / before).log().abs() < 1).float().mean() > 0.995


def test_left_and_right_are_mirror_images(model):
    vertices = model.vertices(codes(3)[0], shape=codes(3)[2])
    assert (vertices[:, model.mirror] * torch.tensor([-1.0, 1, 1]) - vertices).norm(dim=-1).mean() < 0.002


def test_gradients_agree_with_differences(model):
    double = Person(
        {n: b.double() if b.is_floating_point() else b for n, b in model.named_buffers() if n != "mean_identity"},
        model.expression_names,
    ).double()
    identity, expression, shape = (code.double() for code in codes(1))
    pose = 0.2 * torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weight = torch.randn(model.mean.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def value(*inputs: torch.Tensor) -> torch.Tensor:
        return (double.posed(inputs[0], inputs[1], inputs[2], inputs[3]) * weight).sum()

    inputs = [shape, pose, identity, expression]
    for tensor in inputs:
        tensor.requires_grad_()
    for place, gradient in enumerate(torch.autograd.grad(value(*inputs), inputs)):
        direction = torch.randn(inputs[place].shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        with torch.no_grad():
            ahead, behind = (
                value(*(t + sign * 1e-5 * direction if i == place else t for i, t in enumerate(inputs)))
                for sign in (1, -1)
            )
        torch.testing.assert_close((ahead - behind) / 2e-5, (gradient * direction).sum(), rtol=1e-6, atol=1e-6)


def test_the_head_turns_about_its_own_joint(model):
    identity, _, shape = codes(2)
    pose = torch.zeros(2, 6, 3)
    pose[:, JOINTS.index("head"), 0] = 0.3
    rest, posed = model.vertices(identity, shape=shape), model.posed(shape, pose, identity)
    rigid = model.skinning_weights[:, 1 + JOINTS.index("head")] > 0.999
    pivot = model.joints(shape, identity)[:, JOINTS.index("head")][:, None]
    torch.testing.assert_close(
        (posed[:, rigid] - pivot).norm(dim=-1), (rest[:, rigid] - pivot).norm(dim=-1), atol=1e-4, rtol=0
    )
    assert (posed[:, rigid] - rest[:, rigid]).norm(dim=-1).mean() > 0.02


def test_facemesh_rides_on_the_skin(model):
    points = model.facemesh
    assert points.valid.sum() >= 448  # two points of the jaw lie off the surface on the mean head
    assert not points.valid.all()
    torch.testing.assert_close(points.barycentric.sum(1), torch.ones(468))
    assert (points.barycentric > -1e-5).all()
    rest = model.vertices(torch.zeros(1, 80))
    at = points.on(rest, model.triangles)[0]
    assert (at[:, 2] > -0.05).all()  # none behind the ears
    nose, chin, left, right = at[[1, 152, 263, 33]]
    assert nose[2] == at[:, 2].max() or at[:, 2].max() - nose[2] < 0.01
    assert chin[1] < nose[1] < left[1]
    assert left[0] > 0 > right[0]

    def motion(unit: str) -> torch.Tensor:
        one = torch.zeros(1, 52)
        one[0, model.expression_names.index(unit)] = 1
        return points.on(model.vertices(torch.zeros(1, 80), one), model.triangles)[0] - at

    jaw, blink = motion("jawOpen"), motion("eyeBlinkLeft")
    assert jaw[14, 1] < -0.05 < -0.01 < jaw[13, 1]  # the lower lip's inner edge falls, the upper lip's stays
    assert blink[386, 1] < -0.02 < 0 <= blink[159, 1].abs() < 1e-6  # the left eye's upper lid, not the right's


def test_closest_points_beat_every_point_of_a_dense_grid():
    g = torch.Generator().manual_seed(0)
    corners, points = torch.randn(64, 3, 3, generator=g), torch.randn(64, 3, generator=g) * 1.5
    weights = person_basis.closest_on_triangles(points, corners)
    torch.testing.assert_close(weights.sum(-1), torch.ones(64))
    assert (weights >= -1e-6).all()
    found = ((weights[..., None] * corners).sum(1) - points).norm(dim=-1)
    steps = torch.linspace(0, 1, 61)
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    grid = grid[grid.sum(1) <= 1 + 1e-6]
    grid = torch.cat([grid, 1 - grid.sum(1, keepdim=True)], dim=1)
    dense = (torch.einsum("gk,nkx->ngx", grid, corners) - points[:, None]).norm(dim=-1).amin(1)
    assert (found <= dense + 1e-5).all()
    assert (dense - found).max() < 0.08


def test_texture_coordinates_fit_the_mesh(model):
    assert model.uv_triangles.shape == model.triangles.shape
    assert int(model.uv_triangles.max()) == len(model.uv) - 1
    assert ((model.uv >= 0) & (model.uv <= 1)).all()
    # A texture vertex belongs to one vertex of the mesh: charts are cut along edges, never glued.
    owner = torch.full((len(model.uv),), -1)
    owner[model.uv_triangles.reshape(-1)] = model.triangles.reshape(-1)
    assert torch.equal(owner[model.uv_triangles.reshape(-1)], model.triangles.reshape(-1))


def test_wrong_codes_are_named(model):
    with pytest.raises(ValueError, match="identity must be"):
        model.vertices(torch.zeros(1, 108))
    with pytest.raises(ValueError, match="expression must be"):
        model.vertices(torch.zeros(1, 80), torch.zeros(1, 50))
    with pytest.raises(ValueError, match="shape must be"):
        model.joints(torch.zeros(1, 80))


def test_a_basis_is_built_once_and_read_again(tmp_path, monkeypatch):
    from models.parametric import anny

    source = anny.cache_folder() / f"head-shoulders-{anny.FORMAT}.safetensors"
    load_anny()  # the cut itself must be there
    (tmp_path / source.name).symlink_to(source)
    monkeypatch.setattr(person_basis, "CROWD", 64)
    monkeypatch.setattr(person_basis.build, "__defaults__", (64, 0))
    first = load_person(tmp_path)
    monkeypatch.setattr(person_basis, "build", lambda *_: pytest.fail("built twice"))
    again = load_person(tmp_path)
    torch.testing.assert_close(first.identity_basis, again.identity_basis, atol=0, rtol=0)
    assert again.expression_names == first.expression_names
