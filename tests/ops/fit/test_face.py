"""The stage on real pictures, and what it does with rows that cannot be fitted."""

import numpy as np
import pytest
import torch

from models import camera as geometry
from ops.curate import camera
from ops.curate.align import ffhq_quad
from ops.curate.crop import to_crop
from ops.curate.detect import DetectParams, find_faces
from ops.curate.labelling import Sample
from ops.curate.landmarks import find_landmarks
from ops.fit.calibrate import estimate, observe, offsets
from ops.fit.face import FitFaceParams, fit_crops, label, why_not
from ops.fit.overlay import overlay
from ops.fit.target import camera_of, motion_of, pose_of, target
from ops.perception.facemesh import LEFT_EYE, RIGHT_EYE, mirrored
from ops.store.pictures import encode_png

PARAMS = FitFaceParams()


@pytest.fixture(scope="module")
def row(astronaut, weights):
    """What the steps before say of a real photo."""
    face = find_faces(astronaut, weights, DetectParams())[0]
    points, _ = find_landmarks(astronaut, face.box, face.points, weights, 1)
    quad = ffhq_quad(points)
    pose, _ = camera.solve_camera(to_crop(points[:, :2], quad))
    return {
        "id": "0" * 16,
        "points": points.ravel().tolist(),
        "quad": quad.ravel().tolist(),
        "camera": camera.label_of(pose, "fixed").tolist(),
        "distance": float(np.linalg.norm(pose[:3, 3])),
    }


def test_a_photo_is_fitted_to_two_per_cent_of_the_eye_distance(row):
    (found,) = fit_crops([row], PARAMS)
    assert found["converged"]
    assert why_not(found, PARAMS) is None
    assert found["residual"] < 2
    smile = [name.startswith("mouthSmile") for name in target().model.expression_names]
    assert np.array(found["expression"])[smile].min() > 0.1  # she smiles


def test_the_fitted_points_project_with_the_camera_that_is_written(row):
    (found,) = fit_crops([row], PARAMS)
    goal = target()
    codes = [torch.tensor([found[name]]).double() for name in ("identity", "expression")]
    label_25 = torch.tensor([found["camera"]]).double()
    geometry.check_label(label_25)
    uv, _ = geometry.project(label_25, goal.face.points(*codes))
    quad = np.array(row["quad"]).reshape(4, 2)
    seen = to_crop(np.array(row["points"]).reshape(-1, 3)[:, :2], quad)
    eyes = np.hypot(*(seen[LEFT_EYE[0]] - seen[RIGHT_EYE[0]]))
    assert np.median(np.hypot(*(uv[0].numpy() - seen).T)) < 0.015 * eyes


def test_the_mirrored_face_has_the_mirrored_fit(row):
    points = np.array(row["points"]).reshape(-1, 3)[mirrored()] * (-1, 1, 1) + (512, 0, 0)
    quad = np.array(row["quad"]).reshape(4, 2)[[3, 2, 1, 0]] * (-1, 1) + (512, 0)
    label_25 = geometry.mirror_label(torch.tensor(row["camera"], dtype=torch.float64))
    flipped = {"points": points.ravel().tolist(), "quad": quad.ravel().tolist(), "camera": label_25.tolist()}
    one, other = fit_crops([row, {**row, **flipped}], PARAMS)
    assert one["residual"] == pytest.approx(other["residual"], abs=0.15)
    np.testing.assert_allclose(one["pose"], np.array(other["pose"]) * (1, -1, -1, -1, 1, 1), atol=0.02)


