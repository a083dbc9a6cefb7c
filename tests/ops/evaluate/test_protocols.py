"""Protocols as files, their states, and a protocol run from checkpoint to table."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from fixtures import write_checkpoint, write_shards

from ops.apply.heads import Heads
from ops.cli import main
from ops.evaluate import held_out, invert_heads, measures, published, verification
from ops.evaluate import protocol as protocols
from ops.evaluate.commands import evaluate
from ops.evaluate.invert_heads import InvertHeadsParams
from ops.evaluate.measures import MEASURES, Setting, run
from ops.evaluate.protocol import differences, load_protocol, load_protocols
from ops.evaluate.tables import main as tables_stage
from ops.runtime.errors import LineamentError
from ops.store.reader import ShardDataset
from tests.ops.apply.tinyheads import write_heads
from tests.ops.evaluate.test_heads import write_shards as write_heads_shards
from tests.ops.evaluate.test_invert_heads import toy_heads

FROZEN = Path(__file__).parents[3] / "protocols"


def test_every_protocol_is_valid_and_the_four_papers_are_there():
    found = load_protocols(FROZEN)
    assert {p.paper for p in found.values()} == {"AamNCE", "SphereHead", "AniPortraitGAN", "InvertAvatar"}
    assert len({p.hash for p in found.values()}) == len(found)


def test_the_published_rows_are_those_the_evaluation_shows():
    found = load_protocols(FROZEN)["aamnce_table1"]
    by_variant = {found.variants[row]: values for row, values in found.reference.items()}
    assert by_variant == published.AAMNCE_AUC


def write(path, **changes):
    values = yaml.safe_load((FROZEN / "aamnce_table1.yaml").read_text())
    path.write_text(yaml.safe_dump({**values, **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": {"GIRAFFE": {"L99": 0.5}}}, "'GIRAFFE' has L99"),
        ({"seed": "zero"}, "seed"),
        ({"metrics": {"L60": "larger"}}, "metrics"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_wrong_protocol_is_named_with_its_value(tmp_path, changes, message):
    with pytest.raises(LineamentError, match=message):
        load_protocol(write(tmp_path / "wrong.yaml", **changes))


def test_changing_any_rule_changes_the_hash(tmp_path):
    one, other = load_protocol(write(tmp_path / "a.yaml")), load_protocol(write(tmp_path / "b.yaml", seed=1))
    assert one.hash != other.hash
    assert one.hash == load_protocols(FROZEN)["aamnce_table1"].hash


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "protocols").symlink_to(FROZEN)
    return tmp_path


def test_states_say_what_stands_in_the_way(place, capsys):
    assert main(["evaluate", "--list"]) == 0
    untrained = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("aamnce_table1"))
    assert "untrained" in untrained
    write_checkpoint(place / "data/checkpoints/giraffe/giraffe", "giraffe")
    state = protocols.state_of(load_protocols()["aamnce_table1"])
    assert (state.word, state.backbone) == ("fallback", "dlib_128d")
    assert "lightcnn29" in state.why


def test_a_protocol_runs_on_checkpoints_and_says_what_differs(place, capsys):
    write_shards(place / "data/shards/faces")
    for seed, variant in enumerate(("giraffe", "aamnce")):
        write_checkpoint(place / f"data/checkpoints/giraffe/{variant}", variant, f"data {seed}", seed)
    assert main(["evaluate", "aamnce_table1", "--samples", "8", "--out", "result.json"]) == 0
    text = capsys.readouterr().out
    result = json.loads((place / "result.json").read_text())
    assert set(result["rows"]) == {"GIRAFFE", "AamNCE"}
    assert result["not_measured"] == {"InfoNCE": "no checkpoint of giraffe/infonce"}
    assert result["protocol"]["hash"] == load_protocols()["aamnce_table1"].hash
    number = result["rows"]["GIRAFFE"]["L60"]
    assert number["samples"] == 8 + 8 * 7
    assert 0 <= number["low"] <= number["value"] <= number["high"] <= 1
    for line in (
        "AamNCE was trained on other data than data/shards/faces",
        "dlib_128d",
        "8 samples; the paper used 1,000",
        "different data versions",
        "CelebA-HQ",
    ):
        assert line in text


def test_the_measure_is_the_area_of_its_definition(place):
    from ops.apply.generators import load_generator
    from ops.evaluate.identity import load_recogniser

    folder = write_checkpoint(place / "data/checkpoints/giraffe/giraffe", "giraffe")
    setting = Setting("dlib_128d", 8, place, place, place)
    found = run(load_protocols()["aamnce_table1"], {"GIRAFFE": folder}, setting)["GIRAFFE"]["R15"]
    images = load_generator(folder).render(range(8), [0.0, -15.0])
    recogniser = load_recogniser("dlib_128d")
    scores = recogniser.similarity(recogniser.embed(list(images[:, 0])), recogniser.embed(list(images[:, 1])))
    genuine, impostor = verification.pairs(scores)
    expected = np.mean((genuine[:, None] > impostor) + 0.5 * (genuine[:, None] == impostor))
    assert found.value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "there is no protocol 'nonsense'"),
        (["aamnce_table1"], "no checkpoint of giraffe"),
        (["aamnce_table1", "nowhere"], "no such checkpoint"),
        (["aamnce_table1", "wrong", "--samples", "2"], "2 samples say nothing"),
        (["spherehead_table1", "wrong"], "judges 'heads'"),
    ],
)
def test_what_cannot_be_run_says_why(place, capsys, words, message):
    write_checkpoint(place / "wrong", "giraffe")
    assert main(["evaluate", *words]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_protocols_whose_measure_is_missing_are_refused_by_name(place):
    chosen = load_protocols()["aamnce_table1"].model_copy(update={"measure": "taste"})
    assert chosen.measure not in MEASURES
    assert protocols.state_of(chosen).word == "not here"
    with pytest.raises(LineamentError, match="no measure 'taste'"):
        run(chosen, {}, Setting("facemesh", 8, place, place, place))


def test_differences_are_silent_only_where_nothing_differs():
    chosen = load_protocols(FROZEN)["aamnce_table1"]
    lines = differences(chosen, "lightcnn29", 1000, [{"images": 5, "data": "a"}])
    assert not any("samples; the paper" in line or "Made with" in line for line in lines)
    assert len(differences(chosen, "dlib_128d", 10, [{"images": 5, "data": "a"}])) == len(lines) + 2


def test_heads_are_measured_by_the_papers_table(place, weights, monkeypatch):
    monkeypatch.setattr(measures, "STUDY", 2)
    data = write_heads_shards(place / "data/shards/heads")
    write_heads(place / "data/checkpoints/heads/spherehead", data=ShardDataset(data).hash)
    chosen = load_protocols()["spherehead_table1"]
    result = evaluate("spherehead_table1", chosen, samples=8, shards=data, weights=weights)
    row = result["rows"]["SphereHead"]
    assert set(row) == {"fd_mobilenetv2", "fake_face", "high_quality"}
    assert row["fd_mobilenetv2"]["value"] > 0
    for name in ("fake_face", "high_quality"):
        assert 0 <= row[name]["low"] <= row[name]["value"] <= row[name]["high"] <= 1
    assert set(result["not_measured"]) == {"EG3D", "PanoHead"}
    assert not any("other data" in line for line in result["warnings"])
    with pytest.raises(LineamentError, match="judges 'heads'"):
        other = write_checkpoint(place / "giraffe", "giraffe")
        evaluate("spherehead_table1", chosen, {"x": other}, samples=8, shards=data, weights=weights)


def test_what_two_tables_ask_alike_is_measured_once(place, monkeypatch):
    folder = write_checkpoint(place / "a", "giraffe")
    asked = []

    def count(protocol, checkpoints, setting):
        asked.append((*checkpoints, protocol.seed, setting.samples))
        return {row: {"m": measures.Number(len(asked), None, None, 1)} for row in checkpoints}

    monkeypatch.setitem(MEASURES, "verification", count)
    chosen, known = load_protocols()["aamnce_table1"], {}
    setting = Setting("dlib_128d", 8, place, place, place)
    first = run(chosen, {"one": folder}, setting, known)
    assert run(chosen, {"other": folder}, setting, known)["other"] is first["one"]
    run(chosen, {"one": folder}, replace(setting, samples=9), known)
    run(chosen.model_copy(update={"seed": 1}), {"one": folder}, setting, known)
    run(chosen, {"one": write_checkpoint(place / "b", "giraffe", seed=1)}, setting, known)
    assert asked == [("one", 0, 8), ("one", 0, 9), ("one", 1, 8), ("one", 0, 8)]


def test_inversions_are_those_of_the_stage_for_this_checkpoint_and_of_no_other(place, weights, monkeypatch):
    monkeypatch.setattr(invert_heads, "InvertHeadsParams", quick_inversion)
    monkeypatch.setattr(held_out, "held_out_heads", toy_heads)
    mine, other = write_heads(place / "mine"), write_heads(place / "other", "panohead")
    views = [{"psnr": 10.0, "ssim": 0.5}, {"psnr": 4.0, "ssim": 0.1}, {"psnr": 8.0, "ssim": 0.3}]
    found = {"checkpoint": Heads(mine).digest, "heads": [{"tuned": views}, {"tuned": views}]}
    stored = place / "data/inversions/heads/inversions.json"
    stored.parent.mkdir(parents=True)
    stored.write_text(json.dumps({"variants": {"spherehead": found}}))
    chosen = load_protocols()["spherehead_inversion"]
    setting = Setting("mobilenetv2", 8, place, weights, place)
    rows = run(chosen, {"SphereHead": mine, "PanoHead": other}, setting)
    assert (rows["SphereHead"]["psnr"].value, rows["SphereHead"]["unseen_psnr"].value) == (10, 6)
    assert rows["SphereHead"]["psnr"].samples == 2
    assert "invert_heads" in rows["SphereHead"]["psnr"].note
    measured = rows["PanoHead"]["unseen_perceptual_mobilenetv2"]
    assert (measured.samples, measured.note) == (8, "")
    assert measured.low <= measured.value <= measured.high


def quick_inversion():
    inversion = {"steps": 1, "tuning_steps": 1, "perceptual_side": 32, "latents": 4}
    return InvertHeadsParams(unseen=(90.0,), inversion=inversion)


def test_the_stage_runs_what_can_be_run_and_says_why_not_for_the_rest(place, weights, monkeypatch):
    monkeypatch.setenv("LINEAMENT_WORKERS", "1")
    write_shards(place / "data/shards/faces")
    write_checkpoint(place / "data/checkpoints/giraffe/giraffe", "giraffe")
    (place / "params.yaml").write_text("evaluate_protocols: {samples: 8}\n")
    words = ["data/checkpoints", "data/shards", str(weights), "out", "--metrics", "m.json", "--preview", "p.png"]
    assert tables_stage(words) == 0
    states = json.loads((place / "out/states.json").read_text())
    assert set(states) == set(load_protocols())
    assert states["aamnce_table1"]["word"] == "fallback"
    assert json.loads((place / "out/aamnce_table1.json").read_text())["samples"] == 8
    assert states["spherehead_table1"]["word"] == "untrained"
    assert not (place / "out/spherehead_table1.json").exists()
    metrics = json.loads((place / "m.json").read_text())
    assert metrics["run"] == 1
    assert metrics["protocols"] == len(states)
