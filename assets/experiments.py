"""Experiments of DVC as runs of Dagster: the job ``sweep`` asks for a run of the job ``experiment`` a combination.

    dagster job launch -j sweep --config '{"ops": {"combinations": {"config": {"set": ["screen.min_side=256,512"]}}}}'

Each is `dvc exp run --temp`, in a copy of the project, so the workspace stays as it is; the result is an ordinary
experiment: `dvc exp show`, `dvc exp apply NAME`. What was put into DVC's own queue (`dvc exp run --queue`) gets a run
that follows it as soon as a worker takes it; what was run by hand is reported by a sensor.
"""

import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from assets.execution import LAST_LINES, stream_patiently
from assets.metadata import numbers
from assets.project import project_root
from ops.ledger import digest
from ops.runtime.errors import LineamentError
from ops.versioning import DVC, dvc, environment

ASSET = "experiments"
SWEEP, POINT, OVERRIDES, NAME = (f"lineament/{word}" for word in ("sweep", "point", "overrides", "experiment_name"))
REVISION = "lineament/experiment"
QUEUED = "Queued"
DONE = {"Success", "Failed"}
TASK = re.compile(r"^(?P<task>[0-9a-f]{7})\s+(?P<name>\S+)?\s.*\s(?P<state>Queued|Running|Success|Failed)\s*$", re.M)
POLL = 5.0  # seconds between two looks at DVC's queue
LONGEST_TAG = 250


def combinations(words: list[str]) -> list[list[str]]:
    """`a=1,2` and `b=3` as [[a=1, b=3], [a=2, b=3]]; a comma within brackets parts nothing.

    Raises:
        LineamentError: a word has no `=`.
    """
    for word in words:
        if "=" not in word:
            raise LineamentError(f"'{word}': write NAME=VALUE or NAME=VALUE,VALUE, e.g. screen.min_side=256,512.")
    choices = []
    for word in words:
        name, _, values = word.partition("=")
        choices.append([f"{name}={value}" for value in re.split(r",(?![^\[{]*[\]}])", values)])
    return [list(combination) for combination in itertools.product(*choices)]


EXPERIMENT = {
    "set": dg.Field([str], description="NAME=VALUE of each parameter that differs."),
    "targets": dg.Field([str], default_value=[], description="Stages to run up to; all if none is named."),
}


@dg.op(
    name="combinations",
    out=dg.Out(dg.Nothing),
    config_schema=EXPERIMENT,
    description="Each combination of the values in `set`; a run of `experiment` is asked for each.",
)
def expand(context: dg.OpExecutionContext) -> None:
    try:
        points = combinations(context.op_config["set"])
    except LineamentError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    context.instance.add_run_tags(context.run_id, {SWEEP: context.run_id[:8]})
    for words in points:
        context.log.info(f"experiment: {' '.join(words)}")


@dg.job(name="sweep", executor_def=dg.in_process_executor, description="Try combinations of parameters as experiments.")
def sweep() -> None:
    expand()


@dg.op(
    name="run_experiment",
    out=dg.Out(dg.Nothing),
    config_schema=EXPERIMENT,
    pool=ASSET,
    description="dvc exp run --temp -S …",
)
def run_experiment(context: dg.OpExecutionContext) -> None:
    root, wanted = project_root(), context.op_config
    tags = context.run.tags
    name = f"sweep-{tags[SWEEP]}-{tags[POINT].split('/')[0]}" if SWEEP in tags else "run"
    name = f"{name}-{context.run_id[:8]}"  # a run that is started again after a crash is another experiment
    settings = [word for value in wanted["set"] for word in ("-S", value)]
    words = [*DVC, "exp", "run", "--temp", "--name", name, *settings, *wanted["targets"]]
    context.instance.add_run_tags(context.run_id, {OVERRIDES: " ".join(wanted["set"])[:LONGEST_TAG], NAME: name})
    code, lines = stream_patiently(context, root, name, words, environment())
    if code:
        last = "\n".join(lines[-LAST_LINES:])
        raise dg.Failure(f"the experiment {' '.join(wanted['set'])} failed with exit code {code}:\n{last}")
    report(context, name)


@dg.job(name="experiment", executor_def=dg.in_process_executor, description="One experiment: dvc exp run --temp -S …")
def experiment() -> None:
    run_experiment()


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[sweep],
    request_job=experiment,
    name="points_of_sweeps",
    minimum_interval_seconds=5,
    description="Asks for a run of `experiment` for each combination of a sweep.",
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def points(context: dg.RunStatusSensorContext) -> Iterator[dg.RunRequest]:
    run = context.dagster_run
    wanted: Any = run.run_config
    wanted = wanted["ops"]["combinations"]["config"]
    found = combinations(wanted["set"])
    for number, words in enumerate(found, 1):
        config = {"set": words, "targets": list(wanted.get("targets", []))}
        tags = {
            SWEEP: run.run_id[:8],
            POINT: f"{number}/{len(found)}",
            OVERRIDES: " ".join(words)[:LONGEST_TAG],
        }
        yield dg.RunRequest(
            f"{run.run_id}-{number}", {"ops": {"run_experiment": {"config": config}}}, tags, job_name="experiment"
        )


def queue(root: Path) -> list[dict[str, str]]:
    """The tasks of DVC's queue: task, name (may be missing), state."""
    return [match.groupdict(default="") for match in TASK.finditer(dvc(root, "queue", "status"))]


