"""Votes, ties, disagreement and cleaning; parsing of mirrored crops."""

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from models.parser import Parser, ParserConfig
from ops.perception.guided import guided
from ops.perception.parser import FACE, class_scores, face_place, named, parse
from ops.perception.voting import cleaned, likeliest, majority, shares
from ops.store.parsing import CLASSES, mirrored_classes
from ops.store.pictures import resize

RNG = np.random.default_rng(0)


def test_the_majority_wins_and_of_equals_the_earliest_parser():
    votes = [np.array([[v]], np.uint8) for v in (3, 5, 5)]
    assert majority(votes) == (5, pytest.approx(1 / 3))
    assert majority(votes[:2]) == (3, pytest.approx(0.5))
    assert majority([votes[1], votes[0]]) == (5, pytest.approx(0.5))
    four = [np.array([[v]], np.uint8) for v in (1, 2, 2, 1)]
    assert majority(four)[0] == 1


def test_the_vote_is_that_of_counting():
    votes = [RNG.integers(0, 4, (9, 9)).astype(np.uint8) for _ in range(5)]
    result, lost = majority(votes)
    for y, x in np.ndindex(9, 9):
        named = [int(v[y, x]) for v in votes]
        best = max(named.count(n) for n in named)
        assert result[y, x] == next(n for n in named if named.count(n) == best)
    assert lost == pytest.approx(np.mean([[(v != result).mean()] for v in votes]))
    assert majority([votes[0]])[1] == 0


def test_specks_take_the_class_around_them_and_large_patches_stay():
    classes = np.zeros((40, 40), np.uint8)
    classes[10:30, 10:30] = 1
    wanted = classes.copy()
    classes[15, 15] = classes[2, 2] = 7
    np.testing.assert_array_equal(cleaned(classes, 0.002), wanted)
    assert (cleaned(classes, 0.0) == classes).all()
    np.testing.assert_array_equal(cleaned(wanted, 0.002), wanted)


def test_sides_swap_in_the_mirror():
    swap = mirrored_classes()
    assert (swap[swap] == np.arange(len(CLASSES))).all()
    assert CLASSES[swap[CLASSES.index("left_eye")]] == "right_eye"
    assert sum(swap != np.arange(len(CLASSES))) == 6
    assert shares(np.full((4, 4), 3, np.uint8))[3] == 1


def test_the_parsing_of_the_mirrored_crop_is_the_mirrored_parsing():
    torch.manual_seed(0)
    network = Parser(ParserConfig(side=32, channels=(4, 4, 8, 8))).eval()
    crop = RNG.integers(0, 255, (32, 32, 3), dtype=np.uint8)
    other = np.ascontiguousarray(crop[:, ::-1])
    plain, mirrored = class_scores(crop, network), class_scores(other, network)
    np.testing.assert_allclose(mirrored, plain[::-1][:, mirrored_classes()][..., ::-1], atol=1e-4)
    np.testing.assert_array_equal(parse(other, network), mirrored_classes()[parse(crop, network)[:, ::-1]])
    assert len(np.unique(parse(crop, network))) > 1


class Scripted(torch.nn.Module):
    """Sees nothing but one class in the left half of its pictures, another in the right one."""

    def __init__(self, left, right):
        super().__init__()
        self.classes = (CLASSES.index(left), CLASSES.index(right))

    def forward(self, pictures):
        scores = torch.zeros(len(pictures), len(CLASSES), *pictures.shape[2:])
        half = pictures.shape[-1] // 2
        scores[:, self.classes[0], :, :half] = scores[:, self.classes[1], :, half:] = 9.0
        return scores


def test_the_nearer_look_names_parts_of_the_face_and_the_wider_one_says_what_is_face():
    network = Parser(ParserConfig(side=32, channels=(4, 4, 8, 8), face_side=32)).eval()
    crop = np.zeros((64, 64, 3), np.uint8)
    network.crop = Scripted("skin", "skin")
    network.face = Scripted("left_eye", "right_eye")  # each half's mirror image names the same side
    scores = class_scores(crop, network)
    assert scores.shape == (2, len(CLASSES), 64, 64)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    found = parse(crop, network)
    assert (found[16:48, 17:31] == CLASSES.index("left_eye")).all()
    assert (found[16:48, 33:47] == CLASSES.index("right_eye")).all()
    outside = np.ones((64, 64), bool)
    outside[14:50, 14:50] = False
    assert (found[outside] == CLASSES.index("skin")).all()
    network.crop = Scripted("hair", "hair")
    assert (parse(crop, network) == CLASSES.index("hair")).all()  # no face, whatever the nearer look would say


