"""The stage train_giraffe from command line to published checkpoint, on a GIRAFFE of a few thousand weights."""

import json
import subprocess
import sys

import pytest
import torch
import yaml
from tiny import write_shards

from models.giraffe import Generator, GiraffeConfig
from ops import registry
from ops.runtime.errors import LineamentError
from ops.store.pictures import decode
from ops.train import checkpoint
from ops.train.export import read_config, read_weights
from ops.train.giraffe import TrainGiraffeParams, main

FIELD = {"hidden": 8, "blocks": 2, "skips": [], "point_octaves": 2, "view_octaves": 1}
SECTION = {
    "trainer": {
        "images": 24, "batch": 4, "device": "cpu", "threads": 1, "workers": 0, "log_every": 2, "checkpoint_every": 3,
        "snapshot_every": 2, "grid_rows": 2, "grid_columns": 3, "tensorboard": False,
    },
    "model": {
        "resolution": 16, "feature_resolution": 8, "feature_channels": 8, "min_channels": 4, "z_dim": 4,
        "z_dim_background": 4, "samples": 4, "discriminator_channels": 8, "projection": 4, "object_field": FIELD,
        "background_field": FIELD,
    },
    "objective": {"queue": 16},
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with parameters and 16 x 16 face shards, as the current one."""
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "data/shards/faces", side=16)
    write_params(tmp_path)
    return tmp_path


def write_params(folder, **trainer):
    section = {**SECTION, "trainer": {**SECTION["trainer"], **trainer}}
    (folder / "params.yaml").write_text(yaml.safe_dump({"train_giraffe": section}))


def run(variant, *more):
    out = f"data/checkpoints/giraffe/{variant}"
    return main(["data/shards/faces", out, "--variant", variant, *more])


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("variant", ["giraffe", "infonce", "aamnce"])
def test_a_variant_is_trained_published_and_reported(project, variant):
    assert run(variant, "--metrics", "m.json", "--preview", "p.png") == 0
    out = project / "data/checkpoints/giraffe" / variant
    expected = {
        "generator.safetensors",
        "networks.safetensors",
        "config.json",
        "curves.csv",
        "grid.png",
        "snapshots.png",
    }
    assert set(files(out)) == expected
    config = read_config(out)
    assert (config["system"], config["variant"], config["step"], config["images"]) == ("giraffe", variant, 6, 24)
    generator = Generator(GiraffeConfig.model_validate(config["params"]["model"]))
    checkpoint.load_network(generator, read_weights(out), out)
    assert config["parameters"]["generator"] == sum(p.numel() for p in generator.parameters())
    assert decode((out / "grid.png").read_bytes()).shape == (32, 48, 3)
    assert decode((out / "snapshots.png").read_bytes()).shape == (3 * 16, 48, 3)
    metrics = json.loads((project / "m.json").read_text())
    assert metrics["step"] == 6
    assert metrics["parameters"] == config["parameters"]
    assert ("contrast" in metrics["last"]) == (variant != "giraffe")
    assert decode((project / "p.png").read_bytes()).shape[1] <= 1200
    work = next((project / "data/.work/train_giraffe").iterdir())
    assert json.loads((work / "clock.json").read_text())["images"] == 24
    assert not list(work.glob("run-*/step-*")), "the checkpoints of a finished run should be gone"


def test_the_same_run_gives_the_same_bytes_and_an_interrupted_one_too(project, monkeypatch):
    assert run("aamnce") == 0
    out = project / "data/checkpoints/giraffe/aamnce"
    first = files(out)

    from ops.train.objectives.giraffe import GiraffeObjective

    original, killed = GiraffeObjective.after, []

    def after(self, moment):
        if moment.step == 4 and not killed:
            killed.append(moment.step)
            raise KeyboardInterrupt
        original(self, moment)

    monkeypatch.setattr(GiraffeObjective, "after", after)
    assert run("aamnce") == 130
    assert files(out) == first, "an interrupted run leaves the published result alone"
    assert run("aamnce") == 0
    assert killed == [4]
    assert files(out) == first


@pytest.mark.parametrize("changed", ["settings", "data", "code"])
def test_other_settings_data_or_code_begin_a_run_of_their_own(project, monkeypatch, capsys, changed):
    import ops.train.run
    from ops.train.objectives.giraffe import GiraffeObjective

    with monkeypatch.context() as patch:
        patch.setattr(GiraffeObjective, "after", lambda self, moment: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run("giraffe") == 130
    if changed == "settings":
        write_params(project, seed=1)
    elif changed == "data":
        write_shards(project / "data/shards/faces", samples=11, side=16)
    else:
        assert {"models.giraffe", "ops.train.loop"} <= set(ops.train.run._modules())
        monkeypatch.setattr(ops.train.run, "code_hash", lambda modules: "of an edited file")
    assert run("giraffe") == 0
    said = capsys.readouterr().err
    assert "holds an unfinished run of other settings" in said
    assert "going on after" not in said
    assert read_config(project / "data/checkpoints/giraffe/giraffe")["params"]["trainer"]["seed"] == (
        changed == "settings"
    )


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        ({"imgaes": 3}, "nearest valid key is 'images'"),
        ({"batch": 64}, "10 samples, fewer than a batch of 64"),
        ({"batch": 4, "micro_batch": 3}, "not divisible"),
        ({"batch": "many"}, "train_giraffe.trainer.batch"),
        ({"device": "cuda"}, "no CUDA device"),
    ],
)
def test_wrong_settings_are_errors_in_words(project, capsys, trainer, words):
    if trainer.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    write_params(project, **trainer)
    assert run("giraffe") == 1
    assert words in capsys.readouterr().err


def test_wrong_input_is_an_error_in_words(project, capsys):
    assert run("stylegan") == 1
    assert "choose one of giraffe, infonce, aamnce" in capsys.readouterr().err
    assert main(["data/shards/bodies", "out"]) == 1
    assert "data/shards/bodies: no such folder" in capsys.readouterr().err
    tar = project / "data/shards/faces/000001.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    assert run("giraffe") == 1
    assert "000001.tar" in capsys.readouterr().err


def test_a_published_checkpoint_that_is_damaged_says_how_to_restore_it(project):
    assert run("giraffe") == 0
    out = project / "data/checkpoints/giraffe/giraffe"
    weights = out / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(LineamentError, match="dvc checkout data/checkpoints/giraffe/giraffe|dvc checkout /"):
        read_weights(out)


def test_the_defaults_are_the_papers_numbers():
    params = TrainGiraffeParams()
    assert (params.trainer.batch, params.trainer.ema, params.model.resolution) == (32, 0.999, 256)
    assert (params.objective.alpha, params.objective.margin, params.objective.r1) == (0.1, 0.5, 10)


def test_training_imports_nothing_of_the_pipeline_around_it():
    unwanted = ("dagster", "dagster_pipes", "dvc", "anny", "warp", "tensorboard", "matplotlib")
    code = f"import sys, ops.train.giraffe, benchmarks.train; print([m for m in {unwanted} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_fine_tuning_starts_from_a_registered_version(project, monkeypatch):
    """With steps of no length, the result lies between the weights it started from and their average."""
    assert run("giraffe") == 0
    out = project / "data/checkpoints/giraffe/giraffe"
    first = read_weights(out)
    entry = {"number": 1, "time": "t", "unit": "u", "md5": "m.dir", "size": 1, "files": 6}
    (project / "data/registry.json").write_text(json.dumps({"giraffe/giraffe": {"versions": [entry]}}))
    kept = project / "kept"
    out.rename(kept)
    monkeypatch.setattr(registry, "check_out", lambda root, name, version, folder: kept)
    section = {**SECTION, "trainer": {**SECTION["trainer"], "images": 4, "start": {"giraffe/giraffe": 1}}}
    section["objective"] = {"queue": 16, "lr_generator": 1e-12}
    (project / "params.yaml").write_text(yaml.safe_dump({"train_giraffe": section}))
    assert run("giraffe") == 0
    again = read_weights(out)
    trained = checkpoint.unpack(read_weights(kept, "networks"), "generator")
    for name, tensor in again.items():
        if tensor.dtype.is_floating_point:
            low, high = torch.minimum(first[name], trained[name]), torch.maximum(first[name], trained[name])
            assert (tensor >= low - 1e-5).all(), name
            assert (tensor <= high + 1e-5).all(), name
    section["trainer"]["start"] = {"giraffe/giraffe": 2}
    (project / "params.yaml").write_text(yaml.safe_dump({"train_giraffe": section}))
    assert run("giraffe") == 1, "there is no such version"
