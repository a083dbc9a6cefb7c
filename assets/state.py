"""What exists and what is stale, from dvc.lock: the only state. A sensor brings runs made by hand into the UI.

Dagster calls an asset stale by the tags of its newest event: its code version, the version of each input it consumed,
and a pointer to the input's event. All events of this project, those of Dagster's own runs and those that the sensor
reports of runs by hand, get these tags from one place (:meth:`Journal.tags`), which reads them off dvc.lock:

* data version: the hash of what the unit made.
* code version: the stage's present one if the unit ran with the present command, code and parameters, else a hash of
  what it ran with. What differs between the units of a stage is therefore seen a unit at a time.
* input version and pointer: those of the input's newest event if the unit consumed exactly that, by the md5 of its own
  ``deps``; else a version that nothing has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from assets.metadata import describe
from assets.project import project_root
from ops.dag import Dag, StageSpec
from ops.ledger import Record, Workspace, digest, locked_code, outdated_inputs, own_deps, read_lock, signature
from ops.runtime.errors import LineamentError
from ops.versioning import Status, changed_deps, dvc_status

DATA_VERSION = "dagster/data_version"
USER_PROVIDED = "dagster/data_version_is_user_provided"
CODE_VERSION = "dagster/code_version"
INPUT_VERSION = "dagster/input_data_version/"
INPUT_POINTER = "dagster/input_event_pointer/"
RECORD = "lineament/record"  # the digest of the dvc.lock entry that an event stands for
UP_TO_DATE = "up_to_date_by_dvc"  # the check that says what `dvc status` says
NO_POINTER = "NULL"
BEFORE_ALL = "-1"  # for a partitioned input, Dagster compares the versions before and after the pointer


@dataclass
class Event:
    """The newest event of a unit: its number in the log and its tags."""

    number: int
    tags: Mapping[str, str]


@dataclass
class Journal:
    """The project's state as dvc.lock has it, beside what Dagster's event log has of it.

    Attributes:
        changed: the dependencies that DVC calls changed, of units where dvc.lock alone cannot say (needs_dvc).
    """

    instance: dg.DagsterInstance
    dag: Dag
    lock: Mapping[str, Record]
    workspace: Workspace
    changed: Mapping[str, Iterable[str]] = field(default_factory=dict)
    _newest: dict[str, Event | None] = field(default_factory=dict)

    @classmethod
    def open(cls, instance: dg.DagsterInstance, root: Path, status: Status | None = None) -> Journal:
        """Read the project; ``status`` is what `dvc status` says, where it has been asked."""
        return cls(instance, Dag.load(root), read_lock(root), Workspace(root), changed_deps(status or {}))

    def newest(self, name: str) -> Event | None:
        """The newest event of a unit."""
        if name not in self._newest:
            unit = self.dag.units[name]
            where = dg.AssetRecordsFilter(
                asset_key=dg.AssetKey(unit.stage), asset_partitions=None if unit.key is None else [unit.key]
            )
            records = self.instance.fetch_materializations(where, limit=1).records
            event = records[0].asset_materialization if records else None
            self._newest[name] = Event(records[0].storage_id, event.tags or {}) if event else None
        return self._newest[name]

    def code_version(self, name: str) -> str:
        """The stage's present code version if the unit ran with it, else a hash of what it ran with."""
        unit = self.dag.units[name]
        ran = locked_code(self.dag, unit, self.lock[name])
        moved = set(self.changed.get(name, ())).intersection(own_deps(self.dag, unit))
        if ran == self.workspace.code(self.dag, unit) and not moved:
            return self.workspace.shared_code(self.dag, self.dag.stages[unit.stage])
        return f"was:{ran}"

    def inputs(self, name: str) -> dict[str, tuple[str, str, bool]]:
        """For each stage that a unit reads from: version of its newest events, pointer to them, whether it was read."""
        outdated = outdated_inputs(self.dag, self.lock, name, self.changed.get(name, ()))
        found: dict[str, tuple[str, str, bool]] = {}
        by_stage: dict[str, list[str]] = {}
        for parent in self.dag.parents(name):
            by_stage.setdefault(self.dag.units[parent].stage, []).append(parent)
        for stage in self.dag.stage_parents(self.dag.units[name].stage):
            partitioned = self.dag.stages[stage].keys is not None
            parents = by_stage.get(stage) or ([] if partitioned else [stage])
            events = {parent: self.newest(parent) for parent in parents}
            known = [event for event in events.values() if event is not None]
            versions = [event.tags.get(DATA_VERSION, "") if event else "" for event in events.values()]
            recorded = [self.lock[parent].version if parent in self.lock else None for parent in parents]
            version = versions[0] if versions and not partitioned else digest(sorted(zip(parents, versions)))
            consumed = versions == recorded and not outdated.intersection(parents)
            number = max((event.number for event in known), default=None)
            if consumed:
                pointer = NO_POINTER if number is None else str(number)
            else:
                pointer = BEFORE_ALL if partitioned else NO_POINTER
            found[stage] = (version, pointer, consumed)
        return found

    def tags(self, name: str) -> dict[str, str]:
        """The tags of an event that says a unit was made as dvc.lock has it. Inputs' events must be there already."""
        record = self.lock[name]
        tags = {
            DATA_VERSION: record.version,
            USER_PROVIDED: "true",
            CODE_VERSION: self.code_version(name),
            RECORD: record.digest,
        }
        for stage, (version, pointer, consumed) in self.inputs(name).items():
            read = version if consumed else f"other:{digest(sorted(record.deps.items()))}"
            tags[INPUT_VERSION + stage] = read
            tags[INPUT_POINTER + stage] = pointer
        return tags

    def is_told(self, name: str) -> bool:
        """Whether the newest event of a unit stands for its present record and leads Dagster to the right verdict."""
        event = self.newest(name)
        if event is None or event.tags.get(RECORD) != self.lock[name].digest:
            return False
        unit = self.dag.units[name]
        present = self.workspace.shared_code(self.dag, self.dag.stages[unit.stage])
        if (event.tags.get(CODE_VERSION) == present) != (self.code_version(name) == present):
            return False
        inputs = self.inputs(name)
        if {INPUT_VERSION + stage for stage in inputs} != {t for t in event.tags if t.startswith(INPUT_VERSION)}:
            return False
        looks_fresh = all(event.tags[INPUT_VERSION + stage] == version for stage, (version, _, _) in inputs.items())
        return looks_fresh == all(consumed for _, _, consumed in inputs.values())

    def tell(self, names: Iterable[str] | None = None) -> list[str]:
        """Report to Dagster what dvc.lock has and its event log has not, inputs first.

        Args:
            names: the units to look at; all if not given.

        Returns:
            the units of which an event was reported.
        """
        wanted = set(self.dag.units if names is None else names)
        told = []
        for name, unit in self.dag.units.items():
            if name not in wanted or name not in self.lock or self.is_told(name):
                continue
            metadata = describe(self.dag.root, unit) | {"dvc": dg.MetadataValue.text("run outside Dagster")}
            event = dg.AssetMaterialization(unit.stage, partition=unit.key, metadata=metadata, tags=self.tags(name))
            self.instance.report_runless_asset_event(event)
            self._newest.pop(name, None)
            told.append(name)
        return told


