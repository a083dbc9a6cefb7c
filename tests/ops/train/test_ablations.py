"""`lineament ablate`: each baseline as its stage is trained, but for one option, into a folder beside it."""

import argparse
import inspect
import subprocess
from pathlib import Path

import pytest

from ops.dag import Dag
from ops.runtime.errors import LineamentError
from ops.train import ablations, image_encoders, recurrent

ROOT = Path(__file__).parents[3]
MAIN = {"train_recurrent": recurrent.main, "train_image_encoders": image_encoders.main}


@pytest.mark.parametrize("name", ablations.BASELINES)
def test_a_baselines_command_is_its_stages_with_one_option_and_a_folder_beside_it(name):
    stage, (option, value) = ablations.BASELINES[name]
    words, plain = ablations.command(ROOT, name), Dag.load(ROOT).stages[stage].template.command.split()
    end = plain.index("--metrics")
    assert words[1 : end - 1] == plain[1 : end - 1]
    assert (plain[end - 1], words[end - 1]) == (f"data/checkpoints/{stage[6:]}", f"data/checkpoints/{name}")
    assert words[end:] == [option, value]
    assert option[2:].replace("-", "_") in inspect.signature(MAIN[stage].body).parameters


def test_all_are_trained_one_after_the_other_until_one_fails(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    called = []
    monkeypatch.setattr(subprocess, "call", lambda words: called.append(words[-3]) or len(called) // 4)
    assert ablations.ablate(argparse.Namespace(names=[])) == 1
    assert called == [f"data/checkpoints/{name}" for name in list(ablations.BASELINES)[:4]]
    called.clear()
    assert ablations.ablate(argparse.Namespace(names=["recurrent_conv"])) == 0
    assert "evaluate_avatar" in capsys.readouterr().out


def test_what_cannot_be_trained_is_an_error_in_words(tmp_path):
    with pytest.raises(LineamentError, match="no baseline 'recurrent_lstm'; choose recurrent_mean"):
        ablations.command(ROOT, "recurrent_lstm")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(LineamentError, match="has no stage train_recurrent"):
        ablations.command(tmp_path, "recurrent_conv")
