"""A training on demand from its reason to its champion, on a project whose networks are one number each."""

from __future__ import annotations

import contextlib
import json
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.project import ROOT_VARIABLE
from assets.retraining import starts
from ops import policy, registry
from ops.dag import Dag
from ops.judge import champions_in_place, judge
from ops.ledger import read_lock
from ops.registry import Score
from ops.runtime.errors import LineamentError
from ops.settings import set_value
from ops.versioning import DVC, environment

from .conftest import Project

ROOT = Path(__file__).parents[2]

CODE = {
    "shards.py": """
        import json, pathlib, sys
        sys.path.insert(0, sys.argv[3])
        from ops.store.reader import ShardDataset
        from ops.store.tar import ShardWriter
        photos, folder = map(pathlib.Path, sys.argv[1:3])
        with ShardWriter(folder) as writer:
            for photo in sorted(photos.iterdir()):
                label = {"source": "mine", "yaw": float(photo.read_text())}
                writer.add(photo.name, {"json": json.dumps(label).encode()})
        data = ShardDataset(folder)
        (folder / "dataset.json").write_text(json.dumps({"hash": data.hash, "samples": len(data), "resolution": 8}))
    """,
    "train.py": """
        import json, pathlib, sys
        import yaml
        shards, out, variant = sys.argv[1:]
        quality = yaml.safe_load(open("params.yaml"))["train_tiny"][variant]
        record = json.loads(pathlib.Path(shards, "dataset.json").read_text())
        pathlib.Path(out).mkdir(parents=True)
        pathlib.Path(out, "config.json").write_text(json.dumps({"data": record["hash"], "quality": quality}))
        pathlib.Path(out, "curves.csv").write_text("step,loss\\n0,1.0\\n")
    """,
    "evaluate.py": """
        import json, pathlib, sys
        checkpoints, out, bonus = sys.argv[1:]
        found = {}
        for config in sorted(pathlib.Path(checkpoints).glob("*/config.json")):
            value = json.loads(config.read_text())["quality"] + float(bonus)
            found[config.parent.name] = {"score": value, "interval": [value - 0.1, value + 0.1]}
        pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(out).write_text(json.dumps(found))
    """,
}
# A model that is the sum of its own quality and that of tiny/plain; an evaluation of all checkpoints, which refuses one
# that was trained on another tiny/plain.
REFINE = """
    import json, pathlib, sys
    import yaml
    below, out = map(pathlib.Path, sys.argv[1:])
    base = json.loads((below / "config.json").read_text())["quality"]
    quality = base + yaml.safe_load(open("params.yaml"))["train_refined"]
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps({"quality": quality, "base": base}))
"""
EVALUATE_PAIR = """
    import json, pathlib, sys
    checkpoints, out, bonus = sys.argv[1:]
    read = lambda path: json.loads(path.read_text())
    tiny = {p.parent.name: read(p)["quality"] for p in sorted(pathlib.Path(checkpoints).glob("tiny/*/config.json"))}
    refined = read(pathlib.Path(checkpoints, "refined/config.json"))
    assert refined["base"] == tiny["plain"], "trained on another one"
    values = {name: value + float(bonus) for name, value in {**tiny, "refined": refined["quality"]}.items()}
    found = {name: {"score": value, "interval": [value - 0.1, value + 0.1]} for name, value in values.items()}
    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(out).write_text(json.dumps(found))
"""
PAIR_YAML = """
  train_refined:
    cmd: python code/refine.py data/checkpoints/tiny/plain data/checkpoints/refined
    deps:
      - data/checkpoints/tiny/plain
      - code/refine.py
    params:
      - train_refined
    outs:
      - data/checkpoints/refined
    meta: {group: models, pool: gpu}
"""
DVC_YAML = f"""
stages:
  shards_tiny:
    cmd: python code/shards.py photos data/shards/tiny {ROOT}
    deps:
      - photos
      - code/shards.py
    outs:
      - data/shards/tiny
    meta: {{group: shards}}
  train_tiny:
    matrix:
      variant: [plain, fancy]
    cmd: python code/train.py data/shards/tiny data/checkpoints/tiny/${{item.variant}} ${{item.variant}}
    deps:
      - data/shards/tiny
      - code/train.py
    params:
      - train_tiny
    outs:
      - data/checkpoints/tiny/${{item.variant}}
    meta: {{group: models, pool: gpu}}
  evaluate_tiny:
    cmd: python code/evaluate.py data/checkpoints/tiny metrics/evaluate_tiny.json ${{evaluate_tiny.bonus}}
    deps:
      - data/checkpoints/tiny
      - code/evaluate.py
    params:
      - evaluate_tiny
    metrics:
      - metrics/evaluate_tiny.json:
          cache: false
    meta: {{group: evaluation}}
"""
PARAMS_YAML = """
policy:
  tiny:
    score: "{key}.score"
    interval: "{key}.interval"
    gain: 50
    drift: 0.4
train_tiny:
  plain: 1.0
  fancy: 2.0
evaluate_tiny:
  bonus: 0.0
"""


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text(PARAMS_YAML)
    for name, text in CODE.items():
        (root / "code").mkdir(exist_ok=True)
        (root / "code" / name).write_text(textwrap.dedent(text))
    (root / "photos").mkdir()
    for number in range(4):
        (root / "photos" / f"{number:016x}").write_text("0.0")
    (root / "data").mkdir()
    (root / "data/.gitignore").write_text((ROOT / "data/.gitignore").read_text())
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for words in (("init", "-q"), ("repro", "-q")):
        subprocess.run([*DVC, *words], cwd=root, env=environment(), check=True)
    return root


