"""The two steps about a training on demand: where it starts from, and whether its result becomes the champion."""

import dagster as dg

from assets.project import project_root
from ops import policy, registry, settings
from ops.dag import PARAMS_FILE, Dag, load_yaml
from ops.judge import judge as judge_system
from ops.runtime.errors import LineamentError

AFTER = "after"


def retraining_steps(system: str) -> tuple[dg.OpDefinition, dg.OpDefinition]:
    """The first and the last step of ``retrain_SYSTEM``."""

    @dg.op(
        name=f"start_{system}",
        description="Write to params.yaml from which registered version the training starts, as the policy says.",
        out=dg.Out(dg.Nothing),
    )
    def choose_start(context: dg.OpExecutionContext) -> None:
        root = project_root()
        for name, number in starts(Dag.load(root), system).items():
            settings.set_value(f"train_{system}.trainer.start.{name}", number, root / PARAMS_FILE)
            context.log.info(f"{name} starts from {'scratch' if number is None else f'version {number}'}")

    @dg.op(
        name=f"judge_{system}",
        description="Register what was trained; promote what beats its champion beyond the noise.",
        ins={AFTER: dg.In(dg.Nothing)},
        out=dg.Out(dg.Nothing),
    )
    def judge(context: dg.OpExecutionContext) -> None:
        try:
            found = judge_system(project_root(), system)
        except LineamentError as error:
            raise dg.Failure(f"{system} could not be judged: {error}", allow_retries=False) from None
        for item in found:
            verdict = "promoted" if item.promoted else "not promoted"
            context.log.info(f"{item.model} version {item.version.number}: {verdict}, {item.why}")
        rows = [
            dg.TableRecord(
                {"model": i.model, "version": i.version.number, "promoted": i.promoted, "why": i.why,
                 "score": i.version.score.value if i.version.score else float("nan")}
            )
            for i in found
        ]  # fmt: skip
        columns = [dg.TableColumn(n, t) for n, t in COLUMNS.items()]
        verdicts = dg.MetadataValue.table(rows, schema=dg.TableSchema(columns))
        measured = policy.load_policies(project_root())[system].evaluation or f"evaluate_{system}"
        context.log_event(dg.AssetObservation(measured, metadata={"judgement": verdicts}))

    return choose_start, judge


COLUMNS = {"model": "string", "version": "int", "promoted": "bool", "why": "string", "score": "float"}


def starts(dag: Dag, system: str) -> dict[str, int | None]:
    """By model, the version that its training starts from; None for from scratch. Only what is to be changed."""
    declared = policy.load_policies(dag.root)[system]
    trainer = (load_yaml(dag.root / PARAMS_FILE).get(f"train_{system}") or {}).get("trainer") or {}
    present = trainer.get("start") or {}
    models = registry.read(dag.root).models
    found: dict[str, int | None] = {}
    for unit in registry.trainings(dag, system):
        name = registry.model_name(unit)
        last = models[name].versions[-1].number if name in models and declared.start == "last" else None
        if present.get(name) != last:
            found[name] = last
    return found
