"""The stage train_portrait from command line to published checkpoint, both stages of training, on tiny generators."""

import json

import numpy as np
import pytest
import torch
import yaml

from models.camera import intrinsics, pack_label, pose_on_sphere
from models.coefficients import Coefficients, CoefficientsConfig
from models.portrait import PortraitConfig, PortraitGenerator
from ops.store.pictures import encode_jpeg
from ops.store.tar import ShardWriter
from ops.train import checkpoint
from ops.train.export import read_config, read_weights
from ops.train.objectives.portrait import PortraitObjective
from ops.train.portrait import main
from tests.models.toy_people import toy_people
from tests.ops.train.test_portrait_objective import prior

SECTION = {
    "trainer": {
        "images": 12, "batch": 2, "device": "cpu", "threads": 1, "workers": 0, "log_every": 2, "checkpoint_every": 2,
        "snapshot_every": 3, "grid_rows": 1, "grid_columns": 2, "tensorboard": False, "ema": 0.5,
    },
    "model": {
        "expression": 52, "noise": 4, "manifolds": {"width": 8, "count": 4, "samples": 8},
        "radiance": {"width": 8, "layers": 3, "mapping_width": 8, "features": 4},
        "expression_field": {"width": 8, "layers": 2, "mapping_width": 8}, "pose": {"kernel": [3, 3, 3]},
        "atlas": {"resolution": 16, "channels": 8, "blocks": 1, "growth": 4},
    },
    "discriminator": {"channels": 8, "budget": 128},
    "objective": {"portrait": 16, "face": 16, "deformed_points": 32},
}  # fmt: skip


def write_shards(folder, side=32, faces=True):
    label = pack_label(pose_on_sphere(torch.tensor(0.1), torch.tensor(0.0)), intrinsics()).tolist()
    with ShardWriter(folder, per_shard=8) as writer:
        for number in range(6):
            image = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
            fields = {"jpg": encode_jpeg(image), "json": json.dumps({"camera": label}).encode()}
            writer.add(f"{number:016x}", {**fields, **({"face.jpg": encode_jpeg(image)} if faces else {})})


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "data/shards/portraits")
    write_priors(tmp_path / "data/priors")
    write_params(tmp_path)
    return tmp_path


def write_priors(folder):
    folder.mkdir(parents=True)
    people = {name: value for name, value in toy_people().named_buffers() if name != "mean_identity"}
    prior().save(folder, people, expression_names=[f"unit{n}" for n in range(52)])


def write_params(folder, **changes):
    section = {name: {**values, **changes.get(name, {})} for name, values in SECTION.items()}
    (folder / "params.yaml").write_text(yaml.safe_dump({"train_portrait": section}))


def run(variant="full", out=None, *more):
    place = f"data/checkpoints/portrait/{out or variant}"
    return main(["data/shards/portraits", "data/priors", place, "--variant", variant, *more])


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("variant", ["full", "crop"])
def test_a_variant_is_trained_and_published(project, variant):
    assert run(variant, None, "--metrics", "m.json", "--preview", "p.png") == 0
    out = project / "data/checkpoints/portrait" / variant
    config = read_config(out)
    assert (config["system"], config["variant"], config["step"]) == ("portrait", variant, 6)
    network = PortraitGenerator(PortraitConfig.model_validate(config["params"]["model"]))
    checkpoint.load_network(network, read_weights(out), out)
    last = json.loads((project / "m.json").read_text())["last"]
    assert {"generator_whole", "generator_face", "generator_torso", "imitation", "minimal", "pose_smooth"} <= set(last)


def test_the_same_run_gives_the_same_bytes_and_an_interrupted_one_too(project, monkeypatch):
    assert run() == 0
    out = project / "data/checkpoints/portrait/full"
    first, original, killed = files(out), PortraitObjective.after, []

    def after(self, moment):
        if moment.step == 4 and not killed:
            killed.append(True)
            raise KeyboardInterrupt
        original(self, moment)

    monkeypatch.setattr(PortraitObjective, "after", after)
    assert run() == 130
    assert run() == 0
    assert files(out) == first


def test_the_second_stage_enlarges_what_the_first_has_learnt(project, capsys):
    assert run() == 0
    write_params(project, objective={"portrait": 32, "face": 32})
    base = "data/checkpoints/portrait/full"
    assert run("full", "large", "--base", base) == 0
    first, large = read_weights(project / base), read_weights(project / "data/checkpoints/portrait/large")
    assert set(large) - set(first)
    assert all(name.startswith("upsampler.") for name in set(large) - set(first))
    assert all((large[name] == value).all() for name, value in first.items())
    write_params(project, model={"noise": 5}, objective={"portrait": 32, "face": 32})
    assert run("full", "other", "--base", base) == 1
    assert "another architecture" in capsys.readouterr().err


def write_reader(folder, **sizes):
    torch.manual_seed(3)
    reader = Coefficients(CoefficientsConfig(identity_channels=4, expression_channels=4, **sizes))
    record = {"system": "coefficients", "params": {"model": reader.config.model_dump(mode="json")}}
    folder.mkdir(parents=True)
    tensors = {"network": dict(reader.state_dict())}
    checkpoint.write_into(folder, "config.json", checkpoint.Checkpoint(tensors, record))
    return str(folder)


def test_landmarks_are_learnt_through_a_reader_of_codes_that_stays_as_it_is(project, capsys):
    reader = write_reader(project / "reader")
    assert run("full", None, "--coefficients", reader, "--metrics", "m.json") == 0
    assert json.loads((project / "m.json").read_text())["last"]["landmarks"] > 0
    out = project / "data/checkpoints/portrait/full"
    assert read_config(out)["coefficients"] == read_config(project / "reader")["files"]["network.safetensors"]["sha256"]
    kept = read_weights(out, "networks")
    for name, value in read_weights(project / "reader", "network").items():
        assert torch.equal(kept[f"regressor/network.{name}"], value), name
    other = write_reader(project / "other", expression=64)
    assert run("full", "other", "--coefficients", other) == 1
    assert "reads 64 expression codes, where train_portrait.model.expression is 52" in capsys.readouterr().err


def test_wrong_input_is_an_error_in_words(project, capsys):
    assert run("half") == 1
    assert "no variant 'half'" in capsys.readouterr().err
    write_params(project, model={"expression": 64})
    assert run() == 1
    assert "expression codes have 52 numbers, where train_portrait.model.expression is 64" in capsys.readouterr().err
    write_params(project)
    assert main(["data/shards/portraits", "nowhere", "out"]) == 1
    assert "dvc repro priors" in capsys.readouterr().err
    write_shards(project / "bare", faces=False)
    assert main(["bare", "data/priors", "out"]) == 1
    assert "no face picture" in capsys.readouterr().err
