"""WHENet, 3DDFA_V2 and DeepLabV3 of the user, played by ONNX files of a few nodes with their interfaces."""

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from models import camera as geometry
from ops.curate import camera, seeing, segment
from ops.curate.camera import CameraParams, canonical_points, place_camera, solve_camera
from ops.curate.crop import from_crop, square_quad
from ops.curate.heads import HeadsParams
from ops.curate.labelling import FILES, Sample
from ops.curate.segment import SegmentParams
from ops.perception import deeplab, tddfa, whenet
from ops.perception.headpose import Head
from ops.runtime.errors import LineamentError
from ops.store import pictures

from .tiny_onnx import model, node

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, (160, 200, 3), dtype=np.uint8)


def answers(path: Path, side: int, *rows: np.ndarray) -> Path:
    """A network that says the same of every picture: the rows, plus nothing times the picture."""
    nodes = [
        node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    nodes += [node("Add", ["nothing", f"rows{n}"], [f"y{n}"]) for n in range(len(rows))]
    constants = {"zero": np.zeros(1)} | {f"rows{n}": np.asarray(row, np.float32) for n, row in enumerate(rows)}
    outputs = {f"y{n}": np.shape(row) for n, row in enumerate(rows)}
    path.write_bytes(model(nodes, constants, {"x": (1, 3, side, side)}, outputs))
    return path


def peaked(count: int, degrees: float) -> np.ndarray:
    """(1, count) scores whose mean by softmax is an angle: two neighbouring classes share it."""
    place = degrees / 3 + count / 2
    low = int(place)
    scores = np.full((1, count), -60.0)
    scores[0, low], scores[0, low + 1] = np.log(max(1 - (place - low), 1e-9)), np.log(max(place - low, 1e-9))
    return scores


def scripted(path: Path, yaw: float, pitch: float, roll: float) -> Path:
    return answers(path, whenet.SIDE, peaked(120, yaw), peaked(66, pitch), peaked(66, roll))


def test_whenets_classes_are_angles(tmp_path):
    path = scripted(tmp_path / "w.onnx", 131.0, -14.0, 7.0)
    crop = np.zeros((whenet.SIDE, whenet.SIDE, 3), np.uint8)
    np.testing.assert_allclose(whenet.angles(crop, path), [131, -14, 7], atol=1e-2)


def test_a_head_gets_whenets_angles_and_keeps_its_place(tmp_path):
    """A network that says the same of the mirror image is wrong by its yaw on both sides: the flip error says so."""
    head = Head(np.array([100.0, 80.0]), 60.0, 3.0, 1.0, 2.0, 0.9, 0.0)
    found = whenet.turned_head(IMAGE, head, scripted(tmp_path / "w.onnx", 0.0, 12.0, 0.0), 4)
    assert (found.azimuth, found.elevation, found.roll) == pytest.approx((0, -12, 3), abs=0.01)
    assert (found.side, found.presence) == (60, 0.9)
    assert found.flip_error == pytest.approx(0, abs=0.05)
    blind = whenet.turned_head(IMAGE, head, scripted(tmp_path / "b.onnx", 20.0, 0.0, 0.0), 1)
    assert blind.flip_error == pytest.approx(40, abs=0.05)
    behind = whenet.turned_head(IMAGE, head, scripted(tmp_path / "c.onnx", -178.0, 0.0, 0.0), 1)
    assert abs(behind.azimuth) == pytest.approx(180, abs=0.05)  # the mean of -178 and 178, round the back


def test_whenets_signs_are_ours(tmp_path, monkeypatch):
    """The nose to the left, up, and the head leaning clockwise: the camera on the subject's left, below."""
    monkeypatch.setattr(
        whenet, "angles", lambda crop, path: np.array([30.0, 10.0, 5.0]) * (1 if crop[0, 0, 0] else [-1, 1, -1])
    )
    image = np.zeros((100, 100, 3), np.uint8)
    image[:, :50] = 255  # bright on the left, so that the mirror image is told from the picture
    found = whenet.turned_head(image, Head(np.array([50.0, 50.0]), 60.0, 0.0, 0, 0, 1.0, 0.0), Path(), 1)
    assert (found.azimuth, found.elevation, found.roll) == pytest.approx((30, -10, 5))
    assert found.flip_error == pytest.approx(0, abs=1e-3)


def test_heads_are_seen_by_whenet_where_asked(tmp_path, monkeypatch):
    path = scripted(tmp_path / "w.onnx", 0.0, 12.0, 0.0)
    monkeypatch.setattr(seeing, "require", lambda name: {"whenet": path}[name])
    monkeypatch.setattr(seeing, "headpose", lambda folder: None)
    seen = Head(np.array([100.0, 80.0]), 60.0, 3.0, 1.0, 2.0, 0.9, 0.0)
    monkeypatch.setattr(seeing, "look_together", lambda asked, _: [seen for _ in asked])
    sample = Sample("k", "png", pictures.encode_png(IMAGE), {"id": "k", "faces": 0, "width": 200, "height": 160})
    for angles, pitch in (("embedded", 2.0), ("whenet", -12.0)):
        (row,) = seeing.heads_of(iter([sample]), HeadsParams(angles=angles), tmp_path)
        assert row["seen_pitch"] == pytest.approx(pitch, abs=0.01)


def numbers_of(rotation: np.ndarray, scale: float) -> np.ndarray:
    """What 3DDFA_V2 says of a camera-to-world rotation."""
    affine = np.zeros((3, 4))
    affine[:, :3] = scale * (rotation @ np.diag([1.0, -1.0, -1.0])).T
    affine[:, 3] = [60, 60, 0]
    return np.concatenate([affine.ravel(), RNG.normal(size=50)])


def statistics(path: Path, mean: np.ndarray, deviation: np.ndarray) -> Path:
    path.write_bytes(pickle.dumps({"mean": mean, "std": deviation}))
    return path


POSE = geometry.pose_on_sphere(torch.tensor(0.5), torch.tensor(-0.2), roll=0.1).double().numpy()


@pytest.mark.parametrize("lean", [0.0, 0.3])
def test_3ddfa_says_how_a_face_is_turned_and_the_landmarks_where_it_is(tmp_path, monkeypatch, lean):
    label = geometry.pack_label(torch.from_numpy(POSE), geometry.intrinsics(camera.CROP_FOCAL).double())
    uv, _ = geometry.project(label[None], torch.tensor(canonical_points())[None])
    quad = square_quad(np.array([100.0, 80.0]), 90.0, lean)
    points = np.concatenate([from_crop(uv[0].numpy(), quad), np.zeros((468, 1))], axis=1)
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]]
    mean, deviation = RNG.normal(size=62), RNG.uniform(0.5, 2, 62)
    said = (numbers_of(POSE[:3, :3] @ turn.T, 4e-4) - mean) / deviation
    files = {
        "tddfa_v2": answers(tmp_path / "t.onnx", tddfa.SIDE, said[None]),
        "tddfa_v2_statistics": statistics(tmp_path / "s.pkl", mean, deviation),
    }
    monkeypatch.setattr(camera, "require", lambda name: files[name])
    row = {"id": "k", "quad": quad.ravel().tolist(), "points": points.ravel().tolist()}
    sample = Sample("k", "png", pictures.encode_png(IMAGE), row)
    (found,) = camera.label(iter([sample]), CameraParams(rotation="tddfa_v2"))
    np.testing.assert_allclose(found["camera"], label.numpy(), atol=2e-3)
    assert found["residual"] < 0.5


