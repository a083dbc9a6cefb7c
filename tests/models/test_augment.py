"""Adaptive augmentation: nothing at p = 0, what each transformation does, two derivatives, and the feedback."""

import math

import pytest
import torch

from models.augment import Augment, AugmentConfig, draw_colour, draw_geometry, warp
from models.augment import _Draw as Draw
from models.camera import check_label, intrinsics, mirror_label, pack_label, pose_on_sphere

NOTHING = {
    "flip": False, "quarter_turns": False, "shift": 0.0, "scale": 0.0, "turn": 0.0, "stretch": 0.0, "slide": 0.0,
    "brightness": 0.0, "contrast": 0.0, "luma_flip": False, "hue": 0.0, "saturation": 0.0,
}  # fmt: skip


def labels(n):
    azimuth = torch.linspace(-1, 1, n)
    return pack_label(pose_on_sphere(azimuth, 0.1 * azimuth), intrinsics())


def pictures(n=6, channels=7, side=8):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def only(p=1.0, mirrored=None, **changes):
    return Augment(AugmentConfig(**{**NOTHING, **changes}), mirrored, p)


def draw(n, p=1.0):
    return Draw(n, torch.tensor(p), torch.Generator().manual_seed(3), torch.device("cpu"))


def affine(matrix, n=1):
    return torch.tensor(matrix, dtype=torch.float32).expand(n, 3, 3)


def test_nothing_changes_at_probability_zero():
    x, label = pictures(), labels(6)
    out, told = Augment(AugmentConfig())(x, label, pictures=2)
    torch.testing.assert_close(out, x, atol=1e-6, rtol=0)
    assert torch.equal(told, label)


def test_reading_where_a_pixel_is_gives_the_pixel():
    x = pictures()
    assert torch.equal(warp(x, affine(torch.eye(3).tolist(), 6)), x)
    assert torch.equal(warp(x, affine([[-1, 0, 0], [0, 1, 0], [0, 0, 1]], 6)), x.flip(-1))
    assert torch.equal(warp(x, affine([[0, -1, 0], [1, 0, 0], [0, 0, 1]], 6)), x.rot90(1, (2, 3)))
    assert torch.equal(warp(x, affine([[1, 0, 2], [0, 1, -1], [0, 0, 1]], 6))[..., 1:, :-2], x[..., :-1, 2:])


def test_beyond_the_border_pictures_are_reflected():
    x = torch.arange(4.0).expand(1, 1, 4, 4)
    shifted = warp(x, affine([[1, 0, 3], [0, 1, 0], [0, 0, 1]]))[0, 0, 0]
    assert shifted.tolist() == [3, 3, 2, 1]
    far = warp(x, affine([[1, 0, -9], [0, 1, 0], [0, 0, 1]]))[0, 0, 0]  # places -9 to -6 of ... 3 2 1 0 | 0 1 2 3
    assert far.tolist() == [0, 0, 1, 2]


def test_reading_between_pixels_is_that_of_grid_sample():
    x = pictures(channels=3)
    angle, size = 0.4, 0.6  # stays within the picture
    c, s = size * math.cos(angle), size * math.sin(angle)
    matrix = affine([[c, -s, 0.3], [s, c, -0.2], [0, 0, 1]], 6)
    theta = matrix[:, :2].clone()
    theta[:, :, 2] *= 2 / 8
    grid = torch.nn.functional.affine_grid(theta, x.shape, align_corners=False)
    expected = torch.nn.functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    torch.testing.assert_close(warp(x, matrix), expected, atol=1e-5, rtol=1e-4)


def test_mirrored_pictures_get_mirrored_labels_and_channels():
    x, label = pictures(n=40), labels(40)
    out, told = only(flip=True, mirrored=[0, 1, 2, 3, 4, 6, 5])(x, label)
    flipped = (told != label).any(1)
    assert 10 < int(flipped.sum()) < 30
    assert torch.equal(out[~flipped], x[~flipped])
    assert torch.equal(told[flipped], mirror_label(label[flipped]))
    assert torch.equal(out[flipped], x[flipped][:, [0, 1, 2, 3, 4, 6, 5]].flip(-1))
    check_label(told)


def test_only_flips_touch_labels():
    config = {**AugmentConfig().model_dump(), "flip": False}
    _, told = Augment(AugmentConfig(**config), p=1.0)(pictures(), labels(6))
    assert torch.equal(told, labels(6))


def test_pictures_are_coloured_alike_and_masks_not_at_all():
    x = pictures(channels=7)
    x[:, 3:6] = x[:, :3]
    out, _ = only(brightness=0.2, contrast=0.5, luma_flip=True, hue=1.0, saturation=1.0)(x, labels(6), pictures=2)
    assert torch.equal(out[:, :3], out[:, 3:6])
    assert torch.equal(out[:, 6], x[:, 6])
    assert (out[:, :3] - x[:, :3]).abs().max() > 0.1


