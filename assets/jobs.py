"""Jobs over units of the graph: one step a unit, in the graph's order, each recorded as its asset's materialisation.

Dagster's own asset jobs take assets of one partitioning only, so a run from the crawl of every source to the training
of every variant would be many runs. These jobs are plain graphs of steps that do what the assets do, in one run.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import dagster as dg

from assets.checks import evaluate
from assets.execution import result_of, run_unit
from assets.lineage import FORCE, present_unit
from assets.retraining import AFTER, retraining_steps
from ops.dag import Dag, Unit
from ops.policy import load_policies

# A step waits for a command in a process of its own, so it needs none itself: 0.1 s a step instead of 2.
EXECUTOR = dg.in_process_executor


def step_name(unit: str) -> str:
    """The name of a unit's step."""
    return re.sub(r"\W", "__", unit)


class Steps:
    """The steps of a graph, one a unit, shared by all jobs."""

    def __init__(self, dag: Dag) -> None:
        self.dag = dag
        self._ops = {name: _op(unit, dag.stages[unit.stage].meta.pool) for name, unit in dag.units.items()}

    def job(
        self,
        name: str,
        units: Collection[str],
        description: str,
        forced: Collection[str] = (),
        forceable: Collection[str] | None = None,
        default_force: bool = False,
        first: dg.OpDefinition | None = None,
        last: dg.OpDefinition | None = None,
    ) -> dg.JobDefinition:
        """A job that brings units up to date.

        Args:
            forced: units that always run, changed or not.
            forceable: units that the job's switch ``force`` makes run as well; all of them if not given.
            default_force: where that switch stands.
            first, last: steps before and after all of them.
        """
        chosen = [unit for unit in self.dag.units if unit in set(units)]
        dependencies: dict[Any, Any] = {
            dg.NodeInvocation(self._ops[unit].name, alias=step_name(unit)): self._after(unit, chosen, first)
            for unit in chosen
        }
        if first is not None:
            dependencies[dg.NodeInvocation(first.name)] = {}
        if last is not None:
            before = [dg.DependencyDefinition(step_name(unit)) for unit in chosen]
            dependencies[dg.NodeInvocation(last.name)] = {AFTER: dg.MultiDependencyDefinition(before)}
        switched = set(chosen if forceable is None else forceable)

        def configure(values: Mapping[str, Any]) -> dict[str, Any]:
            force = {unit: unit in forced or (values["force"] and unit in switched) for unit in chosen}
            return {"ops": {step_name(unit): {"config": {"force": value}} for unit, value in force.items()}}

        switch = dg.Field(bool, default_value=default_force, description=f"Run anew: {', '.join(sorted(switched))}.")
        graph = dg.GraphDefinition(
            name=name,
            description=description,
            node_defs=[*(self._ops[unit] for unit in chosen), *(op for op in (first, last) if op is not None)],
            dependencies=dependencies,
        )
        config = dg.ConfigMapping(config_fn=configure, config_schema={"force": switch})
        return graph.to_job(executor_def=EXECUTOR, config=config)

    def _after(self, unit: str, chosen: Collection[str], first: dg.OpDefinition | None) -> dict[str, Any]:
        before = [dg.DependencyDefinition(step_name(parent)) for parent in self.dag.parents(unit) if parent in chosen]
        if first is not None and not before:
            before = [dg.DependencyDefinition(first.name)]
        return {AFTER: dg.MultiDependencyDefinition(before)} if before else {}


def _op(unit: Unit, pool: str | None) -> dg.OpDefinition:
    @dg.op(
        name=f"unit__{step_name(unit.name)}",  # its own name, as the stage's asset has a step too
        description=f"dvc repro --single-item {unit.name}",
        ins={AFTER: dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
        config_schema={"force": FORCE},
        pool=pool,
    )
    def run_step(context: dg.OpExecutionContext) -> None:
        dag, present = present_unit(unit.stage, unit.key)
        outcome = run_unit(context, dag.root, present, context.op_config["force"])
        metadata, tags = result_of(context, dag.root, present, outcome)
        context.log_event(dg.AssetMaterialization(unit.stage, partition=unit.key, metadata=metadata, tags=tags))
        _check(context, dag, present)

    return run_step


def _check(context: dg.OpExecutionContext, dag: Dag, unit: Unit) -> None:
    """Record the gates; a failed one ends what is downstream.

    Raises:
        dagster.Failure: a gate is not passed.
    """
    failed = []
    for result in evaluate(dag, unit):
        evaluation = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(unit.stage),
            check_name=str(result.check_name),
            passed=result.passed,
            metadata=result.metadata,
            severity=result.severity,
            description=result.description,
            blocking=True,
            partition=unit.key,
        )
        context.log_event(evaluation)  # type: ignore[arg-type]  # taken, though its signature does not say so
        if not result.passed:
            failed.append(f"{result.check_name}: {result.description}")
    if failed:
        raise dg.Failure(f"{unit.name} did not pass: " + "; ".join(failed), allow_retries=False)


def standing_jobs(steps: Steps) -> dict[str, dg.JobDefinition]:
    """The jobs that every project has: demo, refresh, refresh_SOURCE, retrain_SYSTEM, evaluate_all."""
    dag, policies = steps.dag, load_policies(steps.dag.root)
    jobs = [steps.job("demo", list(dag.units), "The whole lineage, all sources and variants.")]
    crawls = [unit.name for unit in dag.stages["crawl"].units.values()] if "crawl" in dag.stages else []
    if crawls:
        text = "Look for new pictures in every source, then bring all that follows up to date."
        jobs.append(steps.job("refresh", _needed(dag, crawls), text, forced=crawls))
    for name in crawls:
        source = dag.units[name].key
        text = f"Look for new pictures in the source '{source}', then bring all that follows up to date."
        jobs.append(steps.job(source_job(str(source)), _needed(dag, [name]), text, forced=[name]))
    for stage, spec in dag.stages.items():
        if stage.startswith("train_"):
            trainings = [unit.name for unit in spec.units.values()]
            system = stage.removeprefix("train_")
            text = f"Train {system} on the present shards, evaluate it, and promote what beats its champion."
            first, last = retraining_steps(system) if system in policies else (None, None)
            units = _needed(dag, trainings)
            jobs.append(steps.job(f"re{stage}", units, text, forceable=trainings, first=first, last=last))
    evaluations = _units(dag, lambda group: group == "evaluation")
    if evaluations:
        text = "Evaluate the checkpoints that are there, and write the report."
        jobs.append(steps.job("evaluate_all", evaluations, text))
    return {job.name: job for job in jobs}


def source_job(source: str) -> str:
    """The name of the job that refreshes a source."""
    return f"refresh_{step_name(source)}"


def _units(dag: Dag, wanted: Callable[[str], bool]) -> list[str]:
    return [name for name, unit in dag.units.items() if wanted(dag.stages[unit.stage].meta.group)]


def _needed(dag: Dag, names: Collection[str]) -> list[str]:
    """Units, what follows from them, and what that needs besides, which as a rule is up to date and costs little."""
    return dag.upstream(dag.downstream(names))
