"""The animatable generators' game: who learns from what, what is shown beside the pictures, what follows the data."""

import pytest
import torch
from tiny_avatar import SIDE, build, faces, moment, person, real

from models.avatar import AvatarConfig
from models.next3d import Next3DConfig
from ops.runtime.errors import LineamentError
from ops.train.objective import Draws
from ops.train.objectives.avatar import AvatarTraining, Next3DParams, _liveliest, check_variant, model_of, plan_of

VARIANTS = ["avatar", "next3d"]


def parameters(module):
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def silent(loss, module):
    """Names of the weights that a loss does not reach."""
    module.zero_grad(set_to_none=True)
    loss.backward()
    return {name for name, p in parameters(module).items() if p.grad is None or not p.grad.any()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_term_reaches_its_own_networks(variant):
    objective = build(variant)
    g, d = objective.generator, objective.discriminator
    assert silent(objective.fool(real(), moment())[0], g) == set()
    left = silent(objective.smooth_density(real(), moment())[0], g)
    assert {name.split(".")[0] for name in left} == {"superresolution"}
    assert silent(objective.judge(real(), moment())[0], d) == set()
    assert "out.weight" not in silent(objective.penalise(real(), moment())[0], d)
    g.zero_grad(set_to_none=True)
    objective.judge(real(), moment())[0].backward()
    objective.penalise(real(), moment())[0].backward()
    assert not any(p.grad is not None for p in g.parameters())


@pytest.mark.parametrize(("variant", "channels"), [("avatar", 7), ("next3d", 9)])
def test_pictures_are_judged_beside_the_drawing_of_their_own_face(variant, channels):
    objective, stacks = build(variant, label_noise=0.0), []
    objective.discriminator.forward = lambda stack, label: stacks.append((stack, label)) or stack.mean((1, 2, 3))
    batch = real()
    objective.fool(batch, moment())
    objective.judge(batch, moment())
    assert len(stacks) == 3
    draw = objective.mesh.contours if variant == "avatar" else objective.mesh.rendering
    drawn = draw(batch["identity"], batch["expression"], batch["camera"], SIDE)
    for stack, label in stacks:
        assert stack.shape == (4, channels, SIDE, SIDE)
        assert torch.equal(stack[:, 6:], drawn)
        assert torch.equal(label, batch["camera"])
    assert torch.equal(stacks[-1][0][:, :3], batch["image"])


def test_next3d_is_told_cameras_a_little_wrongly():
    objective, told = build("next3d"), []
    objective.discriminator.forward = lambda stack, label: told.append(label) or stack.mean((1, 2, 3))
    batch = real(64)
    objective.logits(objective.real(batch, moment()), objective.draw_faces(batch), batch["camera"], moment())
    error, spread = told[0] - batch["camera"], batch["camera"].std(0, unbiased=False)
    moving = spread > 1e-4
    assert (error / spread)[:, moving].std().item() == pytest.approx(1, abs=0.1)
    assert error[:, ~moving].abs().max() < 1e-4


def test_another_expression_is_another_picture_of_the_same_head():
    objective = build()
    found = faces(1)
    other = found.expression.clone()
    other[0, person().expression_names.index("jawOpen")] = 1.0
    z = torch.randn(1, 6)
    networks = {"generator": objective.generator.eval()}
    shown = [
        objective._show(networks, z, found.identity, expression, found.camera, found.camera)
        for expression in (found.expression, found.expression, other)
    ]
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])


@pytest.mark.parametrize(("swap", "expected"), [(0.0, 0), (1.0, 4)])
def test_the_mapping_is_told_another_camera_with_the_declared_chance(swap, expected):
    batch = real()
    _, told = build()._latents(batch, moment(swap=swap))
    assert int((told != batch["camera"]).any(dim=1).sum()) == expected


def test_rays_are_as_many_as_the_phase_says():
    objective = build()
    assert objective.render(real(), moment(neural_resolution=8)).raw.shape[-1] == 8
    assert objective.real(real(), moment(neural_resolution=8)).raw.shape[-1] == 8
    assert objective.render(real(), moment()).raw.shape[-1] == 16


def test_phases_and_curves_are_the_papers():
    plan = plan_of(AvatarTraining(), AvatarConfig())
    assert plan.at(0) == ("coarse", {"neural_resolution": 64, "swap": 1.0, "blur": 10.0})
    assert plan.at(12_500_000) == ("fine", {"neural_resolution": 128, "swap": 0.8, "blur": 0.0})
    assert plan.at(100_000)[1]["blur"] == 5.0
    assert plan_of(AvatarTraining(), Next3DConfig()).at(20_000_000)[1]["neural_resolution"] == 64
    assert (build().r1, build("next3d").r1) == (8, 4)
    assert build("next3d", r1=1.0).r1 == 1


def test_next3d_takes_the_sizes_of_the_other_and_has_orthogonal_planes():
    model = AvatarConfig(plane_resolution=64, plane_axes="eg3d", plane_channels=8)
    found = model_of(model, Next3DParams(mouth_side=16), "next3d")
    assert isinstance(found, Next3DConfig)
    assert (found.plane_resolution, found.plane_channels, found.mouth_side) == (64, 8, 16)
    assert found.plane_axes == "orthogonal"
    assert model_of(model, Next3DParams(), "avatar") is model


def test_unknown_variants_are_named():
    with pytest.raises(LineamentError, match="no animatable generator 'next2d'; choose avatar or next3d"):
        check_variant("next2d")


@pytest.mark.parametrize("variant", VARIANTS)
def test_reused_heads_are_those_the_generator_learnt_from(variant, monkeypatch):
    objective = build(variant, reuse=True)
    objective.fool(real(), moment())
    monkeypatch.setattr(objective, "render", None)
    objective.judge(real(), moment())
    assert not objective._made
    objective._made.append((None, None))
    objective.after(moment())
    assert not objective._made


def test_r1_leaves_the_drawing_alone_and_is_half_gamma_of_the_others():
    objective, batch = build(r1=3.0, r1_every=4), real()
    shown, drawn = objective.real(batch, moment()), objective.draw_faces(batch)
    leaves = [shown.image.clone().requires_grad_(), shown.raw.clone().requires_grad_()]
    logits = objective.logits(type(shown)(*leaves), drawn, batch["camera"], moment())
    expected = sum(g.square().sum() for g in torch.autograd.grad(logits.sum(), leaves)) / 4
    loss, named = objective.penalise(batch, moment())
    torch.testing.assert_close(named["r1"], expected)
    torch.testing.assert_close(loss, 1.5 * 4 * expected)


def test_the_grid_has_a_person_a_row_and_pictures_are_drawn_from_the_data():
    objective = build()
    assert isinstance(objective, Draws)
    networks = {name: m.eval() for name, m in objective.networks.items()}
    with torch.no_grad():
        grid = [objective.sample(networks, 2, 5, torch.Generator().manual_seed(3)) for _ in range(2)]
        parts = list(objective.draw(networks, 5, torch.Generator().manual_seed(0)))
    assert grid[0].shape == (10, 3, SIDE, SIDE)
    assert torch.equal(*grid)
    assert sum(len(images) for images, _ in parts) == 5
    labels = torch.cat([label for _, label in parts])
    assert all((objective.faces.camera == label).all(1).any() for label in labels)


def test_the_grids_expressions_are_unlike_each_other():
    flat = torch.zeros(6, 2)
    flat[:, 0] = torch.tensor([0.0, 0.1, 0.9, 1.0, 0.2, 0.5])
    assert _liveliest(flat, 3).tolist() == [0, 3, 5]
