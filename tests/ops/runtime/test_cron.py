"""Cron lines: what Dagster refuses is refused before it gets there."""

import pytest
from dagster._utils.schedules import is_valid_cron_string

from ops.crawl.sources import parse_source
from ops.runtime.cron import checked
from ops.runtime.errors import LineamentError

GOOD = ["0 3 * * *", "*/5 * * * *", "0 0-6/2 1,15 jan-mar mon", "@daily", "59 23 31 12 7"]
BAD = [
    "every day",
    "",
    "* * * *",
    "60 * * * *",
    "0 24 * * *",
    "0 0 0 * *",
    "0 0 * 13 *",
    "0 0 * * 8",
    "a b c d e",
    "5-1 * * * *",
]


@pytest.mark.parametrize("line", GOOD)
def test_good_lines_pass_and_dagster_takes_them(line):
    assert checked(line) == line
    assert is_valid_cron_string(line)


@pytest.mark.parametrize("line", BAD)
def test_bad_lines_are_refused_with_an_example(line):
    with pytest.raises(ValueError, match="0 3"):
        checked(line)


@pytest.mark.parametrize("line", ["every day", "60 * * * *"])
def test_a_source_with_a_bad_line_is_refused_where_it_is_declared(tmp_path, line):
    with pytest.raises(LineamentError, match=r"sources.mine.refresh.*five fields"):
        parse_source("mine", {"kind": "folder", "path": "photos", "refresh": line}, tmp_path / "params.yaml")
