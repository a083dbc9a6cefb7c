"""Deep3DFaceRecon's network: the layout of its authors' checkpoint, and where it looks in FFHQ's square."""

import numpy as np
import pytest
import torch

from models.deep3d import FIVE, SCALE, SIDE, Deep3DFaceRecon, FaceReader, window


def state():
    """Random weights by the names and shapes of the published checkpoint, written out here once more."""
    torch.manual_seed(0)
    shapes = {"backbone.conv1.weight": (64, 3, 7, 7)}

    def norm(name, channels):
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("backbone.bn1", 64)
    width = 64
    for layer, (inner, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(blocks):
            name = f"backbone.layer{layer}.{block}"
            for n, (a, b, kernel) in enumerate(((width, inner, 1), (inner, inner, 3), (inner, 4 * inner, 1)), 1):
                shapes[f"{name}.conv{n}.weight"] = (b, a, kernel, kernel)
                norm(f"{name}.bn{n}", b)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * inner, width, 1, 1)
                norm(f"{name}.downsample.1", 4 * inner)
            width = 4 * inner
    for n, size in enumerate((80, 64, 80, 3, 27, 2, 1)):
        shapes[f"final_layers.{n}.weight"], shapes[f"final_layers.{n}.bias"] = (size, 2048, 1, 1), (size,)

    def fill(name, shape):
        if name.endswith("num_batches_tracked"):
            return torch.tensor(1)
        if name.endswith("running_var"):
            return torch.ones(shape)
        return torch.randn(shape) / max(1, int(np.prod(shape[1:]))) ** 0.5

    return {name: fill(name, shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def network():
    return Deep3DFaceRecon.from_state(state())


def test_it_takes_the_published_layout_and_no_other(network):
    assert sum(p.numel() for p in network.parameters()) == 23_508_032 + 257 * 2049  # ResNet-50 without its classifier
    given = state()
    lean = {name: value for name, value in given.items() if not name.endswith("num_batches_tracked")}
    assert Deep3DFaceRecon.from_state(lean).final_layers[0].weight.equal(given["final_layers.0.weight"])
    lacking = {name: value for name, value in given.items() if name != "final_layers.6.bias"}
    for wrong in (lacking, {**given, "fc.weight": torch.zeros(1)}, {**given, "final_layers.1.bias": torch.zeros(52)}):
        with pytest.raises(ValueError, match="not Deep3DFaceRecon weights"):
            Deep3DFaceRecon.from_state(wrong)


def test_coefficients_come_in_their_order(network):
    x = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        features = network.backbone(x)
        reading = network(x)
        flat = torch.cat([layer(features).flatten(1) for layer in network.final_layers], 1)
    assert features.shape == (1, 2048, 1, 1)
    assert [part.shape[1] for part in reading] == [80, 64, 80, 3, 27, 3]
    torch.testing.assert_close(torch.cat(reading, 1), flat)
    assert flat.shape == (1, 257)


def test_the_standard_face_stands_where_it_is_trained_to_stand_in_ffhqs_square(network):
    """Marks at the eyes and the mouth of a face in FFHQ's square fall on the standard face's five points."""
    side, left, top = window()
    five = np.array(FIVE)
    eyes, mouth = five[:2, :2].mean(0), five[3:, :2].mean(0)
    down = eyes[1] - mouth[1]
    square = max(4 * (five[1, 0] - five[0, 0]), 3.6 * down)  # decimetres across FFHQ's square
    face = torch.full((1, 3, 506, 506), -1.0)
    for x, y, _ in five:
        column = (0.5 + (x - eyes[0]) / square) * 506
        row = (0.5 - 0.1 * down / square + (eyes[1] - y) / square) * 506
        face[:, :, round(row) - 3 : round(row) + 4, round(column) - 3 : round(column) + 4] = 1
    aligned = FaceReader(network).aligned(face)
    assert aligned.shape == (1, 3, SIDE, SIDE)
    assert aligned.min() >= 0
    for x, y, _ in five:
        column, row = SIDE / 2 + SCALE * x, SIDE / 2 - SCALE * y
        assert aligned[0, 0, round(row), round(column)] > 0.5
    assert 0 < left < side - SIDE
    assert top > 0


def test_gradients_reach_the_picture_and_not_the_network(network):
    face = torch.rand(1, 3, 32, 32, requires_grad=True)
    identity, expression = FaceReader(network)(face)
    assert (identity.shape, expression.shape) == ((1, 80), (1, 64))
    (identity.sum() + expression.sum()).backward()
    assert face.grad.abs().max() > 0
    assert all(p.grad is None for p in network.parameters())
