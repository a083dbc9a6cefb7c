"""Lessons, and the networks that learn on them: true squares, windows with true answers, honest errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

from models.coefficients import Coefficients, CoefficientsConfig
from models.parametric.person import load_person
from ops.curate.crop import from_crop, quad_side, square_quad
from ops.curate.lessons import FACES_HELD_OUT, FACES_TRAIN, FIRST, HELD_OUT, TRAIN
from ops.curate.lessons import main as lessons_main
from ops.perception.headpose import MIRROR, Head
from ops.perception.trained import coefficients as trained_coefficients
from ops.perception.trained import parser
from ops.runtime.errors import LineamentError
from ops.store.parsing import CLASSES
from ops.train import coefficients, coefficients_start
from ops.train.coefficients import MILLIMETRES, Mirror, code_weights, codes_of, landmark_basis
from ops.train.coefficients import measure as measure_codes
from ops.train.headpose import TrainHeadposeParams, answer, draw, draw_window, measure
from ops.train.lessons import NOBODY, Lesson, head_quad, read_lessons, spoil, to_tensor
from ops.train.parser import OPEN, Pictures, class_weights, misfit
from ops.train.parser import main as parser_main

PARAMS = {
    "lessons": {"people": 3, "held_out": 1, "views": 3, "faces": 2, "size": 64, "sceneries": 0.4, "seed": 5},
    "train_coefficients": {
        "windows": 8,
        "side": 32,
        "learning": {"steps": 4, "batch": 4, "threads": 1},
    },
    "train_parser": {
        "learning": {"steps": 6, "batch": 4, "threads": 1},
        "model": {"side": 32, "channels": [4, 4, 8, 8]},
    },
}


@pytest.fixture(scope="module")
def lessons(tmp_path_factory):
    """A folder with the lessons of three people."""
    folder = tmp_path_factory.mktemp("lessons")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LINEAMENT_WORKERS", "1")
        words = ["lessons", "--metrics", "lessons.json", "--preview", "lessons.png"]
        assert lessons_main(words) == 0
    return folder


def test_people_are_either_taught_or_held_out(lessons):
    taught, _ = read_lessons(lessons / "lessons" / TRAIN)
    held, _ = read_lessons(lessons / "lessons" / HELD_OUT)
    people = [{lesson.truth["identity"] for lesson in part if lesson.head} for part in (taught, held)]
    assert people == [{1, 2}, {0}]
    assert sum(not lesson.head for lesson in taught + held) > 0
    assert json.loads((lessons / "lessons.json").read_text())["pictures"] == {
        "train": len(taught),
        "held_out": len(held),
        "faces_train": 4,
        "faces_held_out": 2,
    }
    assert FIRST > 100_000  # no crawl has so many people: theirs begin at 0


def test_faces_come_with_their_codes_and_from_about_the_front(lessons):
    faces = [read_lessons(lessons / "lessons" / part)[0] for part in (FACES_TRAIN, FACES_HELD_OUT)]
    assert [{face.truth["identity"] for face in part} for part in faces] == [{1, 2}, {0}]
    for face in faces[0] + faces[1]:
        identity, expression = codes_of(face)
        assert (identity.shape, expression.shape) == ((80,), (52,))
        assert 0 <= expression.min() <= expression.max() <= 1
        assert identity.any()
        assert abs(face.truth["azimuth"]) < 120
    one, two = (codes_of(face) for face in faces[1])
    np.testing.assert_array_equal(one[0], two[0])  # the same person
    assert (one[1] != two[1]).any()


def test_readers_of_codes_are_taught_each_on_people_of_its_own(lessons, weights, monkeypatch, capsys):
    monkeypatch.chdir(lessons)
    taught = []
    original = coefficients.look_ahead

    def watch(s, network, draw, *rest, **more):
        taught.append({lesson.truth["identity"] for lesson in draw.args[0]})
        return original(s, network, draw, *rest, **more)

    monkeypatch.setattr(coefficients, "look_ahead", watch)
    assert coefficients_start.START.is_file()
    for role in coefficients.ROLES:
        words = ["lessons", str(weights), role, "--role", role, "--metrics", f"{role}.json", "--preview", "codes.png"]
        assert coefficients.main(words) == 0
    assert taught == [{2}, {1}]
    assert Path("teacher/network.safetensors").read_bytes() != Path("judge/network.safetensors").read_bytes()
    held_out = json.loads(Path("judge.json").read_text())["held_out"]
    assert held_out["pictures"] == 2
    assert held_out["landmarks_mm"] > 0
    assert len(held_out["units"]) == held_out["expression_units"]
    network = trained_coefficients(Path("judge"))
    assert not network.training
    identity, expression = network(torch.zeros(1, 3, 20, 20))
    assert (identity.shape, expression.shape) == ((1, 80), (1, 52))
    assert coefficients.main(["lessons", str(weights), "other", "--role", "pupil"]) == 1
    assert "no role 'pupil'" in capsys.readouterr().err


def test_mirrored_codes_make_the_mirrored_face():
    people = load_person()
    mirror = Mirror.of(people)
    rng = np.random.default_rng(0)
    identity, expression = rng.normal(size=80).astype(np.float32), rng.random(52).astype(np.float32) * 0.5
    other = [torch.from_numpy(np.asarray(code, np.float32))[None] for code in mirror.codes(identity, expression)]
    flipped = people.vertices(*other)[0, people.mirror] * torch.tensor([-1.0, 1.0, 1.0])
    face = people.vertices(torch.from_numpy(identity)[None], torch.from_numpy(expression)[None])[0]
    apart = (flipped - face)[people.head_share > 0.99].norm(dim=-1)
    assert apart.mean() * MILLIMETRES < 0.5, "half a millimetre"
    twice = mirror.codes(*mirror.codes(identity, expression))
    np.testing.assert_allclose(twice[0], identity, atol=0.15)
    np.testing.assert_array_equal(twice[1], expression)


def test_a_reader_is_measured_beside_the_mean_face():
    basis = landmark_basis(load_person())
    g = torch.Generator().manual_seed(0)
    true = torch.cat([torch.randn(30, 80, generator=g), torch.rand(30, 52, generator=g)], dim=1)
    middle = true.mean(0)
    names = load_person().expression_names
    right, mean = (measure_codes(true, found, middle, basis, names) for found in (true, middle.expand_as(true)))
    assert right["expression_correlation"] == pytest.approx(1)
    assert (right["landmarks_mm"], right["identity_error"]) == (0, 0)
    assert right["landmarks_mm_mean_face"] == mean["landmarks_mm"] > 1
    assert abs(mean["expression_correlation"]) < 1e-3


def test_a_head_lies_in_its_square_and_nothing_of_it_far_outside(lessons):
    for lesson in read_lessons(lessons / "lessons" / TRAIN)[0]:
        if not lesson.head:
            assert (lesson.classes == 0).all()
            continue
        quad = head_quad(lesson.truth, 64)
        inner = from_crop(np.stack(np.meshgrid([0.35, 0.5, 0.65], [0.35, 0.5, 0.65]), -1).reshape(-1, 2), quad)
        x, y = np.clip(inner, 0, 63).astype(int).T
        assert (lesson.classes[y, x] > 0).mean() > 0.85
        face = np.isin(
            lesson.classes, [CLASSES.index(n) for n in ("skin", "nose", "left_eye", "right_eye", "upper_lip")]
        )
        rows, columns = np.nonzero(face)
        if len(rows):
            middle = np.array([lesson.truth["x"], lesson.truth["y"]]) * 64
            assert np.hypot(columns - middle[0], rows - middle[1]).max() < 0.85 * quad_side(quad)


def lesson_at(x=0.5, y=0.4, side=0.3, azimuth=40.0, elevation=10.0, roll=8.0):
    truth = {"identity": 1, "x": x, "y": y, "side": side, "azimuth": azimuth, "elevation": elevation, "roll": roll}
    return Lesson(np.zeros((100, 100, 3), np.uint8), np.ones((100, 100), np.uint8), truth)


def test_the_answer_is_where_the_head_is_in_the_window():
    quad = square_quad(np.array([45.0, 48.0]), 50.0, np.deg2rad(20.0))
    there, x, y, size, sin, cos, elevation, roll = answer(lesson_at(), quad)
    np.testing.assert_allclose(from_crop(np.array([x, y]) + 0.5, quad), [50, 40], atol=1e-4)
    assert there == 1
    assert np.exp(size) * 50 == pytest.approx(30, rel=1e-5)
    assert np.rad2deg([np.arctan2(sin, cos), elevation, roll]) == pytest.approx([40, 10, -12], abs=1e-4)
    assert answer(lesson_at(x=1.2), quad)[0] == 0


def test_the_answer_of_a_mirrored_window_is_the_mirrored_answer():
    rng = np.random.default_rng(0)
    for _ in range(10):
        lesson = lesson_at(*rng.uniform(0.3, 0.7, 2), 0.3, *rng.uniform(-30, 30, 3))
        quad = draw_window(lesson, rng)
        t = lesson.truth
        other = lesson_at(1 - t["x"], t["y"], t["side"], -t["azimuth"], t["elevation"], -t["roll"])
        mirrored = (quad * [-1, 1] + [100, 0])[[3, 2, 1, 0]]
        np.testing.assert_allclose(answer(other, mirrored), answer(lesson, quad) * MIRROR, atol=1e-5)


def test_windows_and_spoiling_depend_on_the_seed_alone(lessons):
    taught, _ = read_lessons(lessons / "lessons" / TRAIN)
    runs = []
    for _ in range(2):
        rng = np.random.default_rng(1)
        windows, answers = zip(*(draw(taught, TrainHeadposeParams(), rng) for _ in range(6)))
        runs.append((spoil(to_tensor(list(windows)), rng, cover=0.5), np.stack(answers)))
    assert torch.equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
    assert runs[0][0].abs().max() <= 1


def test_errors_are_measured_round_the_circle():
    lesson = lesson_at(azimuth=175.0, roll=0.0)
    head = Head(np.array([50.0, 43.0]), 30.0, 2.0, -175.0, 10.0, 0.9, 1.0)
    numbers = measure([lesson], [head])
    assert (numbers["azimuth_mean"], numbers["azimuth_median_back"], numbers["roll_mean"]) == (10, 10, 2)
    assert numbers["centre_mean"] == pytest.approx(0.1)
    assert (numbers["seen"], numbers["nobody_rejected"], numbers["azimuth_median_front"]) == (1, None, None)


def test_rare_classes_weigh_more():
    lesson = lesson_at()
    lesson.classes[:50] = 13
    lesson.classes[0, :10] = 4
    weights = class_weights([lesson], 0.5)
    assert weights[4] > weights[1] > 0
    assert float(weights[13] / weights[1]) == pytest.approx(np.sqrt(5000 / 4990), rel=1e-4)


def test_open_mouths_are_looked_at_as_often_as_asked():
    mute, open_mouth, nobody = lesson_at(), lesson_at(), lesson_at()
    open_mouth.classes[50, 40:50] = OPEN
    nobody.truth["identity"] = NOBODY
    pictures = Pictures.sorted([mute] * 9 + [nobody], [open_mouth])
    assert len(pictures.heads) == 9
    rng = np.random.default_rng(0)
    for share, low, high in ((0.0, 0.05, 0.15), (0.5, 0.5, 0.6)):  # one in ten of the others has one too
        drawn = [pictures.one(rng, near=True, mouths=share) is open_mouth for _ in range(2000)]
        assert low < np.mean(drawn) < high
    assert not any(pictures.one(rng, near=False, mouths=1.0) is open_mouth for _ in range(20))
    assert Pictures.sorted([mute], []).one(rng, near=True, mouths=1.0) is mute


def test_the_misfit_of_a_parsing_is_cross_entropy_and_the_mean_overlap_of_its_classes():
    torch.manual_seed(0)
    logits = torch.randn(2, 19, 6, 6, requires_grad=True)
    wanted, weights = torch.randint(0, 5, (2, 6, 6)), torch.rand(19) + 0.5
    share, true = logits.detach().softmax(1), F.one_hot(wanted, 19).movedim(-1, 1).float()
    dice = [
        float((2 * (share[:, c] * true[:, c]).sum() + 1) / (share[:, c].sum() + true[:, c].sum() + 1)) for c in range(5)
    ]
    plain = F.cross_entropy(logits, wanted, weight=weights)
    assert float(misfit(logits, wanted, weights, 0.0).detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    both = float(misfit(logits, wanted, weights, 2.0).detach())
    assert both == pytest.approx(float(plain.detach()) + 2 * (1 - np.mean(dice)), rel=1e-5)
    few, there = torch.randn(1, 19, 2, 2, dtype=torch.float64, requires_grad=True), wanted[:1, :2, :2]
    assert torch.autograd.gradcheck(lambda x: misfit(x, there, weights.double(), 1.0), few)


def test_a_parser_is_taught_published_and_loaded(lessons, monkeypatch):
    monkeypatch.chdir(lessons)
    files = []
    for out in ("parser", "again"):
        assert parser_main(["lessons", out, "--metrics", "parser.json", "--preview", "parser.png"]) == 0
        files.append({path.name: path.read_bytes() for path in Path(out).iterdir()})
    assert files[0] == files[1]
    assert not parser(Path("parser")).training
    held_out = json.loads(Path("parser.json").read_text())["held_out"]
    assert held_out["pictures"] == 3
    assert 0 <= held_out["mean_iou"] <= held_out["right"] <= 1


def test_a_folder_without_people_is_named(lessons, tmp_path):
    with pytest.raises(LineamentError, match="no such folder"):
        read_lessons(tmp_path / "none")


def test_every_reader_starts_from_its_own_part_of_the_file_or_from_nothing():
    readers = [Coefficients(CoefficientsConfig()) for _ in coefficients.ROLES]
    before = readers[0].trunk[0].conv.weight.clone()
    for reader, role in zip(readers, coefficients.ROLES):
        assert coefficients_start.fill(reader, role)
    assert torch.equal(readers[0].trunk[0].conv.weight, before)
    assert not torch.equal(readers[0].expression[-1].weight, readers[1].expression[-1].weight)
    assert (readers[0].width[80:] > 0.05).sum() > 20  # units that it was taught
    other = Coefficients(CoefficientsConfig(expression=64))
    width = other.width.clone()
    assert not coefficients_start.fill(other, "teacher")
    assert torch.equal(other.width, width)


def test_codes_that_never_change_weigh_nothing():
    reader = Coefficients(CoefficientsConfig())
    basis = landmark_basis(load_person())
    reader.width[:] = 0.5
    reader.width[3] = reader.width[90] = 0
    weight = code_weights(reader, basis)
    assert weight[[3, 90]].tolist() == [0, 0]
    assert weight[0] > 3 * weight[40] > 0  # the first component moves landmarks most
    assert weight[80:][reader.width[80:] > 0].mean() == pytest.approx(1, abs=0.05)
