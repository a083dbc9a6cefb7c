"""The stage train_avatar from command line to published checkpoint and back, on tiny generators."""

import json

import numpy as np
import pytest
import torch
import yaml
from tiny_avatar import DISCRIMINATOR, MODEL, NEXT3D, faces, person

from models.avatar import SurfaceMap
from models.next3d import Next3DGenerator, Views
from ops.apply.avatars import load_prior
from ops.runtime.errors import LineamentError
from ops.store.pictures import encode_jpeg
from ops.store.tar import ShardWriter
from ops.train.avatar import main
from ops.train.export import read_config
from ops.train.objectives.avatar import AvatarObjective, pose_of
from tests.ops.train.test_portrait_objective import prior

SECTION = {
    "trainer": {
        "images": 12, "batch": 2, "device": "cpu", "threads": 1, "workers": 0, "log_every": 2, "checkpoint_every": 2,
        "snapshot_every": 3, "snapshot_pictures": 4, "grid_rows": 1, "grid_columns": 2, "tensorboard": False,
        "ema": 0.5,
    },
    "model": MODEL, "next3d": NEXT3D, "discriminator": DISCRIMINATOR,
    "objective": {"coarse_resolution": 8, "coarse_images": 6, "r1_every": 3, "imitate": 2.0},
}  # fmt: skip


def write_shards(folder, fits=True, units=52, side=40):
    found = faces(6)
    with ShardWriter(folder, per_shard=4) as writer:
        for number in range(6):
            image = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
            camera = found.camera[number].tolist()
            codes = {
                "identity": found.identity[number].tolist(),
                "expression": found.expression[number, :units].tolist(),
            }
            record = {"camera": camera, "fit": {**codes, "camera": camera, "residual": 1.0} if fits else None}
            writer.add(f"{number:016x}", {"jpg": encode_jpeg(image), "json": json.dumps(record).encode()})


def write_priors(folder, identity=80):
    folder.mkdir(parents=True)
    people = {name: value for name, value in person().named_buffers() if name != "mean_identity"}
    people["identity_basis"] = people["identity_basis"][:identity].contiguous()
    names = list(person().expression_names)
    prior().save(folder, people, expression_names=names)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "data/shards/faces")
    write_priors(tmp_path / "data/priors")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"train_avatar": SECTION}))
    return tmp_path


def run(variant="avatar", shards="data/shards/faces", *more):
    return main([shards, "data/priors", f"data/checkpoints/avatar/{variant}", "--variant", variant, *more])


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("variant", ["avatar", "next3d"])
def test_a_variant_is_trained_published_and_read_again(project, variant):
    assert run(variant, "data/shards/faces", "--metrics", "m.json", "--preview", "p.png") == 0
    out = project / "data/checkpoints/avatar" / variant
    config = read_config(out)
    assert (config["system"], config["variant"], config["step"]) == ("avatar", variant, 6)
    last = json.loads((project / "m.json").read_text())["last"]
    assert {"generator", "discriminator", "r1", "density", "imitation"} <= set(last)
    found = load_prior(out, project / "data/priors")
    assert isinstance(found.generator, Next3DGenerator) == (variant == "next3d")
    drawn = faces(2)
    surface = pose_of(found.mesh, drawn.identity, drawn.expression)
    assert isinstance(surface, Views if variant == "next3d" else SurfaceMap)
    with torch.no_grad():
        image = found.generator(torch.randn(2, 6), drawn.camera, surface, noise="const").image
    assert image.shape == (2, 3, 32, 32)


def test_the_same_run_gives_the_same_bytes_and_an_interrupted_one_too(project, monkeypatch):
    assert run() == 0
    out = project / "data/checkpoints/avatar/avatar"
    first, original, killed = files(out), AvatarObjective.after, []

    def after(self, moment):
        if moment.step == 4 and not killed:  # in the second phase, between two checkpoints
            killed.append(True)
            raise KeyboardInterrupt
        original(self, moment)

    monkeypatch.setattr(AvatarObjective, "after", after)
    assert run() == 130
    assert run() == 0
    assert killed
    assert files(out) == first


def test_wrong_input_is_an_error_in_words(project, capsys):
    assert run("next2d") == 1
    assert "no animatable generator 'next2d'" in capsys.readouterr().err
    write_shards(project / "bare", fits=False)
    assert run("avatar", "bare") == 1
    assert "not one sample has a fitted face" in capsys.readouterr().err
    write_shards(project / "short", units=40)
    assert run("avatar", "short") == 1
    assert "its fit has 40 expression units, where the face model has 52" in capsys.readouterr().err
    write_priors(project / "other/priors", identity=64)
    assert main(["data/shards/faces", "other/priors", "out"]) == 1
    assert "identity codes have 80 numbers, where the priors' face model has 64" in capsys.readouterr().err
    assert main(["data/shards/faces", "nowhere", "out"]) == 1
    assert "dvc repro priors" in capsys.readouterr().err


def test_a_prior_of_other_people_is_refused(project):
    assert run() == 0
    out = project / "data/checkpoints/avatar/avatar"
    write_priors(project / "other/priors", identity=64)
    with pytest.raises(LineamentError, match="was trained with other people than"):
        load_prior(out, project / "other/priors")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "system": "heads"}))
    with pytest.raises(LineamentError, match="of system 'heads', where one of 'avatar' is wanted"):
        load_prior(out, project / "data/priors")
