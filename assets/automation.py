"""What starts runs by itself: a schedule a source, and a sensor for sources that are folders."""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from assets.jobs import source_job, step_name
from assets.project import project_root
from ops.dag import PARAMS_FILE, load_yaml

QUIET = 30.0  # seconds without a change before new files count, so that a copy under way is not taken half-done


def declared_sources(root: Path) -> dict[str, Mapping[str, Any]]:
    """The sources of params.yaml by name."""
    file = root / PARAMS_FILE
    sources = load_yaml(file).get("sources") if file.is_file() else None
    return {name: entry for name, entry in (sources or {}).items() if isinstance(entry, Mapping)}


def refresh_schedules(root: Path, jobs: Mapping[str, dg.JobDefinition]) -> list[dg.ScheduleDefinition]:
    """A schedule for each source that has a cron line (``sources.NAME.refresh``); on from the start."""
    return [
        dg.ScheduleDefinition(
            name=f"{source_job(name)}_schedule",
            job=jobs[source_job(name)],
            cron_schedule=entry["refresh"],
            description=f"Looks for new pictures in '{name}', and brings what follows up to date.",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
        for name, entry in declared_sources(root).items()
        if entry.get("refresh") and source_job(name) in jobs
    ]


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
