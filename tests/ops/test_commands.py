"""The command line as people meet it: every printed example parses, every slip is answered in one line."""

import os
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ops import cli
from ops.examples import EXAMPLES, GROUPS
from ops.runtime import arguments
from ops.runtime.errors import in_words

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md")))]
HEAD = "data/checkpoints/heads/spherehead"


def printed_lines(page: str) -> list[str]:
    """The lines that begin with ``lineament`` within the fences of a page, without comments and placeholders."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.splitlines() if line.startswith("lineament ")]
    return [line for line in lines if "--help" not in line.split("#")[0]]


def commands() -> dict[str, set[str]]:
    top = cli.parser()
    return top._subparsers._group_actions[0].choices


@pytest.mark.parametrize("line", [line for page in PAGES for line in printed_lines(page)])
def test_every_line_of_the_pages_parses(line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line.replace("$head", HEAD).replace("--kind KIND", "--kind smpl"), comments=True)
    assert cli.parser().parse_args(words[1:]).run


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_of_the_help_parses(line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.parser().parse_args(shlex.split(line, comments=True)[1:]).run


def test_every_command_is_listed_once_and_its_help_says_what_it_does():
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted(commands())
    whole = cli.parser().format_help()
    for name, command in commands().items():
        assert re.search(rf"^    {name}\s", whole, re.MULTILINE)
        assert command.description
    for name in EXAMPLES:
        first, _, second = name.partition(" ")
        command = commands()[first]
        command = command._subparsers._group_actions[0].choices[second] if second else command
        assert "Examples:\n  lineament " + name in command.format_help()


WRONG = {
    "seeds": f"sample {HEAD} out --seeds 5-1",
    "too many seeds": f"sample {HEAD} out --seeds 0-100000000000",
    "a huge seed": f"video {HEAD} v.mp4 --seed 99999999999999999999999",
    "a seed below zero": f"video {HEAD} v.mp4 --seed -1",
    "angle nan": f"sample {HEAD} out --azimuths nan",
    "radius 0": f"sample {HEAD} out --radius 0",
    "truncation inf": f"sample {HEAD} out --truncation inf",
    "no frame": f"video {HEAD} v.mp4 --frames 0",
    "too many frames": f"video {HEAD} v.mp4 --frames 1000000000000",
    "no picture": f"video {HEAD} v.mp4 --side 0",
    "rate nan": f"video {HEAD} v.mp4 --rate nan",
    "another ending": f"video {HEAD} v.gif",
    "a folder as a video": f"video {HEAD} folder.mp4",
    "a file as a folder": f"sample {HEAD} file",
    "a place within a file": f"video {HEAD} file/deep/v.mp4",
    "a mesh of nothing": f"mesh {HEAD} a.ply --resolution -4",
    "a mesh too large": f"mesh {HEAD} a.ply --resolution 100000",
    "a level nan": f"mesh {HEAD} a.ply --level nan",
    "another mesh": f"mesh {HEAD} a.stl",
    "a device": f"sample {HEAD} out --device foo",
    "a GPU that is not there": f"sample {HEAD} out --device cuda:99",
    "samples": "evaluate spherehead_table1 --samples -3",
    "devices": "plan --devices 0",
    "speed": "plan --speed nan",
    "jobs": "repro --jobs 0",
    "port": "review --port 99999999",
    "a zip": "dataset export data/shards/faces out.tar",
    "a command": "sampel x y",
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_a_slip_is_answered_in_one_line_before_any_work(words, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("here already")
    Path("folder.mp4").mkdir()
    with pytest.raises(SystemExit) as stopped:
        cli.main(words.split())
    said = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert said[0].startswith("error: ")
    assert len(said) == 2
    assert "--help` says more" in said[1]
    assert sorted(os.listdir()) == ["file", "folder.mp4"]


def test_a_slip_in_a_name_gets_the_nearest_one(capsys):
    with pytest.raises(SystemExit):
        cli.main(["sampel"])
    assert "Did you mean 'sample'?" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(Exception, match="cannot be written to"):
        arguments.new_file(".mp4")(str(tmp_path / "new" / "v.mp4"))


def test_what_is_there_already_may_be_written_again(tmp_path):
    (tmp_path / "v.mp4").write_text("old")
    assert arguments.new_file(".mp4")(str(tmp_path / "v.mp4"))
    assert arguments.new_folder(str(tmp_path))


def test_no_such_checkpoint_is_said_so_and_others_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    other = Path("data/checkpoints/heads/mine")
    other.mkdir(parents=True)
    (other / "config.json").write_text("{}")
    assert cli.main(["sample", "data/checkpoints/heads/mien", "out"]) == 1
    said = capsys.readouterr().err
    assert "no such checkpoint" in said
    assert str(other) in said


def test_refusals_of_the_machine_are_messages_and_mistakes_of_the_software_are_not(tmp_path):
    for broken in (
        lambda: (tmp_path / "nope").read_bytes(),
        lambda: tmp_path.read_bytes(),
        lambda: (tmp_path / ("x" * 300)).write_bytes(b""),
        lambda: (tmp_path / "file").write_bytes(b"") or (tmp_path / "file").mkdir(),
        lambda: (Path("/proc") / "new").write_bytes(b""),
    ):
        with pytest.raises(OSError) as caught:
            broken()
        assert str(caught.value.filename) in in_words(caught.value)
    with pytest.raises(OSError) as caught:
        pq.write_table(pa.table({"a": [1]}), "/proc/new.parquet")
    assert "/proc/new.parquet" in in_words(caught.value)
    assert "not enough memory" in in_words(MemoryError())
    assert "not enough memory" in in_words(RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"))
    assert in_words(ValueError("a bug")) is None
    assert in_words(RuntimeError("a bug")) is None
    assert in_words(OSError()) is None


@pytest.mark.parametrize(("error", "code"), [(PermissionError(13, "no", "data/x"), 1), (MemoryError(), 1)])
def test_the_command_line_prints_them_without_a_traceback(monkeypatch, capsys, error, code):
    def fail(_):
        raise error

    monkeypatch.setattr("ops.status.status_table", lambda: fail(None))
    assert cli.main(["status"]) == code
    assert capsys.readouterr().err.startswith("error: ")


def test_a_mistake_of_the_software_keeps_its_traceback(monkeypatch):
    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr("ops.status.status_table", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["status"])


@pytest.mark.parametrize("words", [["lineage", "0" * 16], ["takedown", "list"]])
def test_outside_a_project_nobody_is_told_that_a_picture_is_nowhere(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    assert "no project here" in capsys.readouterr().err
