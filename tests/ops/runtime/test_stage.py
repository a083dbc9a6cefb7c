"""A stage as its users meet it: a command with typed parameters, exit codes, and work that is not done twice."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ops.runtime.errors import LineamentError
from ops.runtime.parallel import run_tasks
from ops.runtime.params import Params
from ops.runtime.shardwork import Piece, run_pieces
from ops.runtime.stage import Stage, stage


class CopyParams(Params):
    times: int = 2


@stage("copy", CopyParams)
def copy(s: Stage[CopyParams], source: Path, out: Path, *, mode: str = "plain") -> None:
    """Repeat a text."""
    if mode == "fail":
        raise LineamentError("the text is missing; write one")
    if mode == "stop":
        raise KeyboardInterrupt
    out.write_text(source.read_text() * s.params.times)
    s.metrics({"length": len(out.read_text())})
    s.preview(np.zeros((4, 4, 3), np.uint8))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("copy: {times: 3}")
    Path("in.txt").write_text("ab")
    return tmp_path


def test_runs_and_reports(project):
    assert copy(["in.txt", "out.txt", "--metrics", "m/copy.json", "--preview", "p.png"]) == 0
    assert Path("out.txt").read_text() == "ababab"
    assert json.loads(Path("m/copy.json").read_text()) == {"length": 6}
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(next(Path("data/.work/copy").rglob("timings.json")).read_text())["stage"] == "copy"


def test_a_known_problem_is_one_line_and_exit_1(project, capsys):
    assert copy(["in.txt", "out.txt", "--mode", "fail"]) == 1
    captured = capsys.readouterr().err
    assert "error in copy: the text is missing; write one" in captured
    assert "Traceback" not in captured


def test_wrong_parameters_end_before_any_work(project, capsys):
    Path("params.yaml").write_text("copy: {tims: 3}")
    assert copy(["in.txt", "out.txt"]) == 1
    assert "nearest valid key is 'times'" in capsys.readouterr().err
    assert not Path("out.txt").exists()


def test_ctrl_c_has_its_own_exit_code(project, capsys):
    assert copy(["in.txt", "out.txt", "--mode", "stop"]) == 130
    assert "run the same command to go on" in capsys.readouterr().err


def test_help_names_the_parameters(capsys):
    with pytest.raises(SystemExit):
        copy(["--help"])
    text = capsys.readouterr().out
    assert "Repeat a text." in text
    assert "times: default 2" in text


def test_two_runs_at_once_are_refused(project):
    from ops.runtime.stage import only_run

    with only_run(Path("work"), "copy"), pytest.raises(LineamentError, match=f"process {os.getpid()}"):  # noqa: SIM117
        with only_run(Path("work"), "copy"):
            pass


def write_number(number, path):
    path.write_text(str(number))
    with open("log", "a") as log:
        log.write(f"{number}\n")
    if number == 3 and Path("fail").exists():
        raise LineamentError("three fails")


def pieces(numbers):
    return [Piece(f"{n}", f"{n}", n) for n in numbers]


def test_finished_pieces_are_not_made_again(project):
    s = Stage("numbers", CopyParams())
    Path("fail").write_text("")
    with pytest.raises(LineamentError, match="three fails"):
        run_pieces(s, pieces([1, 2, 3]), write_number, workers=1)
    Path("fail").unlink()
    results = run_pieces(s, pieces([1, 2, 3, 4]), write_number, workers=1)
    assert [p.read_text() for p in results] == ["1", "2", "3", "4"]
    assert Path("log").read_text().split() == ["1", "2", "3", "3", "4"]


def test_other_parameters_make_everything_again_and_old_results_go(project):
    run_pieces(Stage("numbers", CopyParams()), pieces([1, 2]), write_number, workers=1)
    results = run_pieces(Stage("numbers", CopyParams(times=9)), pieces([1, 2]), write_number, workers=1)
    assert Path("log").read_text().split() == ["1", "2", "1", "2"]
    assert sorted(results) == sorted(results[0].parent.iterdir())


def die(number):
    if number == 2:
        os._exit(9)
    return number


def test_a_dead_worker_is_reported():
    with pytest.raises(LineamentError, match="worker process died"):
        list(run_tasks(die, range(4), workers=2))


def test_parallel_results_are_those_of_one_process():
    assert sorted(run_tasks(abs, range(-9, 0), workers=2)) == sorted(run_tasks(abs, range(-9, 0), workers=1))
