"""Labels against truth: errors that were put in come out, intervals cover, filters are judged by what was planted."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats
from scipy.spatial.transform import Rotation

from models import camera as geometry
from ops.evaluate import filters, intervals, labels
from ops.evaluate import label_errors as errors
from ops.evaluate.label_errors import Truth
from ops.fit.target import target
from ops.store import pictures, tables
from ops.store.tar import ShardWriter

SIDE = 256


def camera_at(azimuth, elevation=0.0, roll=0.0, focal=3.0):
    turns = torch.deg2rad(torch.tensor([azimuth, elevation, roll], dtype=torch.float64))
    pose = geometry.pose_on_sphere(turns[0], turns[1], 2.7, roll=turns[2])
    return geometry.pack_label(pose, geometry.intrinsics(focal).double()).numpy()


def pose_at(*angles):
    return camera_at(*angles)[:16].reshape(4, 4)


@pytest.mark.parametrize("azimuth", [-170, -60, 0, 45, 179])
def test_angles_are_those_of_the_camera_about_the_head(azimuth):
    np.testing.assert_allclose(errors.angles(pose_at(azimuth, 12.0, 0.0))[:2], [azimuth, 12.0], atol=1e-9)
    lean = [errors.angles(pose_at(azimuth, 0.0, roll))[2] for roll in (0.0, 10.0)]
    assert lean[0] == pytest.approx(0, abs=1e-9)
    assert abs(lean[1]) == pytest.approx(10)


def test_differences_go_the_short_way_round():
    found = errors.angle_errors(pose_at(179.0), pose_at(-178.0))
    np.testing.assert_allclose(found, [3, 0, 0], atol=1e-6)


def test_a_turned_crop_has_the_pictures_camera():
    """The head's axis in the picture, seen through a crop that was turned by 20 degrees."""
    pose = pose_at(30.0, 10.0, 5.0)
    angle = np.deg2rad(20.0)
    across = np.array([np.cos(angle), np.sin(angle)])
    down = np.array([-across[1], across[0]])
    quad = np.array([100, 80]) + 60 * np.stack([-across - down, -across + down, across + down, across - down])
    up = lambda p: p[:3, :3].T @ [0, 1, 0]  # noqa: E731
    crop = pose.copy()
    turn = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    crop[:3, :3] = pose[:3, :3] @ turn
    seen = up(crop)[:2] @ np.stack([across, down])  # the crop's axes in the picture
    np.testing.assert_allclose(seen, up(pose)[:2], atol=1e-9)
    np.testing.assert_allclose(errors.turned_back(crop, quad), pose, atol=1e-9)


def test_alignment_takes_out_rotation_and_shift_but_no_scale():
    points = np.random.default_rng(0).normal(size=(50, 3))
    turned = points @ Rotation.from_rotvec([0.3, -2.0, 0.4]).as_matrix().T + 5
    assert errors.rigid_distance(turned, points) == pytest.approx(0, abs=1e-9)
    assert errors.rigid_distance(turned * 1.1, points) > 0.05
    assert errors.rigid_distance(points * (-1, 1, 1), points) > 0.3  # a reflection is no rotation


def test_joint_angles_are_those_that_were_put_in():
    true = np.random.default_rng(1).normal(size=(6, 3)) * 0.3
    wrong = (Rotation.from_rotvec([[0, 0, np.deg2rad(7)]] * 6) * Rotation.from_rotvec(true)).as_rotvec()
    rows = list(errors.pose_rows({"pose": wrong.ravel()}, Truth({"pose": true.ravel()})))
    found = {quantity: value for method, quantity, value in rows if method == "fit_body"}
    assert found["joint_angle"] == pytest.approx(7)
    assert found["joint_head"] == pytest.approx(7)
    mean = {quantity: value for method, quantity, value in rows if method == "mean_pose"}
    assert mean.keys() == found.keys()
    assert mean["joint_neck"] == pytest.approx(np.degrees(np.linalg.norm(true[0])), rel=1e-6)


def test_the_turn_of_the_head_is_that_of_neck_and_head_together():
    """Neck and head that undo one another's error leave the head where it is."""
    true, other = np.zeros((6, 3)), np.zeros((6, 3))
    true[:2, 1] = 0.1, 0.2
    other[:2, 1] = 0.25, 0.05
    rows = errors.pose_rows({"pose": other.ravel()}, Truth({"pose": true.ravel()}))
    found = {(method, quantity): value for method, quantity, value in rows}
    assert found["fit_body", "head_to_torso"] == pytest.approx(0, abs=1e-6)
    assert found["fit_body", "joint_neck"] == pytest.approx(np.degrees(0.15))
    assert found["mean_pose", "head_to_torso"] == pytest.approx(np.degrees(0.3))


