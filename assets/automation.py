"""What starts runs by itself: schedules and folder sensors of the sources, and the retraining policy."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from assets.jobs import source_job, step_name
from assets.project import project_root
from ops.dag import PARAMS_FILE, Dag, load_yaml
from ops.ledger import digest
from ops.policy import load_policies, reasons_to_train
from ops.runtime.errors import LineamentError
from ops.versioning import dvc

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
QUIET = 30.0  # seconds without a change before new files count, so that a copy under way is not taken half-done


def declared_sources(root: Path) -> dict[str, Mapping[str, Any]]:
    """The sources of params.yaml by name."""
    file = root / PARAMS_FILE
    sources = load_yaml(file).get("sources") if file.is_file() else None
    return {name: entry for name, entry in (sources or {}).items() if isinstance(entry, Mapping)}


def refresh_schedules(root: Path, jobs: Mapping[str, dg.JobDefinition]) -> list[dg.ScheduleDefinition]:
    """A schedule for each source that has a cron line (``sources.NAME.refresh``); on from the start."""
    return [
        _schedule(
            f"{source_job(name)}_schedule",
            jobs[source_job(name)],
            entry["refresh"],
            f"Looks for new pictures in '{name}', and brings what follows up to date.",
        )
        for name, entry in declared_sources(root).items()
        if entry.get("refresh") and source_job(name) in jobs
    ]


def retraining_schedules(root: Path, jobs: Mapping[str, dg.JobDefinition]) -> list[dg.ScheduleDefinition]:
    """A schedule for each system whose policy has a cron line; on from the start."""
    return [
        _schedule(
            f"retrain_{system}_schedule",
            jobs[f"retrain_{system}"],
            policy.cron,
            f"Trains {system} again, as policy.{system}.cron in params.yaml says.",
        )
        for system, policy in load_policies(root).items()
        if policy.cron and f"retrain_{system}" in jobs
    ]


def _schedule(name: str, job: dg.JobDefinition, cron: str, description: str) -> dg.ScheduleDefinition:
    """Runs of a job by the clock, one at a time: where a run takes longer than the clock, the next turn is left out."""

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=cron,
        description=description,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def ask(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        waiting = dg.RunsFilter(job_name=job.name, statuses=UNDER_WAY)
        runs = context.instance.get_runs(waiting, limit=1)
        return dg.SkipReason(f"run {runs[0].run_id[:8]} of {job.name} is still under way") if runs else dg.RunRequest()

    return ask


def retraining_sensors(root: Path, jobs: Mapping[str, dg.JobDefinition]) -> list[dg.SensorDefinition]:
    """The sensor that asks for a training when the policy says so; none where params.yaml has no policy."""
    wanted = {system: jobs[f"retrain_{system}"] for system in load_policies(root) if f"retrain_{system}" in jobs}
    return [_retraining_sensor(wanted)] if wanted else []


def _retraining_sensor(jobs: Mapping[str, dg.JobDefinition]) -> dg.SensorDefinition:
    @dg.sensor(
        name="retraining_policy",
        jobs=list(jobs.values()),
        minimum_interval_seconds=60,
        description="Asks for a training when its data grew or drifted, or a takedown touches its champion, as the "
        "section policy of params.yaml says. A reason counts once.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        root = project_root()
        asked: dict[str, str] = json.loads(context.cursor or "{}")
        requests, said = [], []
        try:
            dag = Dag.load(root)
            for system, policy in load_policies(root).items():
                if system not in jobs:
                    continue
                reasons = reasons_to_train(root, dag, system, policy)
                state = digest(reasons)
                if reasons and asked.get(system) != state:
                    tags = {"lineament/why": "; ".join(reasons)[:250]}
                    requests.append(dg.RunRequest(f"{system}-{state}", job_name=jobs[system].name, tags=tags))
                    said.append(f"{system}: {'; '.join(reasons)}")
                asked[system] = state
        except LineamentError as error:
            return dg.SkipReason(f"trying again: {error}")
        for line in said:  # and nothing else: Dagster keeps a file of each look that logs
            context.log.info(line)
        quiet = None if requests else "no reason to train that has not been answered"
        return dg.SensorResult(requests, cursor=json.dumps(asked), skip_reason=quiet)

    return look


def folder_sensors(root: Path, jobs: Mapping[str, dg.JobDefinition]) -> list[dg.SensorDefinition]:
    """A sensor for each source of kind folder: new, changed or removed files start its refresh."""
    return [
        _folder_sensor(name, jobs[source_job(name)])
        for name, entry in declared_sources(root).items()
        if entry.get("kind") == "folder" and source_job(name) in jobs
    ]


def _folder_sensor(name: str, job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"new_files_in_{step_name(name)}",
        job=job,
        minimum_interval_seconds=30,
        description=f"Starts a refresh when files in the folder of the source '{name}' have come, changed or gone.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        entry = declared_sources(project_root()).get(name)
        if entry is None:
            return dg.SkipReason(f"params.yaml no longer declares the source '{name}'")
        folder = project_root() / entry["path"]
        if not folder.is_dir():
            return dg.SkipReason(f"there is no folder {folder}")
        state, age = folder_state(folder)
        if context.cursor is None:
            return dg.SensorResult(cursor=state, skip_reason="first look; new files from now on count")
        if state == context.cursor:
            return dg.SkipReason("no file has changed")
        if age < QUIET:
            return dg.SkipReason("files are still coming")
        return dg.SensorResult([dg.RunRequest(run_key=f"{name}-{state}")], cursor=state)

    return look


def imports(root: Path) -> list[str]:
    """The pointers of `dvc import-url`: .dvc files that name where their data come from."""
    skipped = {".venv", ".dvc", ".git", "champions", "starts"}
    files = [path for path in root.rglob("*.dvc") if path.is_file() and not skipped.intersection(path.parts)]
    return sorted(path.relative_to(root).as_posix() for path in files if (load_yaml(path).get("deps")))


def import_sensors(root: Path, jobs: Mapping[str, dg.JobDefinition]) -> list[dg.SensorDefinition]:
    """The sensor that asks imported addresses whether they changed; none where nothing is imported."""
    return [_import_sensor(jobs["demo"])] if imports(root) else []


def _import_sensor(job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name="imported_sources",
        job=job,
        minimum_interval_seconds=600,
        description="Asks where data were imported from (dvc import-url) whether they changed, which `dvc status` does "
        "not; takes the new ones and runs what follows from them.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        root = project_root()
        before = {file: (root / file).read_text() for file in imports(root)}
        try:
            for file in before:
                dvc(root, "update", file, patience=0)
        except LineamentError as error:
            return dg.SkipReason(f"trying again: {error}")
        changed = [file for file, text in before.items() if (root / file).read_text() != text]
        if not changed:
            return dg.SkipReason("nothing that was imported has changed")
        context.log.info(f"changed: {', '.join(changed)}")
        return dg.SensorResult([dg.RunRequest(run_key=digest([(root / file).read_text() for file in changed]))])

    return look


def folder_state(folder: Path) -> tuple[str, float]:
    """A hash of the names, sizes and times of all files below a folder, and the seconds since the last change."""
    hasher, newest = hashlib.sha256(), 0.0
    for entry in sorted(_files(folder), key=lambda file: file.path):
        stat = entry.stat()
        hasher.update(f"{entry.path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape"))
        newest = max(newest, stat.st_mtime, stat.st_ctime)
    return hasher.hexdigest()[:16], time.time() - newest


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file():
                yield entry
