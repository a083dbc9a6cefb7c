"""Small DVC projects in temporary folders, of the same style as the project's own dvc.yaml."""

from __future__ import annotations

import contextlib
import json
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from assets import automation
from assets.definitions import definitions
from assets.project import ROOT_VARIABLE
from assets.state import Journal, sync_with_dvc
from ops import registry, versioning
from ops.dag import Dag
from ops.runtime.errors import LineamentError
from ops.versioning import DVC, environment

# Each stage joins the texts of its inputs behind a word, its parameter; the word `fail` makes it fail.
STEP = """
import json, os, pathlib, sys
out, word, *inputs = sys.argv[1:]
texts = []
for name in inputs:
    path = pathlib.Path(name)
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    texts += [file.read_text() for file in files]
if word == "fail":
    print("a line before the end")
    sys.exit("this input is no good")
if "DAGSTER_PIPES_CONTEXT" in os.environ:
    from dagster_pipes import open_dagster_pipes
    with open_dagster_pipes() as pipes:
        pipes.log.info("a message from " + out)
path = pathlib.Path(out)
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(word + "(" + ",".join(texts) + ")")
with open("ran.log", "a") as log:
    log.write(out + "\\n")
"""

DVC_YAML = """
stages:
  crawl:
    foreach: ${sources}
    do:
      desc: Pictures of ${key}
      cmd: python code/crawl.py made/raw/${key}.txt ${item.word} ${item.path}
      deps:
        - ${item.path}
      params:
        - sources.${key}
      outs:
        - made/raw/${key}.txt
      meta: {group: raw, kinds: [python], owners: ["team:data"]}
  screen:
    foreach: ${sources}
    do:
      cmd: python code/screen.py made/labels/${key}/screen.txt ${screen.word} made/raw/${key}.txt
      deps:
        - made/raw/${key}.txt
        - code/screen.py
        - shared
      params:
        - screen
      outs:
        - made/labels/${key}/screen.txt
      meta: {group: labels, kinds: [python]}
  shards:
    cmd: python code/shards.py made/shards/all.txt ${shards.word} made/labels
    deps:
      - made/labels
      - code/shards.py
    params:
      - shards
    outs:
      - made/shards/all.txt
    meta: {group: shards}
  train_tiny:
    matrix:
      variant: [plain, fancy]
    cmd: >-
      python code/train.py made/checkpoints/${item.variant}.txt ${item.variant}-${train_tiny.word} made/shards/all.txt
    deps:
      - made/shards/all.txt
      - code/train.py
    params:
      - train_tiny
    outs:
      - made/checkpoints/${item.variant}.txt
    meta: {group: models, pool: gpu}
  evaluate_tiny:
    cmd: python code/evaluate.py made/evaluation/tiny.txt ${evaluate_tiny.word}
      made/checkpoints/plain.txt made/checkpoints/fancy.txt
    deps:
      - made/checkpoints/plain.txt
      - made/checkpoints/fancy.txt
      - code/evaluate.py
    params:
      - evaluate_tiny
    outs:
      - made/evaluation/tiny.txt
    meta: {group: evaluation}
"""

PARAMS_YAML = """
sources:
  studio:
    kind: studio
    path: code/crawl.py
    word: s1
  mine:
    kind: folder
    path: photos
    word: m1
    refresh: "0 3 * * *"
screen:
  word: a
shards:
  word: b
train_tiny:
  word: c
evaluate_tiny:
  word: d
"""