def test_units_that_move_little_do_not_count_as_seen():
    names = list(target().model.expression_names)
    jaw, gaze = names.index("jawOpen"), names.index("eyeLookInLeft")
    rng = np.random.default_rng(0)
    true = np.zeros((40, 52))
    true[:, [jaw, gaze]] = rng.random((40, 2)) * 0.3
    fitted = true.copy()
    fitted[:, gaze] = rng.random(40)
    found = labels._expression(list(zip(fitted, true)))
    assert set(found["units"]) == {"jawOpen", "eyeLookInLeft"}
    assert found["seen"] == pytest.approx(1)
    assert found["seen_units"] == 1
    assert found["mean"] < 0.8


def test_overlaps_of_shapes_with_known_areas():
    quad = np.array([[64, 64], [64, 192], [192, 192], [192, 64]], float)  # the middle half
    true = np.zeros((SIDE, SIDE), np.uint8)
    true[:, 128:] = 255
    found = np.zeros((64, 64), np.uint8)
    found[:, 16:] = 255
    assert errors.mask_overlap(found, true, quad) == pytest.approx(2 / 3, abs=0.02)
    classes, real = np.zeros((64, 64), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    classes[:, :16], real[:, :128] = 13, 13
    inside, union = errors.class_overlaps(classes, real, quad)
    assert inside[13] / union[13] == pytest.approx(0.5, abs=0.02)
    assert union[[1, 5, 18]].sum() == 0


def test_landmark_errors_are_shares_of_the_frontal_eye_distance():
    """The eyes are 0.27 apart at depth 2.7: 0.3 of the picture's side by a focal length of 3, from any side."""
    rng = np.random.default_rng(2)
    points = rng.uniform(50, 200, (468, 2))
    eyes = np.zeros((68, 3))
    eyes[36, 0], eyes[45, 0] = -0.135, 0.135
    shown = np.ones(468)
    shown[300:] = 0
    for azimuth in (0.0, 70.0):
        row = {"camera": camera_at(azimuth), "facemesh_2d": points.ravel(), "landmarks68": eyes.ravel()}
        moved = np.add(points, (3.0, 4.0))
        moved[300:] += 500  # what is not seen does not count
        label = {"points": np.concatenate([moved, np.zeros((468, 1))], 1).ravel()}
        ((quantity, value),) = errors.landmark_rows(label, Truth({**row, "facemesh_visible": shown}), SIDE)
        assert quantity == "landmarks"
        assert value == pytest.approx(100 * 5 / (0.3 * SIDE), rel=1e-6)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(100):
        person = rng.normal(size=20).repeat(5)  # pictures of one person err alike
        low, high = intervals.mean(person + rng.normal(size=100) * 0.3, np.arange(20).repeat(5))["interval"]
        hits += low <= 0 <= high
    assert 86 <= hits <= 100
    alone = intervals.mean(person, None)["interval"]
    together = intervals.mean(person, np.arange(20).repeat(5))["interval"]
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])


def test_closed_forms_against_scipy():
    a, b = np.random.default_rng(4).normal(size=(2, 40))
    expected = stats.pearsonr(a, b)
    found = intervals.correlation(a, b)
    assert found["mean"] == pytest.approx(expected.statistic, abs=1e-3)
    np.testing.assert_allclose(found["interval"], expected.confidence_interval(0.95), atol=1e-3)
    wilson = stats.binomtest(3, 17).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(intervals.share(3, 17)["interval"], wilson, atol=1e-3)
    assert intervals.share(0, 0)["mean"] is None
    assert intervals.correlation(a, a * 0)["mean"] is None
    assert intervals.mean(np.array([np.nan]))["n"] == 0
    sums = intervals.ratios(np.array([[1.0, 0], [3, 0]]), np.array([[2.0, 0], [4, 0]]), np.array([0, 1]))
    assert sums[0]["mean"] == pytest.approx(4 / 6, abs=1e-3)
    assert sums[1]["mean"] is None


def table(path, rows, **columns):
    values = {"id": [r[0] for r in rows], **columns}
    values |= {"kept": [r[1] is None for r in rows], "reason": pa.array([r[1] for r in rows], pa.string())}
    tables.write(path, pa.table(values), path.stem)


