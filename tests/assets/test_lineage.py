"""What dvc.yaml says is what the UI shows."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from assets.columns import COLUMNS, described
from assets.definitions import definitions
from assets.lineage import dependency, report_page
from ops.crawl import raw
from ops.curate import align, balance, camera, detect, heads, landmarks, parse, screen, segment
from ops.dag import Dag
from ops.fit import body, clips, face
from ops.report.__main__ import ENTRY
from ops.report.__main__ import PAGES as REPORT_PAGES

from .conftest import DVC_YAML, PARAMS_YAML, Project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text(PARAMS_YAML)
    return tmp_path


def specs(root: Path) -> dict[str, dg.AssetSpec]:
    found = {spec.key.to_user_string(): spec for spec in definitions(root).resolve_all_asset_specs()}
    found.pop("experiments")  # no stage
    return found


def test_a_stage_is_an_asset(written: Path) -> None:
    found = specs(written)
    assert set(found) == {"crawl", "screen", "shards", "train_tiny", "evaluate_tiny"}
    crawl, train = found["crawl"], found["train_tiny"]
    assert crawl.description == "Pictures of <key>"
    assert crawl.group_name == "raw"
    assert crawl.kinds == {"python", "dvc"}
    assert list(crawl.owners) == ["team:data"]
    assert crawl.partitions_def == dg.StaticPartitionsDefinition(["studio", "mine"])
    assert train.partitions_def == dg.StaticPartitionsDefinition(["plain", "fancy"])
    assert found["shards"].partitions_def is None
    assert {dep.asset_key.to_user_string() for dep in train.deps} == {"shards"}
    assert crawl.code_version != train.code_version


def test_pools(written: Path) -> None:
    graph = definitions(written).get_repository_def().asset_graph
    assert graph.get(dg.AssetKey("train_tiny")).pools == {"gpu"}
    assert graph.get(dg.AssetKey("shards")).pools == set()


def test_partitions_feed_each_other_as_paths_do(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(
        """
stages:
  one:
    foreach: [x, y]
    do:
      cmd: one
      outs:
        - one/${item}
  same:
    foreach: [x, y]
    do:
      cmd: same
      deps:
        - one/${item}
      outs:
        - same/${item}
  all:
    matrix:
      v: [p, q]
    cmd: all
    deps:
      - one
    outs:
      - all/${item.v}
  crossed:
    foreach:
      - {name: a, of: y}
      - {name: b, of: x}
    do:
      cmd: crossed
      deps:
        - one/${item.of}
      outs:
        - crossed/${item.name}
  only_x:
    cmd: only
    deps:
      - one/x
      - same
    outs:
      - only
"""
    )
    dag = Dag.load(tmp_path)

    def mapping(child: str, parent: str) -> dg.PartitionMapping | None:
        return dependency(dag, dag.stages[child], dag.stages[parent]).partition_mapping

    assert mapping("same", "one") == dg.IdentityPartitionMapping()
    assert mapping("all", "one") == dg.AllPartitionMapping()
    assert mapping("crossed", "one") == dg.StaticPartitionMapping({"x": {"1"}, "y": {"0"}})
    assert mapping("only_x", "one") == dg.SpecificPartitionsPartitionMapping(["x"])
    assert mapping("only_x", "same") == dg.AllPartitionMapping()


def test_the_projects_own_lineage_loads() -> None:
    found = specs(ROOT)
    dag = Dag.load(ROOT)
    assert set(found) == set(dag.stages)
    groups = {spec.group_name for spec in found.values()}
    assert {"raw", "labels", "shards", "models", "evaluation"} <= groups
    assert all(spec.description for spec in found.values())
    assert all(spec.owners for spec in found.values())
    repository = definitions(ROOT).get_repository_def()
    assert {"demo", "refresh", "retrain_giraffe", "evaluate_all"} <= {job.name for job in repository.get_all_jobs()}
    for stage, spec in dag.stages.items():
        if stage.startswith("train_"):
            assert spec.meta.pool == "gpu"


def test_the_report_has_a_page_for_each_stage() -> None:
    dag = Dag.load(ROOT)
    found = {stage: Path(report_page(spec)).name for stage, spec in dag.stages.items()}
    assert set(found.values()) <= {*REPORT_PAGES, ENTRY}
    wanted = {"crawl": "data", "heads": "labels", "train_parser": "labels", "shards_heads": "data", "report": "index"}
    wanted |= {"train_heads": "heads", "invert_heads": "heads", "train_image_encoders": "avatar"}
    assert {stage: f"{page}.html" for stage, page in wanted.items()}.items() <= found.items()


def test_every_column_of_a_label_table_is_described() -> None:
    tables = {"crawl": raw, "fit_face": face, "fit_body": body, "track_clips": clips, "balance": balance}
    tables |= {"screen": screen, "detect": detect, "landmarks": landmarks, "align": align, "camera": camera}
    tables |= {"segment": segment, "heads": heads, "parse": parse}
    found = {(stage, name) for stage, module in tables.items() for name in module.SCHEMA.names}
    assert [(stage, name) for stage, name in found if not described(stage, name)] == []
    assert set(COLUMNS) == {name for _, name in found}, "and none that there is not"


def test_loading_imports_nothing_heavy() -> None:
    """The webserver, the daemon and every run load the definitions; seconds there are seconds everywhere."""
    script = "import sys, assets.definitions; print(*[n for n in sys.argv[1:] if n in sys.modules])"
    heavy = ["torch", "cv2", "webdataset", "pandas", "scipy", "ray", "PIL", "dvc", "anny"]
    done = subprocess.run([sys.executable, "-c", script, *heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_selection_parses(project: Project) -> None:
    """dvc and dagster each pin another ANTLR; with the wrong one every selection dies."""
    graph = project.repository().asset_graph
    below = dg.AssetSelection.from_string('key:"shards"+').resolve(graph)
    assert {key.to_user_string() for key in below} == {"shards", "train_tiny", "evaluate_tiny"}
    assert dg.AssetSelection.from_string("group:raw or kind:python").resolve(graph) == {
        dg.AssetKey("crawl"),
        dg.AssetKey("screen"),
    }


def test_a_sweep_parses(project: Project) -> None:
    """The other side of the same ANTLR: hydra's overrides in dvc exp run."""
    from dvc.repo import Repo

    for words in (["add", "."], ["-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=project.root, check=True, capture_output=True)
    project.dvc("exp", "run", "--queue", "-S", "shards.word=b1,b2")
    with contextlib.chdir(project.root):
        assert len(list(Repo().experiments.celery_queue.iter_queued())) == 2
