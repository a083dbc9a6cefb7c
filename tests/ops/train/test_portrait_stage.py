"""The stage train_portrait from command line to published checkpoint, on tiny generators."""

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
from ops.train import checkpoint, portrait
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
    write_project(tmp_path)
    return tmp_path


def write_project(root):
    write_shards(root / "data/shards/portraits")
    write_priors(root / "data/priors")
    write_params(root)


def trained_project(root, *variants):
    """A project whose first stage has been trained, of these variants."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_project(root)
        for variant in variants:
            assert run(variant) == 0
    return root


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
    first, killed = files(out), interrupted(monkeypatch, PortraitObjective, 4)
    assert run() == 130
    assert killed
    assert run() == 0
    assert files(out) == first


def interrupted(monkeypatch, objective, step):
    """Have trainings of an objective be interrupted once, behind a step; the list returned is filled by then."""
    original, killed = objective.after, []

    def after(self, moment):
        if moment.step == step and not killed:
            killed.append(True)
            raise KeyboardInterrupt
        original(self, moment)

    monkeypatch.setattr(objective, "after", after)
    return killed


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


class Bfm(torch.nn.Module):
    """A stand-in for Deep3DFaceRecon: 80 and 64 codes that depend on the picture."""

    def __init__(self, _):
        super().__init__()
        self.codes = torch.nn.Linear(3, 144)

    def forward(self, face):
        return self.codes(face.mean(dim=(2, 3))).split([80, 64], dim=1)


def test_deep3dfacerecon_reads_codes_where_people_are_of_bfm(project, capsys, monkeypatch):
    reader = write_reader(project / "reader")
    write_params(project, objective={"reader": "deep3dfacerecon"})
    assert run("full", None, "--coefficients", reader) == 1
    said = capsys.readouterr().err
    assert "its people are anny's, and Deep3DFaceRecon reads codes of BFM 2009 (80 + 64)" in said
    assert "reader: train_coefficients" in said
    record = project / "data/priors/priors.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "faces": "bfm"}))
    assert run("full", None, "--coefficients", reader) == 1
    assert "the weights of deep3dfacerecon" in capsys.readouterr().err
    file = project / "data/weights/user/deep3dfacerecon.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    monkeypatch.setattr(portrait.deep3d, "deep3d", lambda path: None)
    monkeypatch.setattr(portrait, "FaceReader", Bfm)
    assert run("full", None, "--coefficients", reader) == 1
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
