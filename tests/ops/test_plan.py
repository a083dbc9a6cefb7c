"""The plan: published counts of parameters, and estimates that come near what was published on training."""

from pathlib import Path

import pytest
import torch

from ops import cli, plan
from ops.plan import Cost, Network
from ops.runtime.params import read_yaml
from ops.train.settings import TrainerParams

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "profiles/paper.yaml"


@pytest.fixture(scope="module")
def lines():
    return plan.plan(PAPER)


def counts(lines):
    return {(line.system, line.name): line.parameters for line in lines if isinstance(line, Network)}


def test_networks_have_as_many_parameters_as_the_published_ones(lines):
    """Counted in the public code; see the comments in ops/plan.py for the commits."""
    found = counts(lines)
    assert found["EG3D", "generator"] == 30_662_136
    assert found["EG3D", "discriminator"] == 31_359_744
    assert found["PanoHead", "generator"] == 53_741_548
    assert found["PanoHead", "discriminator"] == 31_359_808
    assert found["SphereHead", "generator"] == 54_730_944
    assert found["SphereHead", "discriminator"] == 31_361_088
    assert found["dual_sphere", "generator"] == 54_713_868
    assert found["GIRAFFE", "generator"] == 748_497
    assert found["GIRAFFE", "discriminator"] == 2_802_432
    assert found["GRAM", "generator"] == 1_950_621
    assert found["GRAM", "discriminator"] == 12_391_827
    assert found["AniPortraitGAN", "generator"] == 5_570_696 - 1_028 - 3_240
    assert found["InvertAvatar", "generator"] == 88_301_010
    assert found["Next3D", "generator"] == 172_815_807
    assert found["InvertAvatar", "E_latent"] == 209_450_688
    assert found["InvertAvatar", "E_tex, GRU"] == 68_518_304 - 1_248
    assert found["InvertAvatar", "E_tri, GRU"] == 82_784_960 - 1_248
    assert found["evaluation", "LightCNN-29"] == 12_573_280


def test_a_count_that_differs_from_the_published_one_says_why(lines):
    for line in lines:
        if isinstance(line, Network) and line.published is not None:
            assert (line.parameters == line.published) or line.note, line


def test_estimates_come_near_what_was_published(lines):
    costs = {line.system: line for line in lines if isinstance(line, Cost)}
    assert set(costs) >= {"EG3D", "PanoHead", "SphereHead"}
    for system, published in (("EG3D", 24.0), ("SphereHead", 24.2)):
        seconds = costs[system].operations_a_picture * 1000 / (plan.DEVICES * plan.SPEED * 1e12)
        assert seconds == pytest.approx(published, rel=0.1)
    eg3d = costs["EG3D"]
    assert 8.7e9 / 2 < eg3d.activations(8) + eg3d.state < 8.7e9 * 2  # four pictures a device
    assert eg3d.state == 4 * (5 * 30_662_136 + 4 * 31_359_744)
    assert costs["SphereHead"].operations[0] > eg3d.operations[0]


def test_operations_are_those_of_the_layers():
    layer = torch.nn.Conv2d(4, 8, 3, padding=1, device="meta")
    flop, kept, out = plan._measure(lambda: layer(torch.zeros(2, 4, 16, 16, device="meta")))
    assert out.shape == (2, 8, 16, 16)
    assert flop == 2 * 2 * 8 * 16 * 16 * 4 * 9
    assert kept == 4 * (2 * 4 * 16 * 16 + 8 * 4 * 9)


def test_a_smaller_profile_stands_beside_nothing_published():
    lines = plan.plan(ROOT / "profiles/smoke.yaml")
    heads = [line for line in lines if isinstance(line, Network) and line.system in ("EG3D", "SphereHead")]
    variants = read_yaml(ROOT / "profiles/smoke.yaml")["train_heads"]["variants"]
    assert len(heads) == 2 * len(variants)
    assert all(line.published is None for line in heads)
    assert all(line.parameters < 30_000_000 for line in heads)


def test_the_command_prints_a_table(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert cli.main(["plan", "--profile", "smoke", "--devices", "1"]) == 0
    printed = capsys.readouterr().out
    assert "Training, on 1 devices at 12.5 TFLOP/s each" in printed
    images = read_yaml(ROOT / "profiles/smoke.yaml")["train_heads"]["trainer"]["images"]
    assert f"{images:,} pictures" in printed
    one = plan.Cost("x", "", TrainerParams(batch=32), (1e12, 1e12), (1e9, 0.0), (1, 1))
    assert one.activations(1) == 32e9
    assert one.activations(8) == 4e9
    assert cli.main(["plan", "--profile", "huge"]) == 1
    assert "there is no profile 'huge'" in capsys.readouterr().err