def test_filters_are_judged_by_what_was_planted(tmp_path):
    kinds = {name: {"kind": "portrait", "azimuth": 0.0, "camera": None} for name in "abcdefgh"}
    kinds["a"] = kinds["b"] = {"kind": "blurred", "azimuth": 0.0, "camera": None}
    for name in "fgh":
        kinds[name] = {
            "kind": "portrait",
            "azimuth": 150.0 if name == "f" else 5.0,
            "identity": 1,
            "camera": [1.0, 2.0],
        }
    kinds["f"] |= {"camera": [7.0, 8.0], "landmarks68_visible": [True] * 17 + [False] * 51}
    rows = [("a", "blurred"), ("b", None), ("c", "blurred"), ("d", None), ("e", None), ("f", None), ("g", None)]
    rows.append(("h", "near_duplicate"))
    table(tmp_path / "screen.parquet", rows, duplicate_of=pa.array([None] * 7 + ["g"], pa.string()))
    table(tmp_path / "detect.parquet", [("b", None), ("d", "no_face"), ("f", "no_face")])
    found = {row["reason"]: row for row in filters.judge(tmp_path, kinds)}
    assert (found["blurred"]["precision"]["mean"], found["blurred"]["recall"]["mean"]) == (0.5, 0.5)
    assert (found["no_face"]["precision"]["mean"], found["no_face"]["recall"]["mean"]) == (0.5, 1.0)
    assert (found["near_duplicate"]["precision"]["mean"], found["near_duplicate"]["recall"]["n"]) == (1.0, 1)
    assert found["truncated"]["precision"]["n"] == 0
    (screen, detect) = filters.losses(tmp_path, ("screen", "detect", "align"))
    assert screen["lost"]["mean"] == pytest.approx(3 / 8)
    assert detect["reasons"]["no_face"]["n"] == 3


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two sources, one with truth: a camera label that is 4 degrees off, a mask that is right."""
    monkeypatch.chdir(tmp_path)
    for source in ("known", "unknown"):
        with ShardWriter(tmp_path / "raw" / source, 8) as writer:
            for key in ("a" * 16, "b" * 16):
                writer.add(key, {"png": pictures.encode_png(np.zeros((SIDE, SIDE, 3), np.uint8)), "json": b"{}"})
    quad = np.array([[64, 64], [64, 192], [192, 192], [192, 64]], float)
    folder = tmp_path / "labels/known"
    folder.mkdir(parents=True)
    (tmp_path / "labels/unknown").mkdir()
    keys = [("a" * 16, None), ("b" * 16, None)]
    table(folder / "screen.parquet", keys, width=[SIDE] * 2, duplicate_of=pa.array([None] * 2, pa.string()))
    table(folder / "align.parquet", keys, quad=[quad.ravel().tolist()] * 2)
    table(folder / "camera.parquet", keys, camera=[camera_at(a + 4.0).tolist() for a in (10.0, 100.0)])
    table(
        folder / "mine.parquet",
        keys,
        camera=[camera_at(a).tolist() for a in (10.0, 100.0)],
        quad=[quad.ravel().tolist()] * 2,
    )
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, 128:] = 255
    with ShardWriter(folder / "masks", 8) as writer:
        writer.add("a" * 16, {"png": pictures.encode_png(mask[64:192, 64:192])})
    truth = tmp_path / "truth/known"
    with ShardWriter(truth, 8) as writer:
        writer.add("a" * 16, {"mask.png": pictures.encode_png(mask)})
    rows = [
        {"id": key, "kind": "portrait", "identity": number, "azimuth": azimuth, "camera": camera_at(azimuth).tolist()}
        for number, (key, azimuth) in enumerate(zip(("a" * 16, "b" * 16), (10.0, 100.0)))
    ]
    pq.write_table(pa.Table.from_pylist(rows), truth / "truth.parquet")
    text = "sources: {known: {kind: folder, path: x}, unknown: {kind: folder, path: x}}\nevaluate_labels: {}\n"
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path


def run(project):
    arguments = ["raw", "truth", "labels", "out", "--metrics", "m.json", "--preview", "p.png"]
    return labels.main(arguments)


def test_the_stage_measures_what_has_truth_and_names_what_has_not(project):
    assert run(project) == 0
    results = json.loads((project / "out/results.json").read_text())
    assert list(results["sources"]) == ["known"]
    assert results["skipped"]["unknown"]["why"]
    found = {(e["method"], e["quantity"]): e for e in results["sources"]["known"]["errors"]}
    assert found["camera", "yaw"]["all"]["mean"] == pytest.approx(4, abs=1e-3)
    assert found["mine", "yaw"]["all"]["mean"] == pytest.approx(0, abs=1e-3)  # a labeller of the user's
    assert found["camera", "yaw"]["near_front"]["n"] == 1
    assert [b["n"] for b in found["camera", "yaw"]["bins"] if b["n"]] == [1, 1]
    assert found["segment", "mask_iou"]["all"]["mean"] == pytest.approx(1, abs=0.02)
    assert json.loads((project / "m.json").read_text())["known"]["yaw"]["camera"]["all"]["n"] == 2
    first = (project / "out/results.json").read_bytes()
    assert run(project) == 0
    assert (project / "out/results.json").read_bytes() == first


def test_labels_that_were_never_made_are_an_error(project, capsys):
    (project / "labels/unknown").rmdir()
    assert run(project) == 1
    assert "Run the labelling of unknown first" in capsys.readouterr().err
