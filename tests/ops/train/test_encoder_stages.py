"""The three stages that train InvertAvatar's encoders, from command line to published checkpoint, on tiny networks."""

import json

import pytest
import torch

from ops.apply.avatars import load_prior
from ops.apply.inverters import load_inverter
from ops.store.pictures import decode
from ops.train import image_encoders, latent_encoder, recurrent
from ops.train.export import read_config, read_weights
from ops.train.objectives.image_encoders import ImageObjective
from ops.train.objectives.latent_encoder import LatentObjective
from tests.ops.apply.tinyavatars import write_generator
from tests.ops.train.tiny_faces import write_clips, write_faces, write_params, write_project

PRIOR = "data/checkpoints/avatar/avatar"
INPUTS = {
    "latent_encoder": ["data/shards/faces", "data/priors", PRIOR],
    "image_encoders": ["data/shards/faces", "data/priors", PRIOR, "data/checkpoints/latent_encoder"],
    "recurrent": [
        "data/shards/faces", "data/shards/clips", "data/priors", PRIOR, "data/checkpoints/image_encoders",
    ],
}  # fmt: skip
MAIN = {"latent_encoder": latent_encoder.main, "image_encoders": image_encoders.main, "recurrent": recurrent.main}


def run(stage, *more, **instead):
    given = [instead.get(path.rsplit("/", 1)[-1], path) for path in INPUTS[stage]]
    out = instead.get("out", f"data/checkpoints/{stage}")
    return MAIN[stage]([*given, "data/weights/embedded", out, *more])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project in which all three have been trained once."""
    root = tmp_path_factory.mktemp("project")
    write_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage in INPUTS:
            assert run(stage, "--metrics", f"{stage}.json", "--preview", f"{stage}.png") == 0
    return root


@pytest.fixture
def project(root, monkeypatch):
    monkeypatch.chdir(root)
    yield root
    write_params(root)


def metrics(root, stage):
    return json.loads((root / f"{stage}.json").read_text())


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_each_stage_goes_on_from_the_one_before(root):
    prior = load_prior(root / PRIOR, root / "data/priors")
    folder = root / "data/checkpoints"
    for stage in INPUTS:
        config = read_config(folder / stage)
        assert (config["system"], config["variant"], config["prior"]) == ("inverter", stage, prior.digest)
        assert metrics(root, stage)["likeness"] == {"identity": "none", "perceptual": "none"}
        assert decode((root / f"{stage}.png").read_bytes()).ndim == 3
    first, second, third = ({n: read_weights(folder / s, n) for n in ("latent",)} for s in INPUTS)
    assert all(
        torch.equal(first["latent"][k], other["latent"][k]) for other in (second, third) for k in first["latent"]
    )
    for name in ("texture", "triplane"):
        single, many = (read_weights(folder / stage, name) for stage in ("image_encoders", "recurrent"))
        assert set(single) < set(many)
        assert all(".fusion." in key for key in set(many) - set(single))
        for key, value in single.items():
            fixed = key.startswith("unet.body.") or "running" in key or "tracked" in key
            assert torch.equal(many[key], value) or not fixed, key
        assert any(not torch.equal(many[key], value) for key, value in single.items())


def test_what_learns_in_each_stage(root):
    assert {"pixels", "raw", "planes", "delta", "fool", "judge", "r1"} <= set(metrics(root, "latent_encoder")["last"])
    for stage in ("image_encoders", "recurrent"):
        last = metrics(root, stage)["last"]
        assert {"pixels", "raw", "planes", "textures", "fool", "judge", "r1"} <= set(last)
        rows = (root / f"data/checkpoints/{stage}/curves.csv").read_text().splitlines()
        judged = rows[0].split(",").index("judge")
        assert [bool(row.split(",")[judged]) for row in rows[1:]] == [False, True], "not before its time"


def test_the_curve_over_frames_is_in_the_metrics(root):
    found = metrics(root, "recurrent")
    assert (found["clips"], found["held_out"]) == (2, 1)
    assert list(found["frames"]["clips"]) == ["1", "2", "4"]
    assert list(found["frames"]["prior"]) == ["1", "2", "4"]
    for curve in found["frames"].values():
        assert all(set(row) == {"l1", "psnr"} and 0 < row["l1"] < 2 for row in curve.values())


def test_trained_encoders_are_loaded_on_their_prior_alone(root, tmp_path):
    prior = load_prior(root / PRIOR, root / "data/priors")
    assert load_inverter(prior, root / "data/checkpoints/recurrent").config.texture.fusion == "gru"
    assert load_inverter(prior, root / "data/checkpoints/image_encoders").config.texture.fusion is None


@pytest.mark.parametrize(
    ("stage", "objective"),
    [("latent_encoder", LatentObjective), ("image_encoders", ImageObjective), ("recurrent", None)],
)
def test_an_interrupted_run_ends_in_the_same_bytes(project, monkeypatch, stage, objective):
    objective = objective or recurrent.RecurrentObjective
    original, killed = objective.after, []

    def after(self, moment):
        original(self, moment)
        if moment.step == 2 and not killed:
            killed.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(objective, "after", after)
    assert run(stage, out="data/again") == 130
    assert killed
    assert run(stage, out="data/again") == 0
    assert files(project / "data/again") == files(project / "data/checkpoints" / stage)


@pytest.mark.parametrize(
    ("stage", "option", "where", "value"),
    [
        ("recurrent", "--fusion", ("texture", "fusion"), "conv"),
        ("image_encoders", "--planes", ("planes",), "offsets"),
        ("image_encoders", "--texture-input", ("texture_input",), "posed"),
    ],
)
def test_a_baseline_is_trained_by_an_option(project, capsys, stage, option, where, value):
    out = f"data/checkpoints/{stage}_{value}"
    assert run(stage, option, value, out=out) == 0
    found = read_config(project / out)["params"]["model"]
    for key in where:
        found = found[key]
    assert found == value
    prior = load_prior(project / PRIOR, project / "data/priors")
    assert (
        load_inverter(prior, project / out).config != load_inverter(prior, project / "data/checkpoints" / stage).config
    )
    assert run(stage, option, "nonsense", out="data/none") == 1
    assert where[-1] in capsys.readouterr().err
    assert not (project / "data/none").exists()


def test_without_clips_the_priors_people_move_by_the_fits_of_pictures(project, capsys):
    write_clips(project / "noclips", count=0)
    assert run("recurrent", "--metrics", "n.json", clips="noclips", out="data/synthetic") == 0
    assert "no clips: learning from the prior's people alone" in capsys.readouterr().err
    found = json.loads((project / "n.json").read_text())
    assert (found["clips"], list(found["frames"])) == (0, ["prior"])


def test_wrong_input_is_an_error_in_words(project, capsys):
    def fails(stage, words, **instead):
        assert run(stage, out="data/none", **instead) == 1
        assert words in capsys.readouterr().err
        assert not (project / "data/none").exists()

    write_generator(project / "other", seed=1)
    fails("image_encoders", "trained on another prior", avatar="other")
    fails("recurrent", "trained on another prior", avatar="other")
    fails("recurrent", "texture.safetensors: is missing", image_encoders="data/checkpoints/latent_encoder")
    fails("recurrent", "dvc repro shards_clips", clips="nowhere")
    write_faces(project / "bare", fits=False)
    fails("latent_encoder", "its record lacks 'fit'", faces="bare")
    write_params(project, "train_latent_encoder", trainer={"batch": 8})
    fails("latent_encoder", "6 samples, fewer than a batch of 8 takes")
    write_params(project, "train_latent_encoder", objective={"likeness": {"perceptual": "none"}})
    fails("latent_encoder", "arcface_ir50")
