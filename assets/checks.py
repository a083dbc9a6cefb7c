"""Quality gates as asset checks: those of ops/checks.py on each result, and one that asks DVC."""

import warnings
from collections.abc import Iterable, Iterator

import dagster as dg

from assets.project import project_root
from assets.state import UP_TO_DATE, agreement
from ops.checks import gates_of, load_thresholds, run_gate
from ops.dag import Dag, StageSpec, Unit
from ops.versioning import dvc_status


def check_specs(spec: StageSpec) -> list[dg.AssetCheckSpec]:
    """The gates of a stage, of each of its partitions."""
    partitions = None if spec.keys is None else dg.StaticPartitionsDefinition(spec.keys)
    with warnings.catch_warnings():
        # Checks of single partitions are marked as a preview; without them one source's result would hide another's.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                gate.name,
                asset=spec.name,
                description=gate.description,
                blocking=gate.blocking,
                partitions_def=partitions,
            )
            for gate in gates_of(spec.template)
        ]


def evaluate(dag: Dag, unit: Unit, wanted: Iterable[str] | None = None) -> Iterator[dg.AssetCheckResult]:
    """Run the gates of a unit's present result.

    Args:
        wanted: names of the gates to run; all if not given.
    """
    thresholds = load_thresholds(dag.root)
    for gate in gates_of(unit):
        if wanted is None or gate.name in wanted:
            verdict = run_gate(gate, dag, unit, thresholds)
            yield dg.AssetCheckResult(
                asset_key=unit.stage,
                check_name=gate.name,
                passed=verdict.passed,
                description=verdict.message,
                metadata=verdict.numbers,
            )


def dvc_check(dag: Dag) -> dg.AssetChecksDefinition:
    """The check, of every asset, that `dvc status` has nothing to say. The UI's own idea of what is stale comes from
    code that was read when the code location was loaded; this one looks at the files."""
    specs = [
        dg.AssetCheckSpec(
            UP_TO_DATE,
            asset=stage,
            description="`dvc status` finds nothing to run: no edit of code, parameters or data that has not been run.",
        )
        for stage in dag.stages
    ]

    @dg.multi_asset_check(name=UP_TO_DATE, specs=specs, can_subset=True)
    def ask_dvc(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        present = Dag.load(project_root())
        status = dvc_status(present.root)
        for key in context.selected_asset_check_keys:
            said = agreement(present.stages[key.asset_key.to_user_string()], status)
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=UP_TO_DATE,
                passed=said.passed,
                severity=said.severity,
                description=said.description,
                metadata=said.metadata,
            )

    return ask_dvc
