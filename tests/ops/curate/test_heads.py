"""Heads from all sides: squares and cameras by geometry, mirrored labels of mirrored pictures, every limit."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from models import camera as geometry
from models.headpose import HeadPose, HeadPoseConfig
from ops.curate.camera import CROP_FOCAL
from ops.curate.crop import from_crop, quad_side, square_quad
from ops.curate.heads import SEEN, HeadsParams, decide
from ops.curate.lessons import SQUARE, head_square
from ops.curate.poses import rotation_angle
from ops.curate.squares import Square, Step, camera_of, mean_step, square_of_face, view_of
from ops.perception.headpose import look, look_together

RNG = np.random.default_rng(0)
WIDTH = 400.0


def aside(azimuth, elevation, roll, distance, offset):
    """(25,) label of a camera that does not look at the head's centre but ``offset`` (right, up) of it."""
    eye = geometry.pose_on_sphere(torch.tensor(azimuth), torch.tensor(elevation), distance)[:3, 3]
    straight = geometry.look_at(eye, torch.zeros(3))
    target = straight[:3, 0] * offset[0] - straight[:3, 1] * offset[1]
    pose = geometry.look_at(eye, target, roll)
    return geometry.pack_label(pose, geometry.intrinsics(CROP_FOCAL)).double().numpy()


def mirrored(quad):
    """The same square in the mirrored picture, its corners in their order again."""
    return (quad * [-1, 1] + [WIDTH, 0])[[3, 2, 1, 0]]


@pytest.mark.parametrize("azimuth", [-0.9, 0.0, 0.6])
@pytest.mark.parametrize(("elevation", "offset"), [(0.2, (0.1, -0.05)), (-0.3, (-0.2, 0.1))])
def test_a_faces_square_moves_to_the_heads_centre_and_to_the_common_distance(azimuth, elevation, offset):
    label = aside(azimuth, elevation, 0.0, 3.1, offset)
    quad = square_quad(np.array([180.0, 140.0]), 120.0, 0.2)
    square = square_of_face(quad, label, 3.1)
    points = torch.tensor([[[0.0, 0, 0], [0, 0.01, 0]]], dtype=torch.float64)
    uv, depth = geometry.project(torch.from_numpy(label)[None], points)
    middle, above = from_crop(uv[0].numpy(), quad)
    np.testing.assert_allclose(square.centre, middle, atol=1e-3)
    assert square.side == pytest.approx(120 * SQUARE * CROP_FOCAL / float(depth[0, 0]), rel=1e-5)
    assert (square.yaw, square.pitch) == pytest.approx(np.rad2deg([azimuth, elevation]), abs=1e-3)
    up = middle - above
    assert np.rad2deg(np.arctan2(-up[0], up[1])) == pytest.approx(square.roll, abs=2.5)  # off the axis by perspective


def test_a_camera_that_looks_at_the_head_from_the_common_distance_changes_nothing():
    quad = square_quad(np.array([200.0, 150.0]), 90.0, -0.1)
    square = square_of_face(quad, aside(0.4, 0.1, 0.0, 2.7, (0, 0)), 2.7)
    np.testing.assert_allclose(square.quad, quad, atol=1e-3)


def test_the_square_of_a_mirrored_face_is_the_mirrored_square():
    for _ in range(20):
        azimuth, elevation, roll = RNG.uniform(-0.8, 0.8, 3) * [1, 0.5, 0.4]
        label = aside(azimuth, elevation, roll, 2.9, RNG.uniform(-0.2, 0.2, 2))
        quad = square_quad(RNG.uniform(100, 300, 2), 110.0, RNG.uniform(-0.4, 0.4))
        square = square_of_face(quad, label, 2.9)
        other = square_of_face(mirrored(quad), geometry.mirror_label(torch.from_numpy(label)).numpy(), 2.9)
        np.testing.assert_allclose(other.quad, mirrored(square.quad), atol=1e-6)
        assert (other.yaw, other.pitch, other.roll) == pytest.approx(
            (-square.yaw, square.pitch, -square.roll), abs=1e-6
        )


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return HeadPose(HeadPoseConfig(side=32, channels=8, hidden=8)).eval()