class Project:
    """A DVC project, its Dagster instance, and what both say of it."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root = root
        self.instance = instance

    @property
    def dag(self) -> Dag:
        return Dag.load(self.root)

    def dvc(self, *words: str) -> None:
        """Run a dvc command in this process, which spares the second that importing dvc takes."""
        from dvc.cli import main

        with contextlib.chdir(self.root):
            assert main([*words, "--quiet"]) == 0

    def repro(self, *words: str) -> None:
        self.dvc("repro", *words)

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    def ran(self) -> list[str]:
        """What was run since this was last asked."""
        file = self.root / "ran.log"
        lines = file.read_text().split() if file.exists() else []
        file.write_text("")
        return lines

    def repository(self) -> dg.RepositoryDefinition:
        """The definitions as a code server that has just been loaded has them."""
        return definitions(self.root).get_repository_def()

    def tell(self) -> None:
        """Let Dagster know of everything, where all is known to be up to date."""
        Journal.open(self.instance, self.root).tell()

    def stale_by_dagster(self) -> set[str]:
        """The units that Dagster calls stale or missing."""
        graph = self.repository().asset_graph
        resolver = CachingStaleStatusResolver(self.instance, graph, LoadingContextForTest(self.instance))
        return {
            name
            for name, unit in self.dag.units.items()
            if resolver.get_status(dg.AssetKey(unit.stage), unit.key) != StaleStatus.FRESH
        }

    def stale_by_dvc(self) -> set[str]:
        """The units that DVC would run."""
        from dvc.repo import Repo

        with contextlib.chdir(self.root):
            return set(Repo().status())

    def run_job(self, name: str, config: dict | None = None, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        job = self.repository().get_job(name)
        return job.execute_in_process(run_config=config, instance=self.instance, raise_on_error=raise_on_error)

    def materialize(self, *stages: str, partition: str | None = None, raise_on_error: bool = True, force: bool = False):
        """What the UI's Materialize does."""
        job = self.repository().get_job("__ASSET_JOB")
        return job.execute_in_process(
            asset_selection=[dg.AssetKey(stage) for stage in stages],
            partition_key=partition,
            instance=self.instance,
            raise_on_error=raise_on_error,
            run_config={"ops": {stage: {"config": {"force": True}} for stage in stages}} if force else None,
        )


def write_project(root: Path) -> None:
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text(PARAMS_YAML)
    (root / ".dvcignore").write_text("__pycache__\n")
    (root / "code").mkdir()
    for name in ("crawl", "screen", "shards", "train", "evaluate"):
        (root / "code" / f"{name}.py").write_text(f"# {name}\n" + textwrap.dedent(STEP))
    for name in ("shared/b.py", "shared/a/z.py", "shared/a/__pycache__/z.pyc"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "photos").mkdir()
    (root / "photos/one.txt").write_text("one")


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on which everything has been run by hand once; to be copied, not changed."""
    root = tmp_path_factory.mktemp("finished")
    write_project(root)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for words in (("init", "-q"), ("config", "core.analytics", "false"), ("repro", "-q")):
        subprocess.run([*DVC, *words], cwd=root, env=environment(), check=True)
    (root / "ran.log").write_text("")
    return root


@pytest.fixture
def project(finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project of its own on which everything has been run by hand, and a Dagster that knows nothing of it."""
    root = tmp_path / "project"
    subprocess.run(["cp", "-a", str(finished_project), str(root)], check=True)
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    monkeypatch.setenv("PATH", environment()["PATH"])
    with dg.DagsterInstance.ephemeral() as instance:
        yield Project(root, instance)


@pytest.fixture
def quick_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC's short commands run in this process, which spares the second that importing dvc takes."""
    from dvc.cli import main
    from dvc.repo import Repo

    def dvc(root: Path, *words: str, patience: float = 0.0) -> str:
        with contextlib.chdir(root):
            if words[0] == "status":
                return json.dumps(Repo().status(targets=list(words[2:]) or None))
            if main([*words, "--quiet"]):
                raise LineamentError(f"dvc {words[0]} failed")
        return ""

    for module in (versioning, registry, automation):
        monkeypatch.setattr(module, "dvc", dvc)


@pytest.fixture
def sync(project: Project) -> Callable[[], dg.SkipReason]:
    """One tick of the sync sensor, with the cursor it left."""
    cursor: list[str | None] = [None]

    def tick() -> dg.SkipReason:
        with dg.build_sensor_context(instance=project.instance, cursor=cursor[0]) as context:
            skipped = sync_with_dvc(context)
            cursor[0] = context.cursor
            return skipped

    return tick
