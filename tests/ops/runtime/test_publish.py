"""Publishing: whole or not at all, whatever happens in between."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish


def test_a_file_and_a_folder_appear_whole(tmp_path):
    with publish(tmp_path / "deep" / "file") as path:
        path.write_text("one")
        assert not (tmp_path / "deep" / "file").exists()
    with publish(tmp_path / "folder", folder=True) as path:
        (path / "a").write_text("two")
    assert (tmp_path / "deep" / "file").read_text() == "one"
    assert (tmp_path / "folder" / "a").read_text() == "two"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "folder"]


def test_an_old_folder_gives_way_at_the_end(tmp_path):
    for text in ("old", "new"):
        with publish(tmp_path / "folder", folder=True) as path:
            (path / text).write_text(text)
            assert text == "old" or (tmp_path / "folder" / "old").exists()
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["new"]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt()])
def test_failure_leaves_the_old_and_no_rest(tmp_path, error):
    (tmp_path / "file").write_text("old")
    with pytest.raises(type(error)), publish(tmp_path / "file") as path:
        path.write_text("half")
        raise error
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_explained(tmp_path):
    with pytest.raises(LineamentError, match="disk is full"), publish(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(LineamentError, match="nothing was written"), publish(tmp_path / "file"):
        pass


def test_what_a_killed_run_left_is_swept_away(tmp_path):
    script = (
        "import sys,time; from pathlib import Path; from ops.runtime.publish import publish\n"
        "with publish(Path(sys.argv[1]), folder=True) as p:\n"
        "    (p/'half').write_text('x'); print('ready', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "out")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.05)
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.iterdir())) == 1
    with publish(tmp_path / "out", folder=True) as path:
        (path / "whole").write_text("y")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
