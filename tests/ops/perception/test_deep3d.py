"""Deep3DFaceRecon's file, the authors' or as safetensors, faces aligned by five points, and what is refused."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.deep3d import FIVE, SCALE, SIDE
from ops.curate.crop import to_crop
from ops.perception import deep3d
from ops.runtime.errors import LineamentError
from tests.models.test_deep3d import state


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same random weights in both formats."""
    root, tensors = tmp_path_factory.mktemp("deep3d"), state()
    torch.save({"net_recon": tensors, "opt_00": {"state": {}, "param_groups": [{"lr": 1e-4}]}}, root / deep3d.AUTHORS)
    save_file(tensors, root / "deep3dfacerecon.safetensors")
    return root


@pytest.fixture
def user(files, tmp_path, monkeypatch):
    """A project without the weights."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/weights/user"
    folder.mkdir(parents=True)
    return folder


def test_both_files_are_found_and_read_alike(files, user):
    with pytest.raises(
        LineamentError, match="published at github.com/sicxu/Deep3DFaceRecon_pytorch.*train_coefficients"
    ):
        deep3d.weights_file()
    (user / deep3d.AUTHORS).symlink_to(files / deep3d.AUTHORS)
    assert deep3d.weights_file().name == deep3d.AUTHORS
    one = deep3d.deep3d(deep3d.weights_file())
    (user / "deep3dfacerecon.safetensors").symlink_to(files / "deep3dfacerecon.safetensors")
    assert deep3d.weights_file().suffix == ".safetensors"
    other = deep3d.deep3d(deep3d.weights_file())
    assert all(a.equal(b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))
    image = np.random.default_rng(0).integers(0, 256, (300, 280, 3), dtype=np.uint8)
    five = np.array([[100, 120], [180, 120], [140, 170], [110, 210], [170, 210]], float)
    read = [deep3d.read_face(image, five, network) for network in (one, other)]
    assert all(torch.equal(a, b) for a, b in zip(*read))
    assert read[0].expression.shape == (1, 64)
    assert read[0].identity.isfinite().all()


def test_other_files_are_refused_by_name(files, user):
    path = user / "deep3dfacerecon.safetensors"
    save_file({"backbone.conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(LineamentError, match="not Deep3DFaceRecon weights"):
        deep3d.deep3d(path)
    cut = user / "cut.safetensors"
    shutil.copy(files / "deep3dfacerecon.safetensors", cut)
    with cut.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(LineamentError, match="cannot be read"):
        deep3d.deep3d(cut)


@pytest.mark.parametrize("scale", [40.0, 200.0])
def test_a_face_is_aligned_wherever_it_stands(scale):
    """The standard face, seen from in front at any size and place, falls where the network is used to see it."""
    five = np.array(FIVE)
    seen = np.array([300.0, 200.0]) + scale * five[:, :2] * [1, -1]
    found = to_crop(seen, deep3d.square_of(seen)) * SIDE
    np.testing.assert_allclose(found, SIDE / 2 + SCALE * five[:, :2] * [1, -1], atol=1e-6)
    with pytest.raises(LineamentError, match="cannot be aligned"):
        deep3d.square_of(np.zeros((5, 2)))


def test_the_five_points_of_facemesh():
    points = np.zeros((468, 3))
    for number, place in {
        33: (0, 0),
        133: (2, 0),
        362: (4, 0),
        263: (6, 0),
        1: (3, 2),
        61: (1, 5),
        291: (5, 5),
    }.items():
        points[number, :2] = place
    assert deep3d.five_of(points).tolist() == [[1, 0], [5, 0], [3, 2], [1, 5], [5, 5]]