def tell_agreement(instance: dg.DagsterInstance, dag: Dag, status: Status, before: Status | None) -> None:
    """Report the check that Dagster's view is DVC's, of each stage for which `dvc status` says other than before; of
    all stages where it was never asked."""
    for spec in dag.stages.values():
        units = [unit.name for unit in spec.units.values()]
        if before is None or [status.get(name) for name in units] != [before.get(name) for name in units]:
            instance.report_runless_asset_event(agreement(spec, status))


def agreement(spec: StageSpec, status: Status) -> dg.AssetCheckEvaluation:
    """Whether `dvc status` has nothing to say of a stage's units."""
    said = {unit.name: status[unit.name] for unit in spec.units.values() if unit.name in status}
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(spec.name),
        check_name=UP_TO_DATE,
        passed=not said,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"dvc status": dg.MetadataValue.json(said)},
        description=f"not up to date: {', '.join(said)}" if said else "up to date",
    )


@dg.sensor(
    name="sync_with_dvc",
    description="Brings what was run by hand (dvc repro, dvc exp, dvc checkout) into the UI, and says what DVC finds "
    "out of date, edits of code and parameters that nobody has run yet among it.",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def sync_with_dvc(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Report what dvc.lock has and Dagster's log has not. Does nothing while no file has changed."""
    root = project_root()
    before = json.loads(context.cursor or "{}")
    try:
        state = signature(Dag.load(root))
        if state == before.get("signature"):
            return dg.SkipReason("nothing has changed")
        status = dvc_status(root)
        journal = Journal.open(context.instance, root, status)
        told = journal.tell()
        tell_agreement(context.instance, journal.dag, status, before.get("status"))
    except LineamentError as error:
        return dg.SkipReason(f"trying again: {error}")
    context.update_cursor(json.dumps({"signature": state, "status": status}))
    return dg.SkipReason(f"reported {', '.join(told)}" if told else "nothing new in dvc.lock")
