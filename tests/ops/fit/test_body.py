"""The body fit: it finds what it was made from, leaves alone what it cannot see, and records what it cannot fit."""

import dataclasses

import numpy as np
import pytest
import torch

from models import camera as geometry
from models.parametric.base import JOINTS
from ops.curate import camera as cameras
from ops.curate.align import ffhq_quad
from ops.curate.crop import to_crop
from ops.curate.detect import DetectParams, find_faces
from ops.curate.labelling import Sample
from ops.curate.landmarks import find_landmarks
from ops.fit import body, torso
from ops.perception import blazepose
from ops.store.pictures import encode_png

TIGHT = torso.Terms(shoulder=0.005, elbow=0.005, direction=0.02, outline=1.0, outlier=50.0)
PARAMS = body.FitBodyParams()


def cast(n: int = 3) -> torso.Code:
    """Bodies as the priors expect them."""
    g = torch.Generator().manual_seed(0)
    usual = torch.cat([torch.zeros(10, dtype=torch.float64), torso.usual_pose().flatten()])
    return torso.Code(usual + 0.8 * torso.spread() * torch.randn(n, 28, generator=g, dtype=torch.float64))


def seen_of(code: torso.Code, visibility: float = 1.0) -> torso.Seen:
    """What an exact labeller would measure."""
    n = len(code.values)
    angles = torch.linspace(-0.6, 0.6, n, dtype=torch.float64)
    pose = geometry.pose_on_sphere(angles, 0.1 * torch.ones_like(angles))
    camera = geometry.pack_label(pose, geometry.intrinsics(cameras.CROP_FOCAL).double().expand(n, 3, 3))
    _, parts = torso.skeleton()
    line = torso.posed_parts(parts, code)[0][:, [4, 5]]
    line = ((line[:, 0] - line[:, 1]).unsqueeze(1) @ pose[:, :3, :3]).squeeze(1)
    return torso.Seen(
        camera,
        torso.flat_points(parts, code, camera),
        torch.full((n, 4), visibility, dtype=torch.float64),
        line / line.norm(dim=-1, keepdim=True),
        torch.zeros(n, 8, 8, dtype=torch.float64),
        torch.from_numpy(body.WINDOW),
    )


def test_exact_measurements_are_met():
    truth = cast()
    seen = seen_of(truth)
    found = torso.solve(seen, TIGHT, 80)
    assert found.converged.all()
    assert found.residual.max() < 5e-3
    _, parts = torso.skeleton()
    start = torso.Code(torch.cat([torch.zeros(10), torso.usual_pose().flatten()]).double().expand(3, -1))

    def yaw(code: torso.Code) -> torch.Tensor:
        line = torso.posed_parts(parts, code)[0][:, 4] - torso.posed_parts(parts, code)[0][:, 5]
        return torch.atan2(-line[:, 2], line[:, 0])

    assert (yaw(found.code) - yaw(truth)).abs().max() < 0.03
    assert (yaw(start) - yaw(truth)).abs().max() > 0.1
    error, before = (
        (torso.posed_parts(parts, code)[0] - torso.posed_parts(parts, truth)[0]).norm(dim=-1)[:, 4:].mean()
        for code in (found.code, start)
    )
    assert error < 0.6 * before  # depth along the ray is left to the prior


def test_each_body_is_fitted_as_if_it_were_alone():
    seen = seen_of(cast())
    together = torso.solve(seen, TIGHT, 30)
    fields = {f.name: getattr(seen, f.name) for f in dataclasses.fields(seen)}
    alone = torso.solve(torso.Seen(**{k: v if k == "window" else v[1:2] for k, v in fields.items()}), TIGHT, 30)
    torch.testing.assert_close(together.code.values[1:2], alone.code.values, atol=1e-6, rtol=0)


def test_without_measurements_the_prior_remains():
    found = torso.solve(seen_of(cast(), visibility=0.0), TIGHT, 30)
    usual = torch.cat([torch.zeros(10), torso.usual_pose().flatten()]).double()
    torch.testing.assert_close(found.code.values, usual.expand(3, -1), atol=1e-4, rtol=0)
    assert found.converged.all()


