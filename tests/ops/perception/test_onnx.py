"""Networks of the user, played by ONNX files of a few nodes: head boxes in both layouts, parsers, swaps."""

import numpy as np
import pytest
from pydantic import ValidationError

from ops.curate.anonymise import AnonymiseParams, anonymous, hide_faces
from ops.curate.camera import CROP_FOCAL
from ops.curate.parse import Voter
from ops.curate.squares import Square, camera_of
from ops.perception.onnx import OnnxNetwork
from ops.perception.yolo import SIZE, head_boxes, square_of_box
from ops.runtime.errors import LineamentError
from ops.store.parsing import CLASSES
from ops.store.pictures import encode_png

from .tiny_onnx import model, node

RNG = np.random.default_rng(0)


def constant_rows(path, rows):
    """A network that says the same of every picture: the rows, plus nothing times the picture."""
    rows = np.asarray(rows, np.float32)
    nodes = [
        node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        node("Mul", ["mean", "zero"], ["nothing"]),
        node("Add", ["nothing", "rows"], ["y"]),
    ]
    constants = {"zero": np.zeros(1), "rows": rows}
    path.write_bytes(model(nodes, constants, {"x": (1, 3, SIZE[1], SIZE[0])}, {"y": rows.shape}))
    return path


BOXES = [(100, 120, 180, 220, 0.9), (104, 122, 182, 221, 0.8), (300, 100, 500, 300, 0.7), (10, 10, 40, 40, 0.3)]


@pytest.mark.parametrize("layout", ["corners", "centre"])
def test_head_boxes_come_back_in_the_pictures_pixels_without_repeats(tmp_path, layout):
    if layout == "corners":
        rows = [(0, 0, s, x0, y0, x1, y1) for x0, y0, x1, y1, s in BOXES]
    else:
        rows = [((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, s, 1.0) for x0, y0, x1, y1, s in BOXES]
    path = constant_rows(tmp_path / f"{layout}.onnx", rows)
    image = np.zeros((240, 320, 3), np.uint8)  # half the network's size: no bars
    found = head_boxes(image, path)
    np.testing.assert_allclose([box for box, _ in found], [[150, 50, 250, 150], [50, 60, 90, 110]], atol=1e-4)
    assert [score for _, score in found] == pytest.approx([0.7, 0.9], abs=1e-6)
    tall = head_boxes(np.zeros((960, 640, 3), np.uint8), path)  # shrunk to 320 x 480: bars of 160 on both sides
    np.testing.assert_allclose(tall[0][0], [280, 200, 680, 600], atol=1e-4)
    centre, side = square_of_box(np.array([50.0, 60.0, 90.0, 110.0]))
    assert (*centre, side) == pytest.approx((70, 85, 60))


def test_files_that_are_no_networks_are_named(tmp_path):
    with pytest.raises(LineamentError, match="no such network"):
        OnnxNetwork(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"this is no network" * 10)
    with pytest.raises(LineamentError, match="cannot be read as an ONNX network"):
        OnnxNetwork(tmp_path / "bad.onnx")
    path = constant_rows(tmp_path / "few.onnx", [(1.0, 2.0, 3.0)])
    with pytest.raises(LineamentError, match="3 columns"):
        head_boxes(np.zeros((48, 64, 3), np.uint8), path)


def painter(path, side, channels):
    """A 'parser' whose scores are the picture's normalised colours, turned round."""
    weights = np.zeros((channels, 3, 1, 1))
    for c in range(channels):
        weights[c, c % 3] = 1 if c < 3 else -1
    nodes = [node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])]
    path.write_bytes(model(nodes, {"w": weights}, {"x": (1, 3, side, side)}, {"y": (1, channels, side, side)}))
    return path


def test_a_users_parser_votes_in_the_projects_classes(tmp_path):
    path = painter(tmp_path / "p.onnx", 32, 3)
    voter = Voter(network=path, side=32, classes=("hair", "background", "skin"))
    crop = np.zeros((32, 32, 3), np.uint8)
    crop[:16, :, 0] = crop[16:, :16, 1] = crop[16:, 16:, 2] = 255
    classes = voter.vote(crop).argmax(0)
    assert set(np.unique(classes[:16])) == {CLASSES.index("hair")}
    assert set(np.unique(classes[16:, :16])) == {CLASSES.index("background")}
    assert set(np.unique(classes[16:, 16:])) == {CLASSES.index("skin")}
    with pytest.raises(LineamentError, match="names 3 classes"):
        Voter(network=path, side=32).vote(crop)
    with pytest.raises(ValidationError, match="no class 'tail'"):
        Voter(network=path, classes=("tail",))
    assert sorted(Voter(network=path).classes) == sorted(CLASSES)


