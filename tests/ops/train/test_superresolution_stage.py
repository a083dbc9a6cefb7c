"""The stage train_portrait_superresolution from a first stage's checkpoint to a larger one, and what it refuses."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from ops.apply.portraits import Portraits, largest
from ops.store.pictures import decode
from ops.train.export import read_config, read_weights
from ops.train.objectives.portrait_superresolution import SuperresolutionObjective
from ops.train.portrait_superresolution import main
from tests.ops.train import test_portrait_stage as stage

FIRST, LARGE = "data/checkpoints/portrait/full", "data/checkpoints/portrait_superresolution/full"
SECTION = {
    "trainer": {**stage.SECTION["trainer"], "images": 8},
    "atlas": {"resolution": 16, "channels": 8, "blocks": 1, "growth": 4, "up_channels": [8], "mapping_width": 8},
    "discriminator": stage.SECTION["discriminator"],
    "objective": {"portrait": 32, "face": 16},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project whose first stage, and that of the variant ``nearest``, have been trained."""
    root = stage.trained_project(tmp_path_factory.mktemp("superresolution"), "full", "nearest")
    shutil.rmtree(root / "data/.work")
    return root


@pytest.fixture
def project(trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    write_params()
    return tmp_path


def write_params(**changes):
    section = {name: {**values, **changes.get(name, {})} for name, values in SECTION.items()}
    with open("params.yaml", "w") as file:
        yaml.safe_dump({"train_portrait_superresolution": section}, file)


def run(base=FIRST, out=LARGE, *more):
    return main(["data/shards/portraits", "data/priors", base, out, *more])


def test_u_is_trained_upon_the_first_stage_and_takes_its_place(project):
    assert run(FIRST, LARGE, "--metrics", "m.json", "--preview", "p.png") == 0
    first, large = read_weights(project / FIRST), read_weights(project / LARGE)
    assert {name.split(".")[0] for name in set(large) - set(first)} == {"upsampler"}
    assert all(torch.equal(large[name], value) for name, value in first.items())
    record = read_config(project / LARGE)
    assert (record["system"], record["variant"], record["step"]) == ("portrait", "full", 4)
    assert record["base"] == read_config(project / FIRST)["files"]["generator.safetensors"]["sha256"]
    last = json.loads((project / "m.json").read_text())["last"]
    assert {"consistency", "atlas_consistency", "generator_face", "discriminator_torso", "r1_whole"} <= set(last)
    assert decode((project / "p.png").read_bytes()).ndim == 3
    assert largest(project / "data/checkpoints", "full") == project / LARGE
    assert largest(project / "data/checkpoints", "nearest").parent.name == "portrait"
    portraits = Portraits(project / LARGE, project / "data/priors")
    shown = portraits.render(*portraits.characters([0]))
    assert shown.shape == (1, 32, 32, 3)
    assert portraits.render(*portraits.characters([0]), face=True).shape == (1, 16, 16, 3)
    assert run("data/checkpoints/portrait/nearest", "near") == 0
    assert Portraits(project / "near", project / "data/priors").net.pose.process is None


def test_a_run_that_is_killed_goes_on_to_the_same_bytes(project, monkeypatch):
    assert run() == 0
    whole = stage.files(project / LARGE)
    killed = stage.interrupted(monkeypatch, SuperresolutionObjective, 3)
    assert run() == 130
    assert killed
    assert run() == 0
    assert stage.files(project / LARGE) == whole


def rewrite(folder, change):
    """Change a checkpoint's generator as nobody should, its hash with it."""
    from ops.store.tar import file_sha256

    tensors = load_file(folder / "generator.safetensors")
    save_file(change(tensors), folder / "generator.safetensors")
    record = json.loads((folder / "config.json").read_text())
    data = folder / "generator.safetensors"
    record["files"]["generator.safetensors"] = {"bytes": data.stat().st_size, "sha256": file_sha256(data)}
    (folder / "config.json").write_text(json.dumps(record))


def test_a_first_stage_that_does_not_fit_is_an_error_in_words(project, capsys):
    def said(*arguments):
        assert run(*arguments) == 1
        return capsys.readouterr().err

    assert "dvc repro train_portrait@whole_only" in said("data/checkpoints/portrait/whole_only")
    other = project / "data/checkpoints/portrait/other"
    shutil.copytree(project / FIRST, other)
    rewrite(other, lambda tensors: {**tensors, "manifolds.layers.0.weight": torch.zeros(3, 3)})
    assert "manifolds.layers.0.weight is [3, 3] where [8, 3] is wanted" in said(str(other))
    data = (project / FIRST / "generator.safetensors").read_bytes()
    (other / "generator.safetensors").write_bytes(data[: len(data) // 2])
    assert "generator.safetensors" in said(str(other))
    (other / "generator.safetensors").unlink()
    assert "generator.safetensors" in said(str(other))
    record = json.loads((project / FIRST / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**record, "system": "heads"}))
    assert "where one of 'portrait' is wanted" in said(str(other))
    (other / "config.json").write_text(json.dumps({**record, "priors": "0" * 64}))
    assert "was trained with other priors" in said(str(other))
    assert not (project / LARGE).exists()
    assert run() == 0
    assert "has a super-resolution already" in said(LARGE, "twice")


def test_sizes_that_u_cannot_make_are_named(project, capsys):
    write_params(objective={"portrait": 30, "face": 16})
    assert run() == 1
    assert "objective.portrait is 30, which is no multiple of 4" in capsys.readouterr().err
    write_params(objective={"portrait": 32, "face": 32})
    assert main(["nowhere", "data/priors", FIRST, LARGE]) == 1
    assert "nowhere" in capsys.readouterr().err