def test_a_batch_is_as_good_as_one_by_one_and_failures_stay_in_the_table(row):
    broken = {**row, "id": "1" * 16, "points": [float("nan")] * 1404}
    scattered = {**row, "id": "2" * 16}
    rng = np.random.default_rng(0)
    scattered["points"] = (np.array(row["points"]) + rng.normal(0, 60, 1404)).tolist()
    samples = [Sample(r["id"], "jpg", b"", r) for r in (row, broken, scattered)]
    rows = list(label(iter(samples), FitFaceParams(batch=2)))
    assert [r["id"] for r in rows] == [s.id for s in samples]
    assert [r["kept"] for r in rows] == [True, False, False]
    assert [r["reason"] for r in rows] == [None, "not_converged", "large_residual"]
    alone = next(iter(label(iter(samples[:1]), FitFaceParams(batch=1))))
    np.testing.assert_allclose(rows[0]["identity"], alone["identity"], atol=1e-6)


def test_the_photometric_term_can_be_asked_for(row, astronaut):
    data = encode_png(astronaut)
    sample = Sample(row["id"], "png", data, row)
    plain, shaded = (
        next(iter(label(iter([sample]), FitFaceParams(photometric=weight, photometric_steps=20))))
        for weight in (0, 100)
    )
    assert shaded["kept"]
    assert plain["identity"] != shaded["identity"]
    np.testing.assert_allclose(plain["identity"], shaded["identity"], atol=0.6)


def test_cameras_and_motions_are_inverse(row):
    rotation, translation = motion_of(np.array([row["camera"]]), np.array([3.3]))
    assert float(translation.norm()) == pytest.approx(3.3)
    state = fit_state(rotation, translation)
    again, shift = motion_of(camera_of(state, camera.CROP_FOCAL))
    torch.testing.assert_close(again, rotation)
    torch.testing.assert_close(shift, translation)
    assert np.abs(pose_of(state)[0, :3]).max() < 0.4  # she looks into the camera


def fit_state(rotation, translation):
    from ops.fit.energy import State

    return State(torch.zeros(1, 80), torch.zeros(1, 52), rotation, translation)


def test_the_overlay_covers_the_face_and_leaves_the_rest(row, astronaut):
    from ops.curate.crop import crop_quad

    (found,) = fit_crops([row], PARAMS)
    crop = crop_quad(astronaut, np.array(row["quad"]).reshape(4, 2), 128)
    drawn = overlay(crop, target().model, found["identity"], found["expression"], found["camera"])
    changed = np.abs(drawn.astype(int) - crop).max(-1) > 0
    assert changed[64, 64]
    assert not changed[:4].any()
    assert 0.15 < changed.mean() < 0.6


def test_an_offset_of_the_points_is_seen_through_the_camera():
    rng = np.random.default_rng(2)
    points, offset = rng.normal(0, 0.1, (468, 3)), rng.normal(0, 0.002, (468, 3))
    pose = geometry.pose_on_sphere(torch.tensor(0.4), torch.tensor(0.1)).double()
    label_25 = geometry.pack_label(pose, geometry.intrinsics(3.0).double())
    seen = geometry.project(label_25[None], torch.from_numpy(points + offset)[None])[0][0].numpy()
    slopes, rests = observe(points, label_25.numpy(), seen)
    np.testing.assert_allclose(np.einsum("pia,pa->pi", slopes, offset), rests, atol=5e-5)  # to first order


def test_a_known_habit_of_the_detector_is_measured():
    """Landmarks that all lie 5 mm beside their points, seen from several sides."""
    rng = np.random.default_rng(1)
    true = rng.normal(0, 0.01, (468, 3))
    true = (true + true[mirrored()] * (-1, 1, 1)) / 2
    turns = np.linalg.qr(rng.normal(size=(400, 3, 3)))[0][:, None, :2]
    slopes = np.broadcast_to(turns, (400, 468, 2, 3))
    rests = np.einsum("npia,pa->npi", slopes, true) + rng.normal(0, 0.01, (400, 468, 2))
    assert np.abs(estimate(slopes, rests) - true).max() < 0.006
    np.testing.assert_allclose(offsets(), offsets()[mirrored()] * (-1, 1, 1), atol=2e-4)
