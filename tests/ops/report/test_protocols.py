import json

import pytest

from ops.report import protocols
from ops.report.page import Embedding, Missing, render

HOW = Embedding(800, 80)


def write(root, **changes):
    folder = root / "data/evaluation/protocols"
    folder.mkdir(parents=True)
    state = {"word": "fallback", "why": "x is not there", "paper": "P", "source": "Table 1", "title": "A <title>"}
    (folder / "states.json").write_text(json.dumps({"one": state, "two": {**state, "word": "untrained"}}))
    number = {"value": 0.5, "low": 0.4, "high": 0.6, "samples": 8, "note": ""}
    result = {
        "protocol": {
            "title": "A <title>", "paper": "P", "source": "Table 1", "seed": 0, "hash": "abcdef0123456789",
            "metrics": {"auc": "higher", "fid": "lower"}, "reference": {"theirs": {"fid": 7.8}}, "note": "a note",
        },
        "samples": 8, "rows": {"ours": {"auc": number}}, "differs": ["made otherwise"], "warnings": ["few"],
        "not_measured": {"other": "no checkpoint"}, **changes,
    }  # fmt: skip
    (folder / "one.json").write_text(json.dumps(result))
    return root


def test_ours_stand_above_the_published_rows_with_what_differs(tmp_path):
    found = protocols.page(write(tmp_path), HOW)
    assert dict(found.facts) == {"tables and figures": "2", "run here": "1"}
    page = render("t", found.lead, found.whole(), "")
    assert page.index("ours") < page.index("theirs (paper)")
    for words in (
        "0.5",
        "[0.4, 0.6]",
        "7.8",
        "made otherwise",
        "Not measured: other",
        "a note",
        "few",
        "nothing trained",
    ):
        assert words in page
    assert "A <title>" not in page
    assert "A &lt;title&gt;" in page


def test_without_a_run_the_page_says_what_to_do(tmp_path):
    with pytest.raises(Missing, match="dvc repro evaluate_protocols"):
        protocols.page(tmp_path, HOW)
