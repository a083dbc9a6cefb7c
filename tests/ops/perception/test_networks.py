"""The embedded networks on a real portrait: what they find is where it is, and turns with the picture."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ops.curate.detect import DetectParams, find_faces
from ops.curate.landmarks import find_landmarks
from ops.perception.facemesh import LEFT_EYE, MOUTH, RIGHT_EYE, region_of_landmarks
from ops.perception.selfie import person_mask
from ops.runtime.errors import LineamentError
from ops.runtime.weights import REGISTRY, require, table

# Of the astronaut's picture, read off by eye.
EYES_AND_MOUTH = {"right eye": (205, 106), "left eye": (247, 106), "mouth": (227, 147)}


def look(image, weights):
    face = find_faces(image, weights, DetectParams())[0]
    return face, *find_landmarks(image, face.box, face.points, weights, 1)


def test_landmarks_lie_on_eyes_and_mouth(astronaut, weights):
    face, points, score = look(astronaut, weights)
    assert score > 0.9
    for name, corners in (("right eye", RIGHT_EYE), ("left eye", LEFT_EYE), ("mouth", MOUTH)):
        assert np.hypot(*(points[list(corners), :2].mean(0) - EYES_AND_MOUTH[name])) < 8, name
    x0, y0, x1, y1 = face.box
    assert x0 < 227 < x1
    assert y0 < 120 < y1


@pytest.mark.parametrize("degrees", [-25, 30])
def test_landmarks_turn_with_the_picture(astronaut, weights, degrees):
    matrix = cv2.getRotationMatrix2D((227, 120), degrees, 1.0)
    turned = cv2.warpAffine(astronaut, matrix, (512, 512))
    _, upright, _ = look(astronaut, weights)
    _, found, _ = look(turned, weights)
    expected = upright[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    eyes = np.hypot(*(upright[263, :2] - upright[33, :2]))
    assert np.hypot(*(found[:, :2] - expected).T).mean() < 0.05 * eyes


def test_the_region_of_landmarks_turns_and_grows_with_them():
    points = np.random.default_rng(0).normal(size=(468, 2)) * 30 + 200
    points[33], points[263] = (150, 200), (250, 200)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    before, after = region_of_landmarks(points), region_of_landmarks(2 * points @ turn.T + [5, 7])
    np.testing.assert_allclose(after.centre, 2 * turn @ before.centre + [5, 7], atol=1e-9)
    assert after.side == pytest.approx(2 * before.side)
    assert after.angle == pytest.approx(before.angle + np.arctan2(0.6, 0.8))


def test_a_small_face_in_a_large_picture_is_found(astronaut, weights):
    canvas = np.full((700, 800, 3), 90, np.uint8)
    canvas[300:556, 400:656] = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    _, points, score = look(canvas, weights)
    assert score > 0.5
    assert np.hypot(*(points[list(MOUTH), :2].mean(0) - (400 + 227 / 2, 300 + 147 / 2))) < 8


def test_no_face_in_noise(weights):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    assert find_faces(noise, weights, DetectParams()) == []


def test_the_mask_holds_the_face_and_not_the_corner(astronaut, weights):
    mask = person_mask(astronaut, weights, 128)
    assert mask.shape == (128, 128)
    assert mask[30, 57] > 200
    assert 0.2 < mask.mean() / 255 < 0.8


def test_every_absent_network_names_its_source_and_what_does_without_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for weight in REGISTRY:
        if weight.origin == "package":
            assert require(weight.name).is_file()
            continue
        with pytest.raises(LineamentError, match=weight.source.split("==")[0].split("(")[0]):
            require(weight.name)
        assert weight.origin == "wheel" or weight.fallback
    assert all(weight.name in table() for weight in REGISTRY)


def test_what_no_code_reads_is_said_to_be_unread(tmp_path, monkeypatch):
    """Every other name, or the kind of model that it is converted by, stands in the code that asks for it."""
    root = Path(__file__).parents[3] / "ops"
    code = "\n".join(path.read_text() for path in root.rglob("*.py") if path != root / "runtime/weights.py")
    kinds = {"bfm2009": "bfm", "faceverse_v3": "faceverse", "bisenet_parsing": "voters"}
    silent = [w.name for w in REGISTRY if not w.unread and f'"{kinds.get(w.name, w.name)}"' not in code]
    assert set(silent) <= {"bisenet_parsing"}  # any parser: its file is named in parse.voters
    monkeypatch.chdir(tmp_path)
    said = table().split("\niris ")[1].split("\nblazepose_detection ")[0]
    assert "no code reads it yet" in said
    assert "no code reads it yet" not in table().split("lightcnn29 ")[1].split("\narcface")[0]


def test_a_changed_file_is_refused(tmp_path, weights):
    data = bytearray((weights / "face_landmark.tflite").read_bytes())
    data[1000] ^= 1
    (tmp_path / "face_landmark.tflite").write_bytes(data)
    with pytest.raises(LineamentError, match="is pinned"):
        require("facemesh", tmp_path)
