"""The small reader of dvc.yaml sees what DVC sees."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from ops.dag import Dag
from ops.runtime.errors import LineamentError

ROOT = Path(__file__).parents[2]

EVERY_TEMPLATE = """
vars:
  - numbers.yaml
  - base: here
stages:
  over_dict:
    foreach: ${sources}
    do:
      desc: Pictures of ${key}, a ${item.kind}
      cmd: >-
        get ${item.kind} ${item.path} raw/${key}
        --rate ${rate} --flag ${flag} --literal \\${HOME}
      params:
        - sources.${key}
        - other.yaml:
            - a.b
      outs:
        - raw/${key}:
            persist: true
  over_list:
    foreach: [one, 2, true]
    do:
      cmd: list ${item}
      outs:
        - list/${item}.txt
  over_mappings:
    foreach:
      - {name: x, size: 1}
      - {name: y, size: 2}
    do:
      cmd: map ${item.name} ${item.size} ${nested.list[1]}
      deps:
        - raw/${item.name}
        - ./list/one.txt
      outs:
        - map/${item.name}
  grid:
    matrix:
      model: ${models}
      size: [64, 1e-3]
    cmd: train ${item.model} ${item.size} ${key} ${base}
    deps:
      - map
    metrics:
      - metrics/${key}.json:
          cache: false
    plots:
      - plots/${key}.csv
  last:
    cmd: join
    deps:
      - plots
      - raw/x/inside.txt
      - code.py
    outs:
      - last
"""
VALUES = """
sources:
  x: {kind: folder, path: photos}
  y: {kind: studio, path: code}
rate: 1e-4
flag: false
nested:
  list: [first, second]
models: [plain, fancy]
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(EVERY_TEMPLATE)
    (tmp_path / "params.yaml").write_text(VALUES)
    (tmp_path / "numbers.yaml").write_text("seven: 7\n")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    return tmp_path


def dvc_view(root: Path) -> tuple[dict[str, dict[str, object]], set[tuple[str, str]]]:
    """Units and edges as DVC itself has them."""
    from dvc.repo import Repo

    with contextlib.chdir(root):
        repo = Repo()
        stages = {stage.addressing: stage for stage in repo.index.stages}
        units = {
            name: {
                "command": stage.cmd,
                "deps": {str(d) for d in stage.deps if not hasattr(d, "params")},
                "params": {(d.def_path, p) for d in stage.deps if hasattr(d, "params") for p in d.params},
                "outs": {str(out) for out in stage.outs},
            }
            for name, stage in stages.items()
        }
        edges = {(b.addressing, a.addressing) for a, b in repo.index.graph.edges}
    return units, edges


def our_view(root: Path) -> tuple[dict[str, dict[str, object]], set[tuple[str, str]]]:
    dag = Dag.load(root)
    units = {
        name: {
            "command": unit.command,
            "deps": set(unit.deps),
            "params": set(unit.params),
            "outs": set(unit.outs),
        }
        for name, unit in dag.units.items()
    }
    return units, {(parent, name) for name in dag.units for parent in dag.parents(name)}


def test_every_template_as_dvc_resolves_it(written: Path) -> None:
    ours, theirs = our_view(written), dvc_view(written)
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]
    assert ("over_dict@x", "last") in ours[1], "a file inside an output"
    assert ("grid@plain-64", "last") in ours[1], "a folder that holds outputs"


def test_the_projects_own_lineage_as_dvc_resolves_it() -> None:
    ours, theirs = our_view(ROOT), dvc_view(ROOT)
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]


def test_order_and_closures(written: Path) -> None:
    dag = Dag.load(written)
    order = list(dag.units)
    assert all(order.index(parent) < order.index(name) for name in order for parent in dag.parents(name))
    grid = {name for name in order if name.startswith("grid@")}
    assert set(dag.downstream(["over_dict@y"])) == {"over_dict@y", "over_mappings@1", *grid, "last"}
    assert set(dag.upstream(["over_mappings@0"])) == {"over_mappings@0", "over_list@one", "over_dict@x"}
    assert dag.code(dag.units["last"]) == ("code.py",)
    assert dag.stages["grid"].keys == ["plain-64", "plain-0.001", "fancy-64", "fancy-0.001"]
    assert dag.stages["last"].keys is None
    assert dag.stages["over_dict"].description == "Pictures of <key>, a <kind>"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("${base}", "${bse}", r"stage 'grid'.*\$\{bse\}"),
        ("cmd: join", "cmd: join\n    outz: []", "'outz' is not understood here; did you mean 'outs'"),
        ("cmd: join", "cmd: join ${nested}", r"\$\{nested\} is a dict"),
        ("cmd: join", "cmd: join\n    meta:\n      grup: raw", "grup: unknown key; the nearest valid key is 'group'"),
        ("deps:\n        - raw/${item.name}", "deps:\n        - last", "circle"),
        ("stages:", "stages: [", "not valid YAML"),
    ],
)
def test_mistakes_are_named(written: Path, old: str, new: str, says: str) -> None:
    text = (written / "dvc.yaml").read_text()
    assert old in text
    (written / "dvc.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(LineamentError, match=f"(?s){says}"):
        Dag.load(written)


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(LineamentError, match=r"dvc\.yaml: no such file"):
        Dag.load(tmp_path)