def test_the_window_about_a_face_stays_in_the_crop():
    share = torch.zeros(20, 20)
    assert face_place(share, 0.5) is None
    share[2:8, 1:7] = 1
    np.testing.assert_allclose(face_place(share, 0.2), [0.2, 0.25])
    np.testing.assert_allclose(face_place(share, 0.5), [0.25, 0.25])
    assert len(FACE) == 10


def test_enlarged_scores_are_those_of_all_classes_at_once():
    for sharpness in (1.0, 30.0):  # of sharp ones most classes are nowhere near
        scores = torch.softmax(sharpness * torch.from_numpy(RNG.normal(size=(19, 12, 12))).float(), 0).numpy()
        resized = cv2.resize(np.moveaxis(scores, 0, -1), (40, 40), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(likeliest(scores, 40), resized.argmax(-1))
        np.testing.assert_array_equal(likeliest(scores - 5, 40), resized.argmax(-1))


def test_cleaning_the_part_that_is_doubtful_is_cleaning_the_whole():
    for cells in (5, 20, 60):
        classes = cv2.resize(RNG.integers(0, 6, (cells, cells)).astype(np.uint8), (60, 60), fx=0, fy=0, interpolation=0)
        sizes = np.zeros(classes.shape)
        for number in range(6):
            patches, _ = ndimage.label(classes == number)
            sizes += np.where(classes == number, np.bincount(patches.ravel())[patches], 0)
        doubtful = sizes < 0.01 * classes.size
        nearest = ndimage.distance_transform_edt(doubtful, return_distances=False, return_indices=True)
        whole = classes if doubtful.all() else classes[tuple(nearest)]
        np.testing.assert_array_equal(cleaned(classes, 0.01), whole)
        assert doubtful.any() == (cells > 5)


def test_a_map_that_is_a_linear_function_of_the_colours_comes_back_at_the_pictures_size():
    picture = cv2.resize(RNG.integers(0, 256, (9, 9, 3)).astype(np.uint8), (96, 96), interpolation=cv2.INTER_CUBIC)

    def linear(colours):
        return (colours / 255 @ [0.5, -0.3, 0.4] + 0.1).astype(np.float32)

    (found,) = guided(linear(resize(picture, 48).astype(np.float32))[None], picture, 1 / 12, 1e-9)
    np.testing.assert_allclose(found, linear(picture.astype(np.float32)), atol=2e-3)
    np.testing.assert_allclose(guided(np.full((2, 48, 48), 0.7, np.float32), picture, 1 / 12, 1e-3), 0.7, atol=1e-4)


def test_a_soft_outline_takes_the_place_of_the_pictures_border():
    y, x = np.mgrid[:128, :128] / 128
    person = np.hypot(x - 0.5, y - 0.5) < 0.3 + 0.03 * np.sin(12 * np.arctan2(y - 0.5, x - 0.5))
    picture = np.where(person[..., None], (200, 120, 90), (60, 90, 160)) + RNG.normal(0, 6, (128, 128, 3))
    soft = cv2.GaussianBlur(cv2.resize(person.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA), (0, 0), 3)
    found = guided(soft[None], picture.clip(0, 255).astype(np.uint8), 1 / 12, 1e-3)[0] > 0.5
    plain = cv2.resize(soft, (128, 128)) > 0.5
    wrong, wrong_before = (found != person).mean(), (plain != person).mean()
    assert wrong_before > 0.01
    assert wrong < 0.2 * wrong_before


def test_within_the_outline_every_pixel_has_one_of_the_persons_classes():
    scores = np.zeros((len(CLASSES), 32, 32), np.float32)
    scores[0, :, :16], scores[1, :, :16] = 0.95, 0.05
    scores[0, :, 16:], scores[1, :, 16:], scores[13, :, 16:] = 0.35, 0.32, 0.33  # no class beats the background alone
    crop = np.where(np.arange(32)[None, :, None] < 16, 40, 220).repeat(32, 0).repeat(3, 2).astype(np.uint8)
    (found,) = named(scores[None], crop)
    assert (found[:, :15] == 0).all()
    assert (found[:, 17:] == 13).all()
