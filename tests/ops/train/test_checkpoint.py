"""Checkpoints: what goes in comes out, and what is damaged, foreign or a pickle is refused in words."""

import errno
import json

import pytest
import torch
from torch import nn

from ops.runtime.errors import LineamentError
from ops.train import checkpoint
from ops.train.checkpoint import Checkpoint


def content(step=3):
    generator = torch.Generator().manual_seed(step)
    networks = {"a/weight": torch.randn(4, 3, generator=generator), "a/count": torch.tensor(step)}
    return Checkpoint({"networks": networks, "averaged": {}}, {"step": step, "config": {"x": {"y": 1}}, "data": "d"})


def test_round_trip(tmp_path):
    path = checkpoint.write(tmp_path, 3, content(), keep=2)
    read = checkpoint.read(path, same={"config": {"x": {"y": 1}}, "data": "d"})
    assert read.record["step"] == 3
    assert read.tensors["averaged"] == {}
    for name, tensor in content().tensors["networks"].items():
        assert torch.equal(read.tensors["networks"][name], tensor)
        assert read.tensors["networks"][name].dtype == tensor.dtype


def test_the_newest_ones_are_kept_and_half_written_ones_do_not_count(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    for step in (9, 10, 12345678, 11):
        checkpoint.write(tmp_path, step, content(step), keep=3)
    assert [p.name for p in checkpoint.all_of(tmp_path)] == ["step-0000010", "step-0000011", "step-12345678"]
    (tmp_path / ".step-99999999.partial-1-abc").mkdir()
    (tmp_path / "step-final").mkdir()
    assert checkpoint.newest(tmp_path).name == "step-12345678"


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def pickled(path):
    torch.save({"a": torch.zeros(2)}, path)


def edit(**changes):
    def apply(path):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return apply


@pytest.mark.parametrize(
    ("name", "harm", "words"),
    [
        ("networks.safetensors", cut, "bytes, where"),
        ("networks.safetensors", flip, "sha256"),
        ("networks.safetensors", pickled, "is a pickle"),
        ("networks.safetensors", lambda p: p.unlink(), "is missing"),
        ("state.json", cut, None),
        ("state.json", lambda p: p.write_bytes(b"\xff\xfe"), "is damaged"),
        ("state.json", lambda p: p.write_text("[]"), "is damaged"),
        ("state.json", lambda p: p.unlink(), "is missing"),
        ("state.json", edit(format=99), "format 99"),
        ("state.json", edit(config={"x": {"y": 2}}), "config.x.y was 2 and is now 1"),
        ("state.json", edit(data="e"), "data was 'e' and is now 'd'"),
    ],
)
def test_a_checkpoint_that_cannot_be_trusted_is_refused_with_a_remedy(tmp_path, name, harm, words):
    path = checkpoint.write(tmp_path, 3, content(), keep=2)
    harm(path / name)
    if words is None:  # the last byte of the record is its closing newline: nothing is lost
        assert checkpoint.read(path).record["step"] == 3
        harm(path / name)
        words = "is damaged"
    with pytest.raises(LineamentError, match=words) as error:
        checkpoint.read(path, same={"config": {"x": {"y": 1}}, "data": "d"})
    assert str(path) in str(error.value)
    assert "is a pickle" in words or f"Delete {path} to go on" in str(error.value)


def test_a_pickle_with_a_matching_record_is_refused_all_the_same(tmp_path):
    path = checkpoint.write(tmp_path, 3, content(), keep=2)
    file = path / "networks.safetensors"
    pickled(file)
    files = {file.name: {"bytes": file.stat().st_size, "sha256": checkpoint.file_sha256(file)}}
    edit(files=files)(path / "state.json")
    with pytest.raises(LineamentError, match="is a pickle, which can run any code"):
        checkpoint.read(path)


def test_another_architecture_is_refused_and_named():
    tensors = {**nn.Linear(3, 2).state_dict(), "odd": torch.zeros(1)}
    with pytest.raises(LineamentError, match=r"weight is \[2, 3\] where \[2, 4\] is wanted"):
        checkpoint.load_network(nn.Linear(4, 2), nn.Linear(3, 2).state_dict(), "file")
    with pytest.raises(LineamentError, match="has odd too many"):
        checkpoint.load_network(nn.Linear(3, 2), tensors, "file")
    with pytest.raises(LineamentError, match=r"file: .* lacks bias"):
        checkpoint.load_network(nn.Linear(3, 2), {"weight": torch.zeros(2, 3)}, "file")


@pytest.mark.parametrize(
    "build",
    [
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.0, 0.99)),
        lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    ],
)
def test_an_optimiser_goes_on_exactly_after_json_and_safetensors(tmp_path, build):
    def run(steps, network, optimizer):
        for step in range(steps):
            optimizer.zero_grad()
            network(torch.full((1, 3), 1.0 + step)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = build(network.parameters())
    run(3, network, optimizer)
    tensors, record = checkpoint.pack_optimizer(optimizer)
    folder = checkpoint.write(tmp_path, 0, Checkpoint({"optimizers": tensors}, {"o": record}), keep=1)
    read = checkpoint.read(folder)
    twin = nn.Linear(3, 2)
    twin.load_state_dict(network.state_dict())
    other = build(twin.parameters())
    checkpoint.unpack_optimizer(other, read.tensors["optimizers"], read.record["o"])
    assert other.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    run(3, network, optimizer)
    run(3, twin, other)
    assert torch.equal(network.weight, twin.weight)


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    checkpoint.write(tmp_path, 1, content(1), keep=1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(LineamentError, match="disk is full"):
        checkpoint.write(tmp_path, 2, content(2), keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000001"]
    assert checkpoint.read(checkpoint.newest(tmp_path)).record["step"] == 1