def test_the_label_of_the_mirrored_picture_is_the_mirrored_label(network):
    image = RNG.integers(0, 255, (240, int(WIDTH), 3), dtype=np.uint8)
    start = square_quad(np.array([150.0, 110.0]), 120.0, 0.3)
    for looks in (1, 4):
        head = look(image, network, start, looks)
        other = look(np.ascontiguousarray(image[:, ::-1]), network, mirrored(start), looks)
        np.testing.assert_allclose(other.quad, mirrored(head.quad), atol=0.02)
        assert other.azimuth == pytest.approx(-head.azimuth, abs=0.05)
        assert other.elevation == pytest.approx(head.elevation, abs=0.05)
        assert other.presence == pytest.approx(head.presence, abs=1e-3)
        assert other.flip_error == pytest.approx(head.flip_error, abs=0.1)


def test_heads_that_are_looked_at_together_are_those_looked_at_one_by_one(network):
    asked = []
    for number, shape in enumerate([(240, 400), (300, 200), (200, 200)]):
        image = RNG.integers(0, 255, (*shape, 3), dtype=np.uint8)
        asked.append((image, square_quad(np.array([90.0, 80.0]), 70.0, 0.2) if number == 2 else None))
    for together, (image, start) in zip(look_together(asked, network), asked, strict=True):
        alone = look(image, network, start)
        np.testing.assert_allclose(together.quad, alone.quad, atol=0.02)
        np.testing.assert_allclose(
            [together.azimuth, together.presence, together.flip_error],
            [alone.azimuth, alone.presence, alone.flip_error],
            atol=0.1,
        )


class Scripted(torch.nn.Module):
    """Says the same of every window, in the order of models.headpose.OUTPUTS."""

    def __init__(self, *answer):
        super().__init__()
        self.config = HeadPoseConfig(side=32)
        self.answer = torch.tensor(answer)

    def forward(self, window):
        return self.answer.expand(len(window), -1)


def test_the_flip_error_is_the_angle_between_both_answers():
    image = np.zeros((100, 100, 3), np.uint8)
    turn = np.deg2rad(20.0)
    straight = look(image, Scripted(3.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.1, 0.0))
    turned = look(image, Scripted(3.0, 0.0, 0.0, 0.0, float(np.sin(turn)), float(np.cos(turn)), 0.0, 0.0))
    assert straight.flip_error == pytest.approx(0, abs=1e-3)
    assert straight.azimuth == pytest.approx(0, abs=1e-6)
    assert turned.flip_error == pytest.approx(40, abs=1e-3)  # a network blind to mirroring is 20 off on both sides
    assert turned.azimuth == pytest.approx(0, abs=1e-6)


def test_lessons_know_where_the_crop_of_a_picture_lies():
    """The square of a picture's camera is what square_of_face finds when the picture itself is the crop."""
    label = aside(2.5, 0.2, 0.15, 3.4, (0.1, 0.2))
    truth = head_square(label, 0.15)
    square = square_of_face(square_quad(np.array([50.0, 50.0]), 100.0), label, 3.4)
    np.testing.assert_allclose([truth["x"] * 100, truth["y"] * 100], square.centre, atol=1e-3)
    assert truth["side"] * 100 == pytest.approx(square.side, rel=1e-4)
    assert truth["roll"] == pytest.approx(square.roll, abs=1.5)
    assert square.yaw == pytest.approx(np.rad2deg(2.5), abs=1e-3)


def squares(count=12):
    for _ in range(count):
        yield Square(RNG.uniform(50, 200, 2), RNG.uniform(40, 90), *RNG.uniform(-30, 30, 3))


def test_the_mean_step_is_found_and_applied():
    step = Step(scale=0.8, down=-0.1)
    pairs = [(square, step(square)) for square in squares()]
    found = mean_step(pairs)
    assert (found.scale, found.down) == pytest.approx((0.8, -0.1))
    for seen, true in pairs:
        np.testing.assert_allclose(found(seen).quad, true.quad, atol=1e-9)
    assert mean_step([]) == Step()


def test_a_step_to_the_side_of_one_picture_is_none_of_all():
    """The mirror image of every picture might be in the set: only what is the same for both is corrected."""
    upright = [
        (Square(s.centre, s.side, 0, 0, 0), Square(s.centre + np.array([5, 0]), s.side, 0, 0, 0)) for s in squares()
    ]
    assert mean_step(upright).down == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("yaw", [-170.0, -60.0, 0.0, 44.0, 90.0, 136.0])
