"""What the encoders' stages are made of: footage, the pool of styles, the losses' networks."""

import pytest
import torch

from models.arcface import SIDE
from ops.evaluate.identity import ARCFACE_CHIP
from ops.runtime.errors import LineamentError
from ops.train.footage import Footage
from ops.train.likeness import chip
from ops.train.objectives.image_encoders import psnr
from ops.train.objectives.latent_encoder import LatentObjective, LatentTraining, Pool
from tests.ops.train.tiny_faces import write_clips


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "clips"
    write_clips(folder, count=4)
    return Footage(folder, 64)


def test_frames_come_with_their_own_codes_and_cameras(footage):
    taken = footage.take([2, 0], [[3, 1], [0, 6]])
    assert taken.image.shape == (2, 2, 3, 64, 64)
    assert taken.image.abs().max() <= 1
    other = footage.take([2], [[1]])
    assert torch.equal(taken.image[0, 1], other.image[0, 0])
    assert taken.motion.camera[0, 1].tolist() == pytest.approx(footage.labels[2]["camera"][1])
    assert taken.motion.expression[1, 1].tolist() == pytest.approx(footage.labels[0]["expression"][6])
    assert taken.motion.identity[0].tolist() == pytest.approx(footage.labels[2]["identity"])


def test_sequences_repeat_no_frame_while_there_are_others(footage):
    random = torch.Generator().manual_seed(0)
    which, frames = footage.choose(16, 7, random)
    assert set(which) == {0, 1, 2, 3}
    assert all(sorted(f) == list(range(7)) for f in frames)
    assert len({tuple(f) for f in frames}) > 8, "in any order"
    _, longer = footage.choose(1, 10, random)
    assert len(longer[0]) == 10
    assert (which, frames) == footage.choose(16, 7, torch.Generator().manual_seed(0))


def test_clips_held_out_are_not_trained_on(footage):
    train, held_out = footage.split(0.25)
    assert (train.numbers, held_out.numbers) == ([0, 1, 2], [3])
    assert train.hash != held_out.hash
    assert held_out.labels[0] == footage.labels[3]
    one = Footage(footage.folder, 64, [1])
    assert [len(part) for part in one.split(0.25)] == [1, 0], "a single clip is trained on"


def test_clips_smaller_than_training_wants_are_refused(footage):
    with pytest.raises(LineamentError, match="clips of 64 pixels, where training wants 128"):
        Footage(footage.folder, 128)


def test_the_pool_gives_out_old_styles_and_keeps_new_ones():
    pool, random = Pool(4, 2), torch.Generator().manual_seed(0)
    first = torch.arange(8.0).view(4, 2)
    assert torch.equal(pool.exchange(first, random), first)
    assert torch.equal(pool.kept, first)
    new = 100 + torch.arange(40.0).view(20, 2)
    given = pool.exchange(new, random)
    old = given[:, 0] != new[:, 0]
    assert 4 < old.sum() < 16
    everything = torch.cat([given, pool.kept])[:, 0].sort().values
    assert torch.equal(everything, torch.cat([first, new])[:, 0].sort().values), "each style is in one place"


def test_styles_are_let_differ_one_after_the_other():
    training = LatentTraining(second_style=100, next_style=10)
    objective = LatentObjective.__new__(LatentObjective)
    objective.training = training
    assert [objective.enabled(n) for n in (0, 99, 100, 109, 110, 200)] == [1, 1, 2, 2, 3, 12]


def test_the_recognisers_chip_is_that_part_of_the_crop():
    side = 256
    line = (torch.arange(side) + 0.5) / side
    image = torch.stack([line.expand(side, side), line[:, None].expand(side, side), torch.zeros(side, side)])[None]
    found = chip(image.requires_grad_())
    assert found.shape == (1, 3, SIDE, SIDE)
    middle = found[0, :2, SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1].mean((1, 2))
    at = ARCFACE_CHIP
    torch.testing.assert_close(middle, torch.tensor([at.left + at.side / 2, at.top + at.side / 2]), atol=2e-3, rtol=0)
    found.sum().backward()
    assert image.grad is not None


def test_decibels():
    a = torch.zeros(1, 3, 4, 4)
    torch.testing.assert_close(psnr(a, a + 2), torch.zeros(1))
    torch.testing.assert_close(psnr(a, a + 0.2), torch.full((1,), 20.0))
