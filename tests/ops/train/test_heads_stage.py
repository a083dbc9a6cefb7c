"""The stage train_heads from command line to published checkpoint, on generators of a few thousand weights."""

import json
import subprocess
import sys

import pytest
import torch
import yaml
from tiny import write_shards
from tiny_heads import DISCRIMINATOR, MODEL

from models.spherehead import HeadConfig, HeadGenerator
from ops.runtime.errors import LineamentError
from ops.store.pictures import decode
from ops.train import checkpoint
from ops.train.export import read_config, read_weights
from ops.train.heads import TrainHeadsParams, main

SECTION = {
    "trainer": {
        "images": 24, "batch": 4, "device": "cpu", "threads": 1, "workers": 0, "log_every": 2, "checkpoint_every": 2,
        "snapshot_every": 3, "snapshot_pictures": 5, "grid_rows": 2, "grid_columns": 3, "tensorboard": False,
    },
    "model": MODEL,
    "discriminator": DISCRIMINATOR,
    "objective": {
        "near_front_images": 8, "vico_after": 16, "r1_every": 2, "blur_images": 8, "augment": {"every": 1},
    },
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with parameters and 16 x 16 head shards, as the current one."""
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "data/shards/heads", samples=12, side=16, heads=True)
    write_params(tmp_path)
    return tmp_path


def write_params(folder, **changes):
    section = {name: {**values, **changes.get(name, {})} for name, values in SECTION.items()}
    (folder / "params.yaml").write_text(yaml.safe_dump({"train_heads": section}))


def run(variant, *more):
    return main(["data/shards/heads", f"data/checkpoints/heads/{variant}", "--variant", variant, *more])


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("variant", ["eg3d", "panohead_vico", "single_sphere", "dual_sphere_vico", "spherehead"])
def test_a_variant_is_trained_published_and_reported(project, variant):
    assert run(variant, "--metrics", "m.json", "--preview", "p.png") == 0
    out = project / "data/checkpoints/heads" / variant
    snapshots = {f"snapshots/step-{step:07d}.safetensors" for step in (0, 3, 6)}
    assert set(files(out)) == snapshots | {
        "generator.safetensors", "networks.safetensors", "config.json", "curves.csv", "grid.png", "snapshots.png"
    }  # fmt: skip
    config = read_config(out)
    assert (config["system"], config["variant"], config["step"], config["images"]) == ("heads", variant, 6, 24)
    model = HeadConfig.model_validate(config["params"]["model"])
    assert model.variant == variant.removesuffix("_vico")
    generator = HeadGenerator(model)
    checkpoint.load_network(generator, read_weights(out), out)
    assert decode((out / "grid.png").read_bytes()).shape == (32, 48, 3)
    drawn = read_weights(out, "snapshots/step-0000006")
    assert drawn["images"].shape == (5, 16, 16, 3)
    assert drawn["camera"].shape == (5, 25)
    last = json.loads((project / "m.json").read_text())["last"]
    assert ("vico" in last) == (variant in ("panohead_vico", "dual_sphere_vico", "spherehead"))
    assert ("offset" in last) == (variant != "eg3d")
    assert ("density" in last) == (variant == "eg3d")
    phases = [phase["name"] for phase in config["params"]["trainer"]["plan"]["phases"]]
    assert phases == ["all", "consistent"] if variant in ("eg3d", "panohead_vico") else len(phases) == 3


def test_the_same_run_gives_the_same_bytes_and_an_interrupted_one_too(project, monkeypatch):
    assert run("spherehead") == 0
    out = project / "data/checkpoints/heads/spherehead"
    first = files(out)

    from ops.train.objectives.heads import HeadsObjective

    original, killed = HeadsObjective.after, []

    def after(self, moment):
        if moment.step == 5 and not killed:  # in the third phase; the last checkpoint is of step 4
            killed.append(float(self.augment.p))
            raise KeyboardInterrupt
        original(self, moment)

    monkeypatch.setattr(HeadsObjective, "after", after)
    assert run("spherehead") == 130
    assert killed
    assert run("spherehead") == 0
    assert files(out) == first


def test_variants_do_not_change_each_others_runs(project):
    assert run("eg3d") == 0
    first = files(project / "data/checkpoints/heads/eg3d")
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["train_heads"]["variants"] = ["panohead"]
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    assert run("eg3d") == 0
    assert files(project / "data/checkpoints/heads/eg3d") == first


def test_a_declared_plan_takes_the_place_of_the_variants_own(project):
    plan = {"phases": [{"name": "mine", "settings": {"data": "all", "vico": 2.0}}], "curves": {}}
    write_params(project, trainer={"plan": plan})
    assert run("eg3d", "--metrics", "m.json") == 0
    assert "vico" in json.loads((project / "m.json").read_text())["last"]


def test_wrong_input_is_an_error_in_words(project, capsys):
    assert run("stylegan") == 1
    assert "no head generator 'stylegan'; choose one of eg3d, panohead" in capsys.readouterr().err
    write_params(project, trainer={"batch": 4, "micro_batch": 3})
    assert run("eg3d") == 1
    assert "batch 4 is not divisible by micro_batch 3" in capsys.readouterr().err
    write_params(project, model={"variants": 3})
    assert run("eg3d") == 1
    assert "nearest valid key is 'variant'" in capsys.readouterr().err


@pytest.mark.parametrize(("field", "words"), [("mask", "has no mask"), ("parsing", "has no parsing")])
def test_data_without_what_the_variant_learns_are_refused(project, capsys, field, words):
    from ops.store.tar import Shard, ShardWriter, shard_paths

    samples = [s for path in shard_paths(project / "data/shards/heads") for s in Shard(path).samples()]
    with ShardWriter(project / "data/shards/bare") as writer:
        for key, fields in samples:
            writer.add(key, {name: data for name, data in fields.items() if name != f"{field}.png"})
    assert main(["data/shards/bare", "out", "--variant", "spherehead"]) == 1
    assert words in capsys.readouterr().err
    assert main(["data/shards/bare", "out", "--variant", "eg3d"]) == 0, "eg3d needs neither"


def test_labels_that_are_no_rotations_are_refused(project, capsys):
    from ops.store.tar import Shard, ShardWriter, shard_paths

    samples = [s for path in shard_paths(project / "data/shards/heads") for s in Shard(path).samples()]
    with ShardWriter(project / "data/shards/bent") as writer:
        for key, fields in samples:
            record = json.loads(fields["json"])
            record["camera"][0] *= 1.5
            writer.add(key, {**fields, "json": json.dumps(record).encode()})
    assert main(["data/shards/bent", "out", "--variant", "eg3d"]) == 1
    assert "camera label is no rotation" in capsys.readouterr().err


def test_checkpoints_of_another_variant_cut_short_or_pickled_are_refused(project):
    assert run("eg3d") == 0
    out = project / "data/checkpoints/heads/eg3d"
    weights = out / "generator.safetensors"
    other = HeadGenerator(HeadConfig.model_validate({**MODEL, "variant": "panohead"}))
    with pytest.raises(LineamentError, match="a checkpoint of another architecture: it lacks"):
        checkpoint.load_network(other, read_weights(out), weights)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(LineamentError, match="damaged"):
        read_weights(out)
    torch.save({"weight": torch.zeros(2)}, weights)
    with pytest.raises(LineamentError, match="is a pickle"):
        read_weights(out)


def test_running_out_of_memory_says_which_knob_to_turn(project, capsys, monkeypatch):
    from ops.train.objectives.heads import HeadsObjective

    def greedy(self, batch, moment):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(HeadsObjective, "fool", greedy)
    assert run("eg3d") == 1
    assert "Set `micro_batch` below 4" in capsys.readouterr().err


def test_the_defaults_are_the_papers_numbers():
    params = TrainHeadsParams()
    assert (params.trainer.batch, params.trainer.images, params.model.resolution) == (32, 25_000_000, 512)
    assert params.trainer.ema == pytest.approx(0.5 ** (32 / 10_000), abs=1e-5)
    assert (params.objective.r1, params.objective.offset) == (1.0, 10.0)


def test_training_imports_nothing_of_the_pipeline_around_it():
    unwanted = ("dagster", "dagster_pipes", "dvc", "anny", "warp", "tensorboard", "matplotlib")
    code = f"import sys, ops.train.heads; print([m for m in {unwanted} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