def test_the_outline_pushes_the_body_inwards():
    """A person seen to be narrow: the surface moves off the cells that are not the person."""
    truth = cast(1)
    seen = seen_of(truth, visibility=0.0)
    side = 64
    place = (torch.arange(side, dtype=torch.float64) + 0.5) / side * body.WINDOW[2] + body.WINDOW[0]
    outside = ((place - 0.5).abs() - 0.3).clamp_min(0).expand(1, side, side)
    terms = dataclasses.replace(TIGHT, outline=0.005)
    _, parts = torso.skeleton()

    def sticking_out(code: torso.Code) -> float:
        x = geometry.project(seen.camera, torso.posed_parts(parts, code)[1][:, 4:])[0][..., 0]
        return float(((x - 0.5).abs() - 0.3).clamp_min(0).square().mean())

    free = torso.solve(seen, terms, 30)
    narrow = torso.solve(dataclasses.replace(seen, outside=outside), terms, 30)
    assert sticking_out(narrow.code) < 0.8 * sticking_out(free.code)


def test_derivatives_agree_with_differences():
    code, seen = cast(2), seen_of(cast(2))
    g = torch.Generator().manual_seed(1)
    seen = dataclasses.replace(seen, outside=torch.rand(2, 16, 16, generator=g, dtype=torch.float64))
    _, parts = torso.skeleton()
    direction = torch.randn(2, 28, generator=g, dtype=torch.float64)

    def value(values: torch.Tensor) -> torch.Tensor:
        return torso.residuals(parts, torso.Code(values), seen, PARAMS.terms)

    exact = torch.func.jvp(value, (code.values,), (direction,))[1]
    step = 1e-7
    difference = (value(code.values + step * direction) - value(code.values - step * direction)) / (2 * step)
    torch.testing.assert_close(exact, difference, rtol=1e-4, atol=1e-5)


def test_the_head_stays_where_the_camera_has_it():
    model, _ = torso.skeleton()
    code = cast(2)
    shape, pose = code.shape.float(), code.pose.float()
    posed = torso.posed_vertices(model, shape, pose)
    rest = model.vertices(torch.zeros(2, 80), shape=shape)
    head = model.skinning_weights[:, 1 + JOINTS.index("head")] > 0.999
    torch.testing.assert_close(posed[:, head], rest[:, head], atol=1e-4, rtol=0)
    # The camera about the body sees the posed body as the camera about the head sees the head.
    around = geometry.pose_on_sphere(torch.tensor([0.3, -0.2]), torch.tensor([0.1, 0.0]))
    label = geometry.pack_label(around, geometry.intrinsics(2.8))
    moved = torso.body_camera(model, label, shape, pose)
    geometry.check_label(moved)
    torch.testing.assert_close(
        geometry.project(moved, model.posed(shape, pose))[0], geometry.project(label, posed)[0], atol=1e-4, rtol=0
    )


@pytest.fixture(scope="module")
def row(astronaut, weights):
    """What the steps before say of a real photo."""
    face = find_faces(astronaut, weights, DetectParams())[0]
    points, _ = find_landmarks(astronaut, face.box, face.points, weights, 1)
    quad = ffhq_quad(points)
    pose, _ = cameras.solve_camera(to_crop(points[:, :2], quad))
    return {"id": "0" * 16, "quad": quad.ravel().tolist(), "camera": cameras.label_of(pose, "fixed").tolist()}


def sample(image: np.ndarray, row: dict, name: str = "a") -> Sample:
    return Sample(name, "png", encode_png(image), {**row, "id": name})


def test_blazepose_on_a_photo_and_its_mirror_image(astronaut, weights):
    region = blazepose.find_body(astronaut, weights, 0.3)
    pose = blazepose.find_points_twice(astronaut, region, weights)
    left, right = (pose.points[blazepose.INDEX[f"{side}_shoulder"]] for side in ("left", "right"))
    assert left[0] - right[0] > 150  # her left is on the right
    assert abs(left[1] - right[1]) < 60
    ears = pose.points[[blazepose.INDEX["left_ear"], blazepose.INDEX["right_ear"]]]
    assert ears[:, 1].max() < min(left[1], right[1])
    assert pose.score > 0.9
    mirrored = np.ascontiguousarray(astronaut[:, ::-1])
    region = blazepose.find_body(mirrored, weights, 0.3)
    again = blazepose.find_points_twice(mirrored, region, weights)
    back = again.points[blazepose.MIRROR] * [-1, 1] + [astronaut.shape[1], 0]
    upper = [7, 8, 11, 12]
    assert np.abs(back - pose.points)[upper].max() < 25
    np.testing.assert_allclose(pose.points.mean(0), pose.points[blazepose.MIRROR].mean(0))


def test_turning_the_picture_turns_the_points(astronaut, weights):
    turned = np.ascontiguousarray(np.rot90(astronaut))  # anticlockwise: x, y -> y, W - x
    upright, sideways = (
        blazepose.find_points(image, blazepose.find_body(image, weights, 0.3), weights) for image in (astronaut, turned)
    )
    expected = np.stack([upright.points[:, 1], astronaut.shape[1] - upright.points[:, 0]], axis=1)
    assert np.abs(expected - sideways.points)[[0, 7, 8, 11, 12]].max() < 40