def portrait():
    y, x = np.mgrid[:200, :200]
    return np.stack([(x * 7 + y * 3) % 256, (x * y) % 256, (x + y * 11) % 256], -1).astype(np.uint8)


@pytest.mark.parametrize("method", ["pixelate", "blur"])
def test_what_is_in_the_box_is_lost_and_all_else_is_kept(method):
    image = portrait()
    params = AnonymiseParams(method=method, margin=1.5)
    hidden = hide_faces(image, [np.array([80.0, 80.0, 120.0, 120.0])], params, "k")
    inside, far = np.s_[90:110, 90:110], np.ones((200, 200), bool)
    far[65:135, 65:135] = False
    assert (hidden[far] == image[far]).all()
    assert (
        np.abs(np.diff(hidden[inside].astype(float), axis=0)).mean()
        < 0.2 * np.abs(np.diff(image[inside].astype(float), axis=0)).mean()
    )
    other = image.copy()
    other[101:107, 101:107] = image[101:107, 101:107][::-1]  # other places within a cell of the mosaic
    again = hide_faces(other, [np.array([80.0, 80.0, 120.0, 120.0])], params, "k")
    moved, changed = (np.abs(a[inside].astype(int) - b[inside]).mean() for a, b in ((other, image), (again, hidden)))
    assert changed < 0.3 * moved
    assert (hide_faces(image, [np.zeros(4)], AnonymiseParams(), "k") == image).all()


def test_a_swap_puts_the_donors_pixels_there(tmp_path):
    nodes = [
        node("Mul", ["target", "little"], ["t"]),
        node("Mul", ["source", "much"], ["s"]),
        node("Add", ["t", "s"], ["y"]),
    ]
    shape = (1, 3, 64, 64)
    constants = {"little": np.full((1, 1, 1, 1), 0.1), "much": np.full((1, 1, 1, 1), 0.9)}
    path = tmp_path / "swap.onnx"
    path.write_bytes(model(nodes, constants, {"target": shape, "source": shape}, {"y": shape}))
    donors = tmp_path / "donors"
    donors.mkdir()
    params = AnonymiseParams(method="swap", network=path, donors=donors, side=64)
    image, box = portrait(), np.array([80.0, 80.0, 120.0, 120.0])
    with pytest.raises(LineamentError, match="no donor"):
        hide_faces(image, [box], params, "k")
    for shade in (200, 90):
        (donors / f"{shade}.png").write_bytes(encode_png(np.full((80, 70, 3), shade, np.uint8)))
    results = {k: hide_faces(image, [box], params, k) for k in "abcdefgh"}
    for key, result in results.items():
        rest = result[95:105, 95:105] - 0.1 * image[95:105, 95:105]
        shade = min((200, 90), key=lambda s: abs(rest.mean() - 0.9 * s))
        assert np.abs(rest - 0.9 * shade).max() < 16
        assert (hide_faces(image, [box], params, key) == result).all()
    assert len({r.tobytes() for r in results.values()}) == 2
    with pytest.raises(ValidationError, match="needs network"):
        AnonymiseParams(method="swap")


def test_a_heads_face_is_hidden_where_the_camera_sees_it(weights, monkeypatch):
    monkeypatch.setattr("ops.curate.anonymise.EMBEDDED", weights)
    crop = RNG.integers(0, 255, (128, 128, 3), dtype=np.uint8)
    front, back = (camera_of(Square(np.zeros(2), 1, 0, yaw, 0), 1.0) for yaw in (10, 170))
    assert front[16] == pytest.approx(CROP_FOCAL)
    hidden = anonymous(crop, front, AnonymiseParams(method="pixelate"), "k")
    assert (hidden != crop).any(-1)[56:80, 56:72].mean() > 0.9
    assert (anonymous(crop, back, AnonymiseParams(method="pixelate"), "k") == crop).all()
    assert anonymous(crop, front, AnonymiseParams(), "k") is crop


def test_every_detected_face_of_a_photo_is_hidden(weights, monkeypatch, astronaut):
    from ops.curate.detect import DetectParams, find_faces

    monkeypatch.setattr("ops.curate.anonymise.EMBEDDED", weights)
    back = camera_of(Square(np.zeros(2), 1, 0, 180, 0), 1.0)
    assert find_faces(astronaut, weights, DetectParams())
    for method in ("pixelate", "blur"):
        hidden = anonymous(astronaut, back, AnonymiseParams(method=method, cells=4), "k")
        (face, *_) = find_faces(astronaut, weights, DetectParams())
        x, y = ((face.box[:2] + face.box[2:]) / 2).astype(int)
        middle = np.s_[y - 20 : y + 20, x - 20 : x + 20]
        assert np.abs(hidden[middle].astype(int) - astronaut[middle]).mean() > 8