def test_each_colour_change_keeps_what_it_should():
    grey = torch.tensor([0.3, 0.3, 0.3, 1.0])
    colour = torch.tensor([0.9, 0.1, -0.4, 1.0])
    hue = draw_colour(AugmentConfig(**{**NOTHING, "hue": 1.0}), draw(50))
    torch.testing.assert_close(hue @ grey, grey.expand(50, 4))
    torch.testing.assert_close((hue @ colour)[:, :3].norm(dim=1), colour[:3].norm().expand(50))
    saturation = draw_colour(AugmentConfig(**{**NOTHING, "saturation": 1.0}), draw(50))
    torch.testing.assert_close(saturation @ grey, grey.expand(50, 4))
    torch.testing.assert_close((saturation @ colour)[:, :3].mean(1), colour[:3].mean().expand(50))
    luma = draw_colour(AugmentConfig(**{**NOTHING, "luma_flip": True}), draw(50))
    turned = (luma @ grey)[:, 0]
    assert set(turned.mul(10).round().tolist()) == {-3, 3}
    brightness = draw_colour(AugmentConfig(**{**NOTHING, "brightness": 0.2}), draw(2000)) @ colour - colour
    torch.testing.assert_close(brightness[:, 0], brightness[:, 2])
    assert float(brightness[:, 0].std()) == pytest.approx(0.2, rel=0.1)
    contrast = (draw_colour(AugmentConfig(**{**NOTHING, "contrast": 0.5}), draw(2000)) @ colour)[:, 0] / 0.9
    assert float(contrast.log2().std()) == pytest.approx(0.5, rel=0.1)


def test_quarter_turns_and_whole_shifts_only_move_pixels():
    x = pictures(n=30, channels=3)
    out, _ = only(quarter_turns=True)(x, labels(30))
    for before, after in zip(x, out):
        assert any(torch.equal(before.rot90(k, (1, 2)), after) for k in range(4))
    assert sum(not torch.equal(a, b) for a, b in zip(x, out)) > 15
    matrix, _ = draw_geometry(AugmentConfig(**{**NOTHING, "shift": 0.125}), draw(100), 16)
    assert torch.equal(matrix, matrix.round())
    assert set(matrix[:, 0, 2].tolist()) == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_each_picture_is_transformed_with_the_probability(p):
    n = 4000
    for name in ("scale", "stretch", "slide"):
        matrix, _ = draw_geometry(AugmentConfig(**{**NOTHING, name: 0.2}), draw(n, p), 64)
        share = (matrix != torch.eye(3)).flatten(1).any(1).float().mean()
        assert float(share) == pytest.approx(p, abs=0.03)
    matrix, _ = draw_geometry(AugmentConfig(**{**NOTHING, "turn": 1.0}), draw(n, p), 64)
    share = (matrix - torch.eye(3)).abs().flatten(1).amax(1) > 1e-6
    assert float(share.float().mean()) == pytest.approx(p, abs=0.03), "both rotations together"


def test_transformations_do_not_shift_pictures_in_the_mean():
    """Over many draws the middle of a picture stays in the middle, and grey stays grey."""
    config = AugmentConfig(**{**AugmentConfig().model_dump(), "luma_flip": False, "contrast": 0.0})
    matrix, flipped = draw_geometry(config, draw(20000, 0.5), 64)
    assert matrix[:, :2, 2].mean(0).abs().max() < 0.3  # pixels of 64
    assert float(flipped.float().mean()) == pytest.approx(0.25, abs=0.02)
    mean = (draw_colour(config, draw(20000, 0.5)) @ torch.tensor([0.3, 0.3, 0.3, 1.0])).mean(0)
    torch.testing.assert_close(mean[:3], torch.full((3,), 0.3), atol=0.01, rtol=0)


def test_all_of_it_differentiates_twice():
    augment = Augment(AugmentConfig(), p=1.0).double()
    x = pictures(n=2, channels=4, side=4).double().requires_grad_()
    label = labels(2).double()

    def curved(x):
        random = torch.Generator().manual_seed(1)
        return augment(x, label, generator=random)[0].pow(3).sum((1, 2, 3))

    assert torch.autograd.gradcheck(curved, (x,))
    assert torch.autograd.gradgradcheck(curved, (x,))


def test_generated_and_real_pictures_get_the_same_for_the_same_random_numbers():
    augment = Augment(AugmentConfig(), p=0.8)
    first, second = (augment(pictures(), labels(6), 2, torch.Generator().manual_seed(5))[0] for _ in range(2))
    assert torch.equal(first, second)


def test_probability_follows_the_sign_of_the_real_logits():
    augment = Augment(AugmentConfig(every=2, images=1000))
    for sign, p in ((1.0, 0.0), (1.0, 0.2), (0.9, 0.2), (0.7, 0.4), (0.1, 0.4), (0.5, 0.2)):
        augment.learn(torch.tensor(sign), 100)
        assert float(augment.p) == pytest.approx(p)
    for _ in range(20):
        augment.learn(torch.tensor(-1.0), 100)
    assert augment.p == 0
    state = augment.state_dict()
    assert set(state) == {"p", "signs", "seen"}
