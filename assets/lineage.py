"""dvc.yaml as Dagster assets: a stage is an asset, its foreach or matrix are static partitions, its desc, meta,
dependencies and code are the asset's description, group, kinds, owners, pool, edges and code version."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.checks import check_specs, evaluate
from assets.execution import result_of, run_unit
from assets.project import project_root
from assets.state import DATA_VERSION
from ops.dag import Dag, StageSpec, Unit, unit_name
from ops.ledger import Workspace

REPORT = "data/report"
GROUP_PAGES = {"raw": "data", "labels": "labels", "shards": "data"}  # all that is not of one system
PAGES = {word: word for word in ("giraffe", "heads", "portrait", "avatar", "labels", "protocols")}
PAGES |= {"latent": "avatar", "image": "avatar", "recurrent": "avatar"}
FORCE = dg.Field(bool, default_value=False, description="Run the command even if DVC finds nothing changed.")


def partitions_of(spec: StageSpec) -> dg.StaticPartitionsDefinition | None:
    """A stage's foreach or matrix keys as partitions."""
    return None if spec.keys is None else dg.StaticPartitionsDefinition(spec.keys)


def dependency(dag: Dag, child: StageSpec, parent: StageSpec) -> dg.AssetDep:
    """The edge between two stages, with the partitions that feed each other as the paths say."""
    if parent.keys is None:
        return dg.AssetDep(parent.name)
    feeds: dict[str, set[str | None]] = {key: set() for key in parent.keys}
    for key, unit in child.units.items():
        for name in dag.parents(unit.name):
            if dag.units[name].stage == parent.name:
                feeds[str(dag.units[name].key)].add(key)
    return dg.AssetDep(parent.name, partition_mapping=_mapping(feeds, set(child.units)))


def _mapping(feeds: dict[str, set[str | None]], children: set[str | None]) -> dg.PartitionMapping:
    used = [key for key, fed in feeds.items() if fed]
    if children == {None}:
        return dg.AllPartitionMapping() if len(used) == len(feeds) else dg.SpecificPartitionsPartitionMapping(used)
    if all(fed == {key} for key, fed in feeds.items()) and children == set(feeds):
        return dg.IdentityPartitionMapping()
    if all(fed == children for fed in feeds.values()):
        return dg.AllPartitionMapping()
    return dg.StaticPartitionMapping({key: {str(child) for child in fed} for key, fed in feeds.items()})


def report_page(spec: StageSpec) -> str:
    """The page of the report that shows what a stage made; the entry where no page is its own."""
    words = (PAGES[word] for word in spec.name.split("_") if word in PAGES)
    return f"{REPORT}/{GROUP_PAGES.get(spec.meta.group) or next(words, 'index')}.html"


def asset_spec(dag: Dag, spec: StageSpec, workspace: Workspace) -> dg.AssetSpec:
    """What an asset says of a stage."""
    metadata: dict[str, Any] = {
        "command": dg.MetadataValue.md(f"```\n{spec.template.command}\n```"),
        "reads": dg.MetadataValue.text(", ".join(spec.template.deps)),
        "makes": dg.MetadataValue.text(", ".join(spec.template.outs)),
        "parameters": dg.MetadataValue.text(", ".join(name or file for file, name in spec.template.params)),
    }
    metadata["report"] = dg.MetadataValue.path(str(dag.root / report_page(spec)))
    return dg.AssetSpec(
        spec.name,
        deps=[dependency(dag, spec, dag.stages[parent]) for parent in dag.stage_parents(spec.name)],
        description=spec.description,
        group_name=spec.meta.group,
        kinds={*spec.meta.kinds, "dvc"},
        owners=spec.meta.owners,
        partitions_def=partitions_of(spec),
        code_version=workspace.shared_code(dag, spec),
        metadata=metadata,
    )


def present_unit(stage: str, key: str | None) -> tuple[Dag, Unit]:
    """A unit as dvc.yaml has it now; the graph in the UI may be older.

    Raises:
        dagster.Failure: dvc.yaml no longer has it.
    """
    dag = Dag.load(project_root())
    name = unit_name(stage, key)
    if name not in dag.units:
        raise dg.Failure(f"dvc.yaml has no {name} any more. Reload the code location: Deployment, Reload.")
    return dag, dag.units[name]


def stage_asset(dag: Dag, spec: StageSpec, workspace: Workspace) -> dg.AssetsDefinition:
    """The asset of a stage. Its gates run in the same step; a blocking one that fails stops what is downstream."""

    @dg.multi_asset(
        name=spec.name,
        specs=[asset_spec(dag, spec, workspace)],
        check_specs=check_specs(spec),
        can_subset=True,
        pool=spec.meta.pool,
        config_schema={"force": FORCE},
    )
    def run_stage(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        present, unit = present_unit(spec.name, context.partition_key if context.has_partition_key else None)
        wanted = {key.name for key in context.selected_asset_check_keys}
        if context.selected_asset_keys:
            outcome = run_unit(context, present.root, unit, context.op_execution_context.op_config["force"])
            metadata, tags = result_of(context, present.root, unit, outcome)
            version = dg.DataVersion(tags.pop(DATA_VERSION))
            yield dg.MaterializeResult(spec.name, metadata=metadata, tags=tags, data_version=version)
        yield from evaluate(present, unit, wanted)

    return run_stage


def stage_assets(dag: Dag) -> list[dg.AssetsDefinition]:
    """All stages as assets."""
    workspace = Workspace(dag.root)
    return [stage_asset(dag, spec, workspace) for spec in dag.stages.values()]
