"""Reading by number: exact epochs, resumable at any sample, shared out without overlap."""

import itertools

import pytest

from ops.runtime.errors import LineamentError
from ops.store.reader import EpochSampler, Position, ShardDataset
from ops.store.tar import ShardWriter


@pytest.fixture
def dataset(tmp_path):
    with ShardWriter(tmp_path / "shards", 4) as writer:
        for i in range(11):
            writer.add(f"s{i}", {"txt": str(i).encode()})
    return ShardDataset(tmp_path / "shards")


def take(sampler, n):
    return list(itertools.islice(sampler, n))


def test_numbers_follow_the_shards(dataset):
    assert [dataset.read(i)["txt"] for i in range(len(dataset))] == [str(i).encode() for i in range(11)]
    with pytest.raises(IndexError):
        dataset.read(11)


def test_the_hash_follows_the_content(dataset, tmp_path):
    with ShardWriter(tmp_path / "other", 4) as writer:
        for i in range(11):
            writer.add(f"s{i}", {"txt": str(i + 1).encode()})
    assert dataset.hash == ShardDataset(dataset.folder).hash
    assert dataset.hash != ShardDataset(tmp_path / "other").hash


def test_each_epoch_visits_all_once_in_its_own_order():
    order = take(EpochSampler(50, seed=3), 150)
    epochs = [order[:50], order[50:100], order[100:]]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order == take(EpochSampler(50, seed=3), 150)
    assert order != take(EpochSampler(50, seed=4), 150)


@pytest.mark.parametrize("stop", [0, 1, 49, 50, 51, 120])
def test_resumes_at_the_next_sample(stop):
    whole = take(EpochSampler(50, seed=3), 170)
    first = EpochSampler(50, seed=3)
    begun = take(first, stop)
    resumed = EpochSampler(50, seed=3, start=first.position)
    assert begun + take(resumed, 170 - stop) == whole


def test_ranks_share_an_epoch_without_overlap():
    parts = [take(EpochSampler(50, 3, rank, 3), 16) for rank in range(3)]
    seen = [sample for part in parts for sample in part]
    assert len(set(seen)) == 48
    assert [s for trio in zip(*parts) for s in trio] == EpochSampler(50, 3).order(0).tolist()[:48]


def test_wrong_places_are_refused():
    with pytest.raises(LineamentError, match="fewer"):
        EpochSampler(2, world=3)
    with pytest.raises(LineamentError, match="rank"):
        EpochSampler(9, rank=3, world=3)
    with pytest.raises(LineamentError, match="outside"):
        EpochSampler(9, start=Position(0, 10))
