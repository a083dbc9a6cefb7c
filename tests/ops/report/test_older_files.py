"""Files that other code wrote: whatever key they lack, the pages are written, and name file and key."""

import copy
import importlib.util
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ops.report import avatar, giraffe, heads, labels, portrait, protocols
from ops.report.__main__ import preview
from ops.report.files import read_json
from ops.report.page import Embedding, Missing, render
from ops.runtime.errors import LineamentError

HOW = Embedding(60, 80)


def sibling(name: str):
    """A test module of this folder, for its made-up results."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of_avatar(root: Path, _: Path) -> Path:
    module = sibling("test_avatar_page")
    return module.write(root, module.results()) / avatar.EVALUATION / "avatar.json"


def of_portrait(root: Path, _: Path) -> Path:
    return sibling("test_portrait_page").write(root) / portrait.EVALUATION / "portrait.json"


def of_heads(root: Path, _: Path) -> Path:
    path = root / "data/evaluation/heads/heads.json"
    path.parent.mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    path.write_text(json.dumps(sibling("test_heads_page").results()))
    return path


def of_labels(root: Path, _: Path) -> Path:
    path = root / "data/evaluation/labels/results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(sibling("test_labels").some_results()))
    return path


def of_protocols(root: Path, _: Path, name: str = "one") -> Path:
    return sibling("test_protocols").write(root) / f"data/evaluation/protocols/{name}.json"


def of_giraffe(root: Path, whole: Path) -> Path:
    path = root / giraffe.EVALUATION / "auc.json"
    path.parent.mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text("sources: {mine: {kind: folder, path: photos}}\n")
    path.write_bytes((whole / giraffe.EVALUATION / "auc.json").read_bytes())
    return path


def places(values: object, above: tuple = ()) -> Iterator[tuple]:
    """The place of every key of nested mappings and lists."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in pairs:
        if isinstance(values, dict):
            yield (*above, key)
        yield from places(value, (*above, key))


def without(values: object, place: tuple) -> object:
    """A copy that lacks the key at a place."""
    values = copy.deepcopy(values)
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    return values


def text_of(page, root: Path) -> str:
    """The page, or why there is none."""
    try:
        found = page.page(root, HOW)
        return render("t", found.lead, found.whole(), "")
    except LineamentError as error:
        return str(error)


@pytest.mark.parametrize(
    ("page", "write"),
    [
        (avatar, of_avatar),
        (portrait, of_portrait),
        (heads, of_heads),
        (labels, of_labels),
        (protocols, of_protocols),
        (protocols, partial(of_protocols, name="states")),
        (giraffe, of_giraffe),
    ],
)
def test_whatever_key_a_file_lacks_the_page_is_written_and_names_it(page, write, tmp_path, whole):
    path = write(tmp_path, whole)
    full = json.loads(path.read_text())
    lacking = f"{path.name} lacks "
    assert lacking not in text_of(page, tmp_path)
    named = 0
    for place in places(full):
        path.write_text(json.dumps(without(full, place)))
        text = text_of(page, tmp_path)
        dotted = ".".join(map(str, place))
        assert lacking not in text or f"{lacking}{dotted};" in text, dotted
        named += lacking in text
    assert named > 5


def test_a_lacking_measure_leaves_the_others_standing(tmp_path, whole):
    path = of_avatar(tmp_path, whole)
    full = json.loads(path.read_text())
    path.write_text(json.dumps(without(full, ("encoders", "recurrent", "truth", "unseen_gain"))))
    shown = {section.anchor: section.content for section in avatar.page(tmp_path, HOW).whole()}
    assert "Not available: </strong>avatar.json lacks encoders.recurrent.truth.unseen_gain" in shown["truth"]
    for words in ("17.2", "18.8", "0.172", "0.0469"):
        assert words in shown["truth"]
    assert "lacks encoders.recurrent.truth.unseen_gain" in shown["limits"]


@pytest.mark.parametrize("place", [("variants",), ("protocol", "recogniser"), ("variants", "giraffe", "angles")])
def test_the_preview_is_drawn_without(place, tmp_path, whole):
    path = of_giraffe(tmp_path, whole)
    path.write_text(json.dumps(without(json.loads(path.read_text()), place)))
    assert preview(tmp_path).shape[2] == 3


def test_a_record_is_a_mapping_that_knows_its_file(tmp_path):
    (tmp_path / "a.json").write_text('{"b": [{"c": {"d": 1}}], "none": {}}')
    found = read_json(tmp_path / "a.json")
    assert found == {"b": [{"c": {"d": 1}}], "none": {}}
    assert found.get("x") is None
    assert found["b"][0]["c"].first() == "d"
    with pytest.raises(Missing, match=r"a\.json lacks b\.0\.c\.x"):
        found["b"][0]["c"]["x"]
    with pytest.raises(Missing, match="holds nothing in none"):
        found["none"].first()