def test_a_label_is_a_camera_on_the_sphere_that_looks_at_the_head(yaw):
    label = torch.from_numpy(camera_of(Square(np.zeros(2), 50, 5, yaw, 12), 1.25))
    geometry.check_label(label)
    azimuth, elevation, radius = geometry.spherical_angles(geometry.unpack_label(label)[0])
    assert np.rad2deg([azimuth, elevation]) == pytest.approx([yaw, 12], abs=1e-6)
    assert float(radius) == pytest.approx(2.7)
    assert float(label[16]) == pytest.approx(CROP_FOCAL / 1.25)
    uv, _ = geometry.project(label[None], torch.zeros(1, 1, 3, dtype=torch.float64))
    np.testing.assert_allclose(uv[0, 0], [0.5, 0.5], atol=1e-9)
    assert view_of(yaw) == ("front" if abs(yaw) < 45 else "side" if abs(yaw) < 135 else "back")


GOOD = {
    "seen_x": 200.0, "seen_y": 200.0, "seen_side": 150.0, "seen_roll": 0.0, "seen_yaw": 150.0, "seen_pitch": 0.0,
    "presence": 0.9, "flip_error": 3.0, "faces": 0, "width": 400, "height": 400, "box": [1.0, 2.0, 3.0, 4.0],
    "kept": True, "reason": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"presence": 0.2}, "no_head"),
        ({"faces": 2}, "several_heads"),
        ({"flip_error": 50.0}, "flip_inconsistent"),
        ({"seen_pitch": 85.0}, "tilted_too_far"),
        ({"seen_roll": -60.0}, "rolled_too_far"),
        ({"seen_side": 50.0}, "crop_too_small"),
        ({"seen_x": 390.0, "seen_y": 390.0}, "too_far_outside"),
    ],
)
def test_every_limit_has_its_reason(change, reason):
    table = decide(pa.Table.from_pylist([GOOD | change | {"id": "a"}], schema=SEEN), {}, {}, HeadsParams())
    (row,) = table.to_pylist()
    assert (row["reason"], row["kept"], row["method"]) == (reason, reason is None, "network")


def test_a_head_from_the_front_must_show_a_face():
    seen = [GOOD | {"id": key, "seen_yaw": yaw} for key, yaw in (("a", 10.0), ("b", -59.0), ("c", 61.0), ("d", 10.0))]
    table = decide(pa.Table.from_pylist(seen, schema=SEEN), {}, {}, HeadsParams(), faceless={"a", "b", "c"})
    assert table.column("reason").to_pylist() == ["face_unseen", "face_unseen", None, None]


def test_landmarks_win_where_they_are_and_must_agree_with_the_network():
    seen = [GOOD | {"id": key, "seen_yaw": yaw} for key, yaw in (("near", 10.0), ("far", 120.0), ("back", 175.0))]
    face = Square(np.array([205.0, 190.0]), 120.0, 0.0, 5.0, 0.0)
    faces, ratios = {"near": face, "far": face}, {"near": 1.0, "far": 1.0}
    near, far, back = decide(pa.Table.from_pylist(seen, schema=SEEN), faces, ratios, HeadsParams()).to_pylist()
    assert (near["method"], near["reason"], near["yaw"]) == ("landmarks", None, 5.0)
    assert near["disagreement"] == pytest.approx(5, abs=0.01)
    assert far["reason"] == "labels_disagree"
    assert back["method"] == "network"
    quad = np.array(back["quad"]).reshape(4, 2)
    # Moved as the front pictures say, to a hundredth of the side, but not sideways.
    np.testing.assert_allclose(quad.mean(0)[0], 200, atol=1e-4)
    np.testing.assert_allclose(quad.mean(0)[1], 190, atol=0.5)
    assert quad_side(quad) == pytest.approx(120, rel=1e-5)
    wrong = decide(pa.Table.from_pylist(seen[:1], schema=SEEN), faces, {"near": 1.5}, HeadsParams()).to_pylist()
    assert wrong[0]["reason"] == "scale_out_of_range"


def test_the_angle_between_rotations():
    a = Square(np.zeros(2), 1, 0, 20, 0).rotation
    b = Square(np.zeros(2), 1, 0, -15, 0).rotation
    assert rotation_angle(a, b) == pytest.approx(35)
    c = Square(np.zeros(2), 1, 25, 20, 0).rotation
    assert rotation_angle(a, c) == pytest.approx(25)
