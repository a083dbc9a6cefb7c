"""A checkpoint behind the one interface: which picture is whose, from where."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from models.giraffe import Generator, Latents, view_label
from ops.apply.generators import load_generator, to_uint8
from ops.runtime.errors import LineamentError
from ops.train.export import read_weights

spec = importlib.util.spec_from_file_location("fixtures", Path(__file__).parents[1] / "evaluate/fixtures.py")
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fixtures.write_checkpoint(tmp_path_factory.mktemp("c") / "giraffe", "giraffe")


def test_object_and_angle_of_every_picture(folder):
    """Entry [i, a] is object i from angle a, drawn alone from the codes of its seed."""
    renderer = load_generator(folder)
    images = renderer.render([5, 9, 5], [0.0, 40.0])
    assert images.shape == (3, 2, 32, 32, 3)
    net = Generator(fixtures.TINY).eval()
    net.load_state_dict(dict(read_weights(folder)))
    for i, seed in enumerate([5, 9, 5]):
        codes = net.sample_latents(1, torch.Generator().manual_seed(seed))
        for a, azimuth in enumerate([0.0, 40.0]):
            label = view_label(fixtures.TINY, torch.tensor([math.radians(azimuth)]))
            with torch.no_grad():
                alone = to_uint8(net(Latents(*codes), label))[0]
            assert np.abs(alone.astype(int) - images[i, a]).max() <= 1
    assert (images[0] == images[2]).all()
    assert (images[0, 0] != images[0, 1]).any()
    assert (images[0] != images[1]).any()


def test_batches_do_not_show(folder):
    renderer = load_generator(folder)
    whole = renderer.render(range(3), [0.0, 20.0])
    renderer.batch = 4
    assert np.abs(renderer.render(range(3), [0.0, 20.0]).astype(int) - whole).max() <= 1


def test_uint8_is_exact_at_the_ends_and_the_middle():
    image = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_uint8(image)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_digest_follows_weights_not_comments(folder, tmp_path):
    same = fixtures.write_checkpoint(tmp_path / "same", "giraffe", step=99)
    other = fixtures.write_checkpoint(tmp_path / "other", "giraffe", seed=1)
    digests = [load_generator(f).digest for f in (folder, same, other)]
    assert digests[0] == digests[1] != digests[2]


def test_wrong_checkpoints_are_named(tmp_path):
    with pytest.raises(LineamentError, match="missing"):
        load_generator(tmp_path)
    folder = fixtures.write_checkpoint(tmp_path / "x", "giraffe", system="nerf")
    with pytest.raises(LineamentError, match="system 'nerf'; known: giraffe"):
        load_generator(folder)
    folder = fixtures.write_checkpoint(tmp_path / "y", "giraffe")
    record = json.loads((folder / "config.json").read_text())
    record["params"]["model"]["z_dim"] = 8
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(LineamentError, match="another architecture"):
        load_generator(folder)
    record["params"]["model"]["z_dimm"] = 8
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(LineamentError, match="nearest valid key is 'z_dim'"):
        load_generator(folder)
