"""The Definitions that workspace.yaml loads: assets, checks, jobs, schedules and sensors of the project's dvc.yaml."""

from pathlib import Path

import dagster as dg

from assets import experiments
from assets.automation import (
    folder_sensors,
    import_sensors,
    refresh_schedules,
    retraining_schedules,
    retraining_sensors,
)
from assets.checks import dvc_check
from assets.jobs import EXECUTOR, Steps, standing_jobs
from assets.lineage import stage_assets
from assets.project import project_root
from assets.state import sync_with_dvc
from ops.dag import Dag


def definitions(root: Path) -> dg.Definitions:
    """All that Dagster knows of a project.

    Raises:
        LineamentError: dvc.yaml or params.yaml is wrong; the message says where.
    """
    dag = Dag.load(root)
    jobs = standing_jobs(Steps(dag))
    source_sensors = [*folder_sensors(root, jobs), *import_sensors(root, jobs)]
    return dg.Definitions(
        assets=[*stage_assets(dag), experiments.EXPERIMENTS],
        asset_checks=[dvc_check(dag)],
        jobs=[*jobs.values(), *experiments.JOBS],
        schedules=[*refresh_schedules(root, jobs), *retraining_schedules(root, jobs)],
        sensors=[sync_with_dvc, *experiments.SENSORS, *source_sensors, *retraining_sensors(root, jobs)],
        executor=EXECUTOR,
    )


defs = definitions(project_root())
