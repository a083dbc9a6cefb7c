"""Sweeps of DVC experiments as runs: the job ``sweep`` runs each combination of values as a step of its own.

    dagster job launch -j sweep --config '{"ops": {"combinations": {"config": {"set": ["screen.min_side=256,512"]}}}}'

Each step is `dvc exp run --temp`, in a copy of the project, so the workspace stays as it is; the result is an ordinary
experiment: `dvc exp show`, `dvc exp apply NAME`. Experiments run by hand are reported by the sensor as well.
"""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.metadata import numbers
from assets.project import project_root
from ops.runtime.errors import LineamentError
from ops.versioning import dvc

ASSET = "experiments"
NAME = re.compile(r"Ran experiment\(s\): (\S+)|^\s*(\S+-\S+)\s*$", re.MULTILINE)


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


@dg.op(
    name="combinations",
    out=dg.DynamicOut(),
    config_schema={"set": dg.Field([str]), "targets": dg.Field([str], default_value=[])},
    description="Each combination of the values in `set`.",
)
def expand(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[Any]]:
    for number, words in enumerate(combinations(context.op_config["set"])):
        label = re.sub(r"\W+", "_", "_".join(words))[:60]
        yield dg.DynamicOutput({"set": words, "targets": context.op_config["targets"]}, f"{number}_{label}")


@dg.op(name="experiment", out=dg.Out(dg.Nothing), description="dvc exp run --temp -S …")
def run_experiment(context: dg.OpExecutionContext, what: dict[str, Any]) -> None:
    root = project_root()
    before = {entry["rev"] for entry in listed()}
    settings = [word for value in what["set"] for word in ("-S", value)]
    try:
        context.log.info(dvc(root, "exp", "run", "--temp", *settings, *what["targets"], patience=24 * 3600.0))
    except LineamentError as error:
        raise dg.Failure(f"the experiment {' '.join(what['set'])} failed: {error}") from None
    for entry in listed():
        if entry["rev"] not in before:
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
    tags = {"lineament/experiment": entry["rev"]}
    return dg.AssetMaterialization(ASSET, description=f"dvc exp apply {entry['name']}", metadata=metadata, tags=tags)


@dg.job(name="sweep", executor_def=dg.in_process_executor, description="Try combinations of parameters as experiments.")
def sweep() -> None:
    expand().map(run_experiment)


@dg.sensor(
    name="experiments_by_hand",
    minimum_interval_seconds=60,
    description="Reports experiments that were run by hand, by `dvc exp run` or from DVC's queue.",
)
def watch_experiments(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    seen = set(json.loads(context.cursor or "[]"))
    try:
        entries = listed()
    except LineamentError as error:
        return dg.SkipReason(f"trying again: {error}")
    fresh = [entry for entry in entries if entry["rev"] not in seen]
    for entry in fresh:
        filters = dg.AssetRecordsFilter(dg.AssetKey(ASSET))
        records = context.instance.fetch_materializations(filters, limit=1000).records
        known = {
            (r.asset_materialization.tags or {}).get("lineament/experiment") for r in records if r.asset_materialization
        }
        if entry["rev"] not in known:
            context.instance.report_runless_asset_event(event(entry))
    context.update_cursor(json.dumps([entry["rev"] for entry in entries]))
    return dg.SkipReason(f"{len(fresh)} new experiments" if fresh else "no new experiment")


EXPERIMENTS = dg.AssetSpec(
    ASSET,
    group_name="experiments",
    description="DVC experiments: one event each, with its metrics. `dvc exp show` lists them.",
    kinds={"dvc"},
)