def test_of_two_people_the_one_with_the_face_is_found(astronaut, weights, row):
    both = np.concatenate([astronaut[:, ::-1], astronaut], axis=1)
    quad = np.array(row["quad"]).reshape(4, 2)
    width = astronaut.shape[1]
    mirrored = (quad * [-1, 1] + [width, 0])[[3, 2, 1, 0]]
    beside = quad + np.array([width, 0])
    alone = body.look(astronaut, quad, weights, 0.3)
    right, left = (body.look(both, q, weights, 0.3) for q in (beside, mirrored))
    np.testing.assert_allclose(right.points[:2], alone.points[:2], atol=0.25)  # the other is 3 off
    np.testing.assert_allclose(
        left.points[[1, 0]] * [-1, 1] + [1, 0], alone.points[:2], atol=0.25
    )  # the other is 3 off
    assert body.look(both, beside + np.array([0, 0.5 * width]), weights, 0.3) is None


def test_a_photo_is_fitted(astronaut, weights, row):
    (found,) = body.label(iter([sample(astronaut, row)]), PARAMS, weights)
    assert found["kept"]
    assert found["converged"]
    assert found["residual"] < 10
    assert (len(found["shape"]), len(found["pose"]), len(found["camera"])) == (10, 18, 25)
    geometry.check_label(torch.tensor(found["camera"])[None])
    picture = body.overlay(astronaut, np.array(row["quad"]).reshape(4, 2), np.array(row["camera"]), found)
    assert picture.shape == (body.DRAWN, body.DRAWN, 3)


def test_failures_are_recorded_and_leave_the_others_alone(astronaut, weights, row):
    black = np.zeros_like(astronaut)
    some = [sample(black, row, "a"), sample(astronaut, row, "b"), sample(black, row, "c")]
    found = list(body.label(iter(some), PARAMS, weights))
    assert [r["id"] for r in found] == ["a", "b", "c"]
    assert [r["reason"] for r in found] == ["no_person", None, "no_person"]
    (alone,) = body.label(iter([sample(astronaut, row, "b")]), PARAMS, weights)
    np.testing.assert_allclose(alone["pose"], found[1]["pose"], atol=1e-5)
    strict = PARAMS.model_copy(update={"max_residual": 1e-6})
    assert next(iter(body.label(iter(some[1:2]), strict, weights)))["reason"] == "large_residual"
    hasty = PARAMS.model_copy(update={"max_steps": 1})
    assert next(iter(body.label(iter(some[1:2]), hasty, weights)))["reason"] == "not_converged"
    blind = PARAMS.model_copy(update={"min_visibility": 1.0})
    assert next(iter(body.label(iter(some[1:2]), blind, weights)))["reason"] == "shoulders_unseen"


def test_the_outline_knows_where_the_picture_ends(astronaut, weights, row, monkeypatch):
    quad = np.array(row["quad"]).reshape(4, 2)
    distance = body.outside_distance(astronaut, quad, weights)
    assert distance.shape == (body.MASK_SIDE, body.MASK_SIDE)
    assert distance.max() > 0.1
    middle = round((0.5 - body.WINDOW[0]) / body.WINDOW[2] * body.MASK_SIDE)
    chin = round((0.6 - body.WINDOW[1]) / body.WINDOW[2] * body.MASK_SIDE)
    assert distance[chin, middle] == 0
    edge = round((to_crop(np.array([256.0, 240]), quad)[1] - body.WINDOW[1]) / body.WINDOW[2] * body.MASK_SIDE)
    assert edge < body.MASK_SIDE - 20
    top = np.zeros((body.MASK_SIDE, body.MASK_SIDE), np.uint8)
    top[:8] = 255
    monkeypatch.setattr(body, "person_mask", lambda *_: top)
    whole, cut = (body.outside_distance(picture, quad, weights) for picture in (astronaut, astronaut[:240]))
    assert whole[edge + 6, middle] > 0.5  # an empty place of the photo, far below the person
    assert cut[edge + 6 :].max() == 0  # beyond its edge nothing is known
    np.testing.assert_array_equal(whole[: edge - 6, middle], cut[: edge - 6, middle])
    monkeypatch.setattr(body, "person_mask", lambda *_: np.zeros_like(top))
    assert body.outside_distance(np.zeros_like(astronaut), quad, weights).max() == 0