@dg.op(
    name="follow",
    out=dg.Out(dg.Nothing),
    config_schema={"task": str, "name": str},
    description="Follow an experiment of DVC's queue to its end; cancelling ends it.",
)
def follow(context: dg.OpExecutionContext) -> None:
    root, task, name = project_root(), context.op_config["task"], context.op_config["name"]
    try:
        while (state := state_of(root, task)) not in DONE:
            time.sleep(POLL)
    except BaseException:  # the run is cancelled
        dvc(root, "queue", "kill", name or task)
        raise
    said = dvc(root, "queue", "logs", name or task)
    print(said)
    if state == "Failed":
        last = "\n".join(said.splitlines()[-LAST_LINES:])
        raise dg.Failure(f"the experiment {name} failed:\n{last}", allow_retries=False)
    report(context, name)


def state_of(root: Path, task: str) -> str:
    """Of a task of the queue; LineamentError if it is gone from it."""
    for entry in queue(root):
        if entry["task"] == task:
            return entry["state"]
    raise LineamentError(f"task {task} is not in DVC's queue any more (dvc queue status).")


@dg.job(name="queued_experiment", executor_def=dg.in_process_executor, description="An experiment of DVC's queue.")
def queued_experiment() -> None:
    follow()


@dg.sensor(
    name="dvc_queue",
    job=queued_experiment,
    minimum_interval_seconds=15,
    description="A run for each experiment that a worker of DVC's queue (`dvc queue start`) has taken.",
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def watch_queue(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    root = project_root()
    if not (root / ".dvc/tmp/exps/celery").is_dir():
        return dg.SkipReason("nothing has been queued")  # which spares asking DVC
    try:
        taken = [entry for entry in queue(root) if entry["state"] != QUEUED]
    except LineamentError as error:
        return dg.SkipReason(f"trying again: {error}")
    seen = set(json.loads(context.cursor or "[]"))
    requests = [
        dg.RunRequest(
            f"queue-{entry['task']}",
            {"ops": {"follow": {"config": {"task": entry["task"], "name": entry["name"]}}}},
            {SWEEP: "dvc-queue", NAME: entry["name"] or entry["task"]},
        )
        for entry in taken
        if entry["task"] not in seen
    ]
    cursor = json.dumps(sorted(entry["task"] for entry in taken))
    return dg.SensorResult(requests, cursor=cursor, skip_reason=None if requests else "no new experiment was taken")


def report(context: dg.OpExecutionContext, name: str) -> None:
    """Record a finished experiment as an event of the asset ``experiments``, unless that was done already."""
    for entry in listed():
        if entry["name"] == name and entry["rev"] not in reported(context.instance):
            context.log_event(event(entry))


def listed() -> list[dict[str, Any]]:
    """All experiments: revision, name, parameters and metrics."""
    found = []
    for commit in json.loads(dvc(project_root(), "exp", "show", "--json") or "[]"):
        for experiment in commit.get("experiments") or []:
            state = (experiment.get("revs") or [{}])[0]
            data = state.get("data") or {}
            if data:
                found.append({"rev": state["rev"], "name": experiment.get("name") or state["rev"][:7], "data": data})
    return found


def event(entry: dict[str, Any]) -> dg.AssetMaterialization:
    """An experiment as an event of the asset ``experiments``."""
    metadata: dict[str, Any] = {"experiment": dg.MetadataValue.text(entry["name"])}
    for file, content in (entry["data"].get("metrics") or {}).items():
        for name, value in numbers(content.get("data") or {}):
            metadata[f"{file}: {name}"] = dg.MetadataValue.float(float(value))
    tags = {REVISION: entry["rev"]}
    return dg.AssetMaterialization(ASSET, description=f"dvc exp apply {entry['name']}", metadata=metadata, tags=tags)


def reported(instance: dg.DagsterInstance) -> set[str]:
    """The revisions of the experiments in the event log."""
    records = instance.fetch_materializations(dg.AssetRecordsFilter(dg.AssetKey(ASSET)), limit=1000).records
    events = (record.asset_materialization for record in records)
    return {found.tags[REVISION] for found in events if found and found.tags and REVISION in found.tags}


@dg.sensor(
    name="experiments_by_hand",
    minimum_interval_seconds=60,
    description="Reports experiments that were run by hand, by `dvc exp run`.",
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def watch_experiments(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    words = ["git", "for-each-ref", "--format=%(objectname)", "refs/exps"]  # which spares asking DVC
    refs = subprocess.run(words, cwd=project_root(), capture_output=True, text=True, check=False).stdout
    state = digest(refs)
    if not refs or state == context.cursor:
        return dg.SkipReason("no new experiment")
    try:
        entries = listed()
    except LineamentError as error:
        return dg.SkipReason(f"trying again: {error}")
    told = reported(context.instance)
    fresh = [entry for entry in entries if entry["rev"] not in told]
    for entry in fresh:
        context.instance.report_runless_asset_event(event(entry))
    context.update_cursor(state)
    return dg.SkipReason(f"{len(fresh)} new experiments" if fresh else "no new experiment")


JOBS = (sweep, experiment, queued_experiment)
SENSORS = (points, watch_queue, watch_experiments)
EXPERIMENTS = dg.AssetSpec(
    ASSET,
    group_name="experiments",
    description="DVC experiments: one event each, with its metrics. `dvc exp show` lists them.",
    kinds={"dvc"},
)