def test_a_placed_camera_is_the_solved_one_when_the_rotation_is_right():
    label = geometry.pack_label(torch.from_numpy(POSE), geometry.intrinsics(camera.CROP_FOCAL).double())
    uv, _ = geometry.project(label[None], torch.tensor(canonical_points())[None])
    solved, residual = solve_camera(uv[0].numpy())
    placed, other = place_camera(uv[0].numpy(), POSE[:3, :3])
    np.testing.assert_allclose(placed, solved, atol=1e-4)
    np.testing.assert_allclose(placed, POSE, atol=1e-6)
    assert max(residual, other) < 0.01
    wrong = geometry.pose_on_sphere(torch.tensor(0.8), torch.tensor(-0.2), roll=0.1).double().numpy()
    assert place_camera(uv[0].numpy(), wrong[:3, :3])[1] > 5


def test_the_person_is_class_15(tmp_path, monkeypatch):
    """A network whose person is what is red and whose cat is what is green."""
    weights = np.zeros((21, 3, 1, 1))
    weights[15, 0], weights[8, 1] = 20, 20
    path = tmp_path / "d.onnx"
    nodes = [node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])]
    path.write_bytes(model(nodes, {"w": weights}, {"x": (1, 3, 64, 64)}, {"y": (1, 21, 64, 64)}))
    crop = np.zeros((128, 128, 3), np.uint8)
    crop[:, :64, 0] = crop[:, 64:, 1] = 255
    mask = deeplab.person_mask(crop, path, 64, 32)
    assert mask.shape == (32, 32)
    assert mask[:, :14].min() > 250
    assert mask[:, 18:].max() < 5
    monkeypatch.setattr(segment, "require", lambda name: {"deeplabv3": path}[name])
    quad = square_quad(np.array([64.0, 64.0]), 128.0).ravel().tolist()
    sample = Sample("k", "png", pictures.encode_png(crop), {"id": "k", "quad": quad})
    params = SegmentParams(mask="deeplabv3", mask_side=64, resolution=32)
    (row,) = segment.label(iter([sample]), params, tmp_path)
    np.testing.assert_array_equal(pictures.decode_grey(row[FILES]["png"]), mask)
    assert row["mask_ratio"] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("look", "rows", "says"),
    [
        (lambda path: whenet.angles(IMAGE[:100, :100], path), [np.zeros((1, 66))] * 3, "WHENet gives 120, 66, 66"),
        (lambda path: whenet.angles(IMAGE[:100, :100], path), [np.zeros((1, 62))], "gives 1 outputs of 62 numbers"),
        (
            lambda path: deeplab.person_mask(IMAGE[:100, :100], path, 64, 32),
            [np.zeros((1, 19, 8, 8))],
            "DeepLabV3 gives",
        ),
        (
            lambda path: tddfa.face_rotation(IMAGE, np.array([[50.0, 50], [90, 90]]), path, path.with_suffix(".pkl")),
            [np.zeros((1, 66))],
            "3DDFA_V2 gives 62",
        ),
    ],
)
def test_networks_of_another_interface_are_refused(tmp_path, look, rows, says):
    sides = {"WHENet": 100, "1 outputs": 100, "3DDFA": 120}
    side = next((value for name, value in sides.items() if name in says), 64)
    with pytest.raises(LineamentError, match=says):
        look(answers(tmp_path / "n.onnx", side, *rows))


def test_statistics_that_are_none_are_refused(tmp_path):
    points = np.array([[50.0, 50], [90, 90]])
    path = answers(tmp_path / "t.onnx", tddfa.SIDE, np.zeros((1, 62)))
    look = partial(tddfa.face_rotation, IMAGE, points, path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"mean": np.zeros(62)}))
    with pytest.raises(LineamentError, match="'mean' and 'std'"):
        look(tmp_path / "a.pkl")
    with pytest.raises(LineamentError, match="60 means"):
        look(statistics(tmp_path / "b.pkl", np.zeros(60), np.ones(62)))
    with pytest.raises(LineamentError, match="no rotation"):
        look(statistics(tmp_path / "c.pkl", np.zeros(62), np.ones(62)))