@pytest.fixture
def tiny(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    root = tmp_path / "project"
    subprocess.run(["cp", "-a", str(trained_once), str(root)], check=True)
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    monkeypatch.setenv("PATH", environment()["PATH"])
    with dg.DagsterInstance.ephemeral() as instance:
        yield Project(root, instance)


def champions(project: Project) -> dict[str, int | None]:
    return {name: model.champion for name, model in registry.read(project.root).models.items()}


def quality(project: Project, name: str) -> float:
    return json.loads((project.root / "data/champions" / name / "config.json").read_text())["quality"]


def reasons(project: Project) -> list[str]:
    dag = Dag.load(project.root)
    return policy.reasons_to_train(project.root, dag, "tiny", policy.load_policies(project.root)["tiny"])


def retrain(project: Project, old: str, new: str) -> None:
    project.edit("params.yaml", old, new)
    project.repro()


def test_the_first_versions_become_champions(tiny: Project) -> None:
    found = judge(tiny.root, "tiny")
    assert [(item.model, item.promoted, item.why) for item in found] == [
        ("tiny/plain", True, "the first version"),
        ("tiny/fancy", True, "the first version"),
    ]
    assert champions(tiny) == {"tiny/plain": 1, "tiny/fancy": 1}
    assert quality(tiny, "tiny/fancy") == 2.0
    again = judge(tiny.root, "tiny")
    assert [item.why for item in again] == ["is the champion already"] * 2
    assert [len(model.versions) for model in registry.read(tiny.root).models.values()] == [1, 1]
    tiny.dvc("status")
    assert tiny.stale_by_dvc() == set(), "the pointers to the champions trouble nothing"


@pytest.mark.usefixtures("quick_dvc")
def test_only_a_win_beyond_the_noise_promotes_and_there_is_a_way_back(tiny: Project) -> None:
    judge(tiny.root, "tiny")
    retrain(tiny, "plain: 1.0", "plain: 1.1")  # the interval of the difference has half a width of 0.141
    found = {item.model: item for item in judge(tiny.root, "tiny")}
    assert not found["tiny/plain"].promoted
    assert "does not beat" in found["tiny/plain"].why
    retrain(tiny, "plain: 1.1", "plain: 1.2")
    assert {item.model: item.promoted for item in judge(tiny.root, "tiny")} == {"tiny/plain": True, "tiny/fancy": False}
    assert champions(tiny) == {"tiny/plain": 3, "tiny/fancy": 1}
    assert quality(tiny, "tiny/plain") == 1.2
    registry.roll_back(tiny.root, "tiny/plain")
    assert quality(tiny, "tiny/plain") == 1.0
    registry.promote(tiny.root, "tiny/plain", 2, "a look")
    assert quality(tiny, "tiny/plain") == 1.1
    history = registry.read(tiny.root).models["tiny/plain"].history
    assert [event.champion for event in history] == [1, 3, 1, 2]
    assert history[-1].why == "a look"


@pytest.mark.usefixtures("quick_dvc")
def test_champions_of_another_protocol_are_measured_anew(tiny: Project) -> None:
    judge(tiny.root, "tiny")
    retrain(tiny, "bonus: 0.0", "bonus: 5.0")  # every score rises: no reason to promote
    retrain(tiny, "plain: 1.0", "plain: 1.05")
    before = (tiny.root / "metrics/evaluate_tiny.json").read_text()
    assert not any(item.promoted for item in judge(tiny.root, "tiny"))
    model = registry.read(tiny.root).models["tiny/plain"]
    assert model.version(1).score is not None
    assert model.version(1).score.value == 6.0
    assert (tiny.root / "metrics/evaluate_tiny.json").read_text() == before


def test_scores_of_two_protocols_are_never_compared() -> None:
    score = Score(name="a", value=1, low=0.9, high=1.1, protocol="x")
    with pytest.raises(LineamentError, match="another protocol"):
        score.beats(score.model_copy(update={"protocol": "y"}))
    worse = score.model_copy(update={"value": 0.8, "better": "lower"})
    assert worse.beats(score.model_copy(update={"better": "lower"}))
    assert not worse.model_copy(update={"better": "higher"}).beats(score)


@pytest.mark.usefixtures("quick_dvc")
def test_an_evaluation_of_other_checkpoints_is_refused(tiny: Project) -> None:
    tiny.edit("params.yaml", "plain: 1.0", "plain: 3.0")
    tiny.repro("train_tiny")
    with pytest.raises(LineamentError, match="measured other checkpoints"):
        judge(tiny.root, "tiny")
    assert champions(tiny) == {}


@pytest.mark.usefixtures("quick_dvc")
def test_a_champion_that_the_cache_has_lost_stays_as_it_was(tiny: Project) -> None:
    judge(tiny.root, "tiny")
    retrain(tiny, "plain: 1.0", "plain: 2.0")
    judge(tiny.root, "tiny")
    tiny.dvc("gc", "--workspace", "--force")  # what nothing points to any more
    with pytest.raises(LineamentError, match="neither in DVC's cache nor in a remote"):
        registry.roll_back(tiny.root, "tiny/plain")
    assert (champions(tiny)["tiny/plain"], quality(tiny, "tiny/plain")) == (2, 2.0)
    (tiny.root / "data/champions/tiny/plain/config.json").unlink()
    tiny.dvc("checkout", "data/champions/tiny/plain.dvc")
    assert quality(tiny, "tiny/plain") == 2.0, "the champion outlives a clean-up"


@pytest.mark.usefixtures("quick_dvc")
def test_a_colleague_gets_the_champion_that_no_stage_makes_any_more(tiny: Project, tmp_path: Path) -> None:
    judge(tiny.root, "tiny")
    retrain(tiny, "plain: 1.0", "plain: 0.5")
    judge(tiny.root, "tiny")
    assert champions(tiny)["tiny/plain"] == 1
    tiny.dvc("gc", "--workspace", "--force")
    tiny.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    tiny.dvc("push")
    for words in (["add", "."], ["-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=tiny.root, check=True)
    tracked = subprocess.run(["git", "ls-files", "data/champions"], cwd=tiny.root, capture_output=True, text=True)
    pointers = ["data/champions/tiny/.gitignore", "data/champions/tiny/fancy.dvc", "data/champions/tiny/plain.dvc"]
    assert tracked.stdout.split() == pointers, "git keeps the pointers and no weights"
    subprocess.run(["git", "clone", "-q", str(tiny.root), str(tmp_path / "clone")], check=True)
    colleague = Project(tmp_path / "clone", tiny.instance)
    colleague.dvc("pull")
    assert quality(colleague, "tiny/plain") == 1.0
    assert colleague.stale_by_dvc() == set()


@pytest.fixture
def pair(tiny: Project) -> Project:
    """The same, with a model that is trained upon tiny/plain and judged by the evaluation of both."""
    (tiny.root / "dvc.yaml").write_text(DVC_YAML + PAIR_YAML)
    (tiny.root / "code/evaluate_tiny.py").write_text(textwrap.dedent(EVALUATE_PAIR))
    (tiny.root / "code/refine.py").write_text(textwrap.dedent(REFINE))
    tiny.edit("dvc.yaml", "code/evaluate.py", "code/evaluate_tiny.py")
    tiny.edit("dvc.yaml", "data/checkpoints/tiny metrics", "data/checkpoints metrics")
    tiny.edit("dvc.yaml", "      - data/checkpoints/tiny\n      - code/ev", "      - data/checkpoints\n      - code/ev")
    refined = "  refined:\n    evaluation: evaluate_tiny\n    score: refined.score\ntrain_refined: 5.0\ntrain_tiny:\n"
    tiny.edit("params.yaml", "train_tiny:\n", refined)
    tiny.repro()
    return tiny


@pytest.mark.usefixtures("quick_dvc")
def test_encoders_are_champions_beside_the_generator_they_were_trained_on_alone(pair: Project) -> None:
    found = [(item.model, item.promoted) for item in judge(pair.root, "tiny")]
    assert found == [("tiny/plain", True), ("tiny/fancy", True), ("refined", True)]
    retrain(pair, "plain: 1.0", "plain: 0.5")  # worse, so what is trained on it cannot become champion, however good
    pair.edit("params.yaml", "train_refined: 5.0", "train_refined: 9.0")
    pair.repro()
    found = {item.model: item for item in judge(pair.root, "tiny")}
    assert not found["tiny/plain"].promoted
    assert "trained on a version of tiny/plain that is not champion" in found["refined"].why
    with pytest.raises(LineamentError, match="First: lineament models promote tiny/plain 2"):
        registry.promote(pair.root, "refined", 2)
    retrain(pair, "plain: 0.5", "plain: 3.0")
    found = {item.model: item for item in judge(pair.root, "tiny")}
    assert (found["refined"].promoted, found["refined"].why) == (True, "the first version on a new champion")
    assert champions(pair) == {"tiny/plain": 3, "tiny/fancy": 1, "refined": 3}
    retrain(pair, "train_refined: 9.0", "train_refined: 4.0")
    assert [item.promoted for item in judge(pair.root, "refined")] == [False], "the same generator, a lower score"
    registry.roll_back(pair.root, "tiny/plain")
    assert champions(pair) == {"tiny/plain": 1, "tiny/fancy": 1, "refined": 1}, "the encoders go back with it"
    assert quality(pair, "refined") == 6.0
    registry.promote(pair.root, "tiny/plain", 2)
    assert champions(pair)["refined"] == 2


@pytest.mark.usefixtures("quick_dvc")
def test_a_champion_is_measured_anew_with_its_own_encoders(pair: Project) -> None:
    judge(pair.root, "tiny")
    retrain(pair, "plain: 1.0", "plain: 0.5")
    retrain(pair, "bonus: 0.0", "bonus: 5.0")
    assert not any(item.promoted for item in judge(pair.root, "tiny"))
    measured = json.loads((pair.root / "data/.work/judge/metrics/evaluate_tiny.json").read_text())
    assert {name: entry["score"] for name, entry in measured.items()} == {"plain": 6.0, "fancy": 7.0, "refined": 11.0}
    lost = registry.read(pair.root).models["refined"].versions[-1]
    assert lost.score is not None
    assert lost.score.value == 10.5, "its own score stays: it is of a generator that lost"


@pytest.mark.usefixtures("quick_dvc")
def test_what_was_trained_on_the_loser_stays_out_where_the_champion_is_measured(pair: Project) -> None:
    judge(pair.root, "tiny")
    content = json.loads((pair.root / registry.REGISTRY).read_text())
    content["refined"]["champion"] = None
    (pair.root / registry.REGISTRY).write_text(json.dumps(content))
    retrain(pair, "plain: 1.0", "plain: 0.5")
    folder = pair.root / champions_in_place(pair.dag, read_lock(pair.root))
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink()} == {
        "tiny/plain",
        "tiny/fancy",
    }
    assert json.loads((folder / "tiny/plain/config.json").read_text())["quality"] == 1.0


@pytest.mark.usefixtures("quick_dvc")
def test_reasons_to_train(tiny: Project) -> None:
    assert reasons(tiny) == [], "nothing is registered yet"
    judge(tiny.root, "tiny")
    assert reasons(tiny) == []
    for number in range(10, 13):
        (tiny.root / "photos" / f"{number:016x}").write_text("0.0")
    tiny.repro("shards_tiny")
    assert reasons(tiny) == ["75.0 % more samples than the last training saw (4 → 7)"]
    for number in range(20, 28):
        (tiny.root / "photos" / f"{number:016x}").write_text("120.0")
    tiny.repro("shards_tiny")
    assert "the views drifted by 0.533, more than 0.4" in reasons(tiny)
    tiny.repro()
    judge(tiny.root, "tiny")
    assert reasons(tiny) == [], "it has been trained on them"
    (tiny.root / "data/raw/mine").mkdir(parents=True)
    crawled = {"id": [f"{3:016x}"], "url": ["https://example.org/3.jpg"]}
    pq.write_table(pa.table(crawled), tiny.root / "data/raw/mine/crawl.parquet")
    for row in (f"id\n{3:016x}\n", "url\nhttps://example.org/3.jpg\n"):
        (tiny.root / "data/takedown.csv").write_text(row)
        assert reasons(tiny) == [
            "tiny/plain: 1 of the samples it was trained on were taken down",
            "tiny/fancy: 1 of the samples it was trained on were taken down",
        ]


@pytest.mark.usefixtures("quick_dvc")
def test_a_champion_of_what_was_taken_down_has_to_go(tiny: Project) -> None:
    judge(tiny.root, "tiny")
    (tiny.root / "data/takedown.csv").write_text(f"id\n{3:016x}\n")
    (tiny.root / "photos" / f"{3:016x}").unlink()
    retrain(tiny, "plain: 1.0", "plain: 0.5")
    found = {item.model: item for item in judge(tiny.root, "tiny")}
    assert found["tiny/plain"].promoted, "worse, but clean"
    assert "has to go" in found["tiny/plain"].why
    assert reasons(tiny) == []


@pytest.mark.usefixtures("quick_dvc")
def test_the_sensor_asks_once_for_each_reason(tiny: Project) -> None:
    judge(tiny.root, "tiny")
    sensor = {sensor.name: sensor for sensor in tiny.repository().sensor_defs}["retraining_policy"]
    cursor: str | None = None

    def look() -> list[tuple[str | None, str]]:
        nonlocal cursor
        with dg.build_sensor_context(
            instance=tiny.instance, cursor=cursor, repository_def=tiny.repository()
        ) as context:
            tick = sensor.evaluate_tick(context)
            cursor = tick.cursor or cursor
            return [(request.job_name, request.tags["lineament/why"]) for request in tick.run_requests or []]

    assert look() == []
    for number in range(10, 12):
        (tiny.root / "photos" / f"{number:016x}").write_text("0.0")
    tiny.repro("shards_tiny")
    assert look() == [("retrain_tiny", "50.0 % more samples than the last training saw (4 → 6)")]
    assert look() == []


@pytest.mark.usefixtures("quick_dvc")
def test_the_job_trains_evaluates_and_promotes(tiny: Project) -> None:
    judge(tiny.root, "tiny")
    tiny.edit("params.yaml", "fancy: 2.0", "fancy: 4.0")
    assert tiny.run_job("retrain_tiny").success
    assert champions(tiny) == {"tiny/plain": 1, "tiny/fancy": 2}
    with contextlib.chdir(tiny.root):
        assert "4.0" in (tiny.root / "data/champions/tiny/fancy/config.json").read_text()


@pytest.mark.usefixtures("quick_dvc")
def test_fine_tuning_starts_from_the_last_version(tiny: Project) -> None:
    tiny.edit("params.yaml", "gain: 50", "start: last")
    assert starts(tiny.dag, "tiny") == {}, "there is none yet"
    judge(tiny.root, "tiny")
    assert starts(tiny.dag, "tiny") == {"tiny/plain": 1, "tiny/fancy": 1}
    for name in ("tiny/plain", "tiny/fancy"):
        set_value(f"train_tiny.trainer.start.{name}", 1, tiny.root / "params.yaml")
    assert starts(tiny.dag, "tiny") == {}, "params.yaml says so already"
    tiny.edit("params.yaml", "start: last", "start: scratch")
    assert starts(tiny.dag, "tiny") == {"tiny/plain": None, "tiny/fancy": None}
    set_value("train_tiny.trainer.start.tiny/plain", None, tiny.root / "params.yaml")
    assert starts(tiny.dag, "tiny") == {"tiny/fancy": None}


@pytest.mark.usefixtures("quick_dvc")
def test_the_crontab_of_a_policy(tiny: Project) -> None:
    tiny.edit("params.yaml", "gain: 50", 'cron: "0 2 * * 0"')
    schedules = {schedule.name: schedule for schedule in tiny.repository().schedule_defs}
    assert schedules["retrain_tiny_schedule"].cron_schedule == "0 2 * * 0"
    assert schedules["retrain_tiny_schedule"].job.name == "retrain_tiny"


@pytest.mark.usefixtures("quick_dvc")
def test_materialising_shards_says_what_changed(tiny: Project) -> None:
    tiny.materialize("shards_tiny")
    (tiny.root / "photos" / f"{99:016x}").write_text("0.0")
    result = tiny.materialize("shards_tiny")
    metadata = result.asset_materializations_for_node("shards_tiny")[0].metadata
    assert metadata["changes.new"].value == 1
    assert str(metadata["changes"].value).startswith("5 samples (+25.0 %): 1 new, 0 gone")
