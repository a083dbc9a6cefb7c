"""The commands of who runs a project: doctor, unlock, instance, models, changes, backup, restore."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from ops.runtime.arguments import new_file, whole
from ops.runtime.errors import LineamentError


def add_operating_commands(commands: Any) -> None:
    """Add the commands to the command line's sub-parsers."""
    models = commands.add_parser("models", help="the registry of trained models: champions, scores, the way back")
    actions = models.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="every registered version; the champions are marked")
    actions.add_parser("show", help="all that is known of a model, as JSON").add_argument("name")
    judging = actions.add_parser("judge", help="register what was trained; promote what beats its champion")
    judging.add_argument("system", help="giraffe, heads …")
    promote = actions.add_parser("promote", help="make a version the champion by hand")
    promote.add_argument("name", help="e.g. giraffe/aamnce")
    promote.add_argument("version", type=whole(1, 1_000_000))
    promote.add_argument("--why", default="by hand", help="kept in the history")
    actions.add_parser("rollback", help="make the champion before champion again").add_argument("name")
    models.set_defaults(run=_models)
    changes = commands.add_parser("changes", help="what is new and gone in the training shards, and how they drifted")
    changes.set_defaults(run=_changes)
    for name, text, kind in (
        ("backup", "keep what neither git nor DVC keeps", new_file(".gz")),
        ("restore", "put a backup's files back", Path),
    ):
        command = commands.add_parser(name, help=f"{text}: Dagster's events, remembered data versions")
        command.add_argument("file", type=kind, help="the archive, .tar.gz")
        command.set_defaults(run=_backup)
    unlock = commands.add_parser("unlock", help="drop DVC's locks of processes that are dead; `dvc` then runs again")
    unlock.set_defaults(run=_unlock)
    instance = commands.add_parser("instance", help="put dagster.yaml into DAGSTER_HOME, with a slot for each GPU")
    instance.set_defaults(run=_instance)
    doctor = commands.add_parser("doctor", help="is everything there that a run needs? With a remedy for each finding")
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(run=_doctor)


def _home() -> Path:
    return Path(os.environ.get("DAGSTER_HOME") or ".dagster")


def _unlock(_: argparse.Namespace) -> int:
    from ops.locks import drop_dead_locks

    dropped = drop_dead_locks(Path())
    said = ", ".join(map(str, sorted(dropped)))
    print(f"dropped the locks of processes {said}" if dropped else "no process that is dead holds a lock")
    return 0


def _instance(_: argparse.Namespace) -> int:
    from ops import instance

    file, slots = instance.prepare(Path(), _home())
    print(f"{file}, which Dagster reads: the project's dagster.yaml; GPU stages at a time: {slots}")
    return 0


def _backup(arguments: argparse.Namespace) -> int:
    from ops import backup

    home = _home()
    if arguments.command == "backup":
        names = backup.back_up(Path(), home, arguments.file)
    else:
        names = backup.restore(arguments.file, Path(), home)
    print(f"{arguments.file}: {len(names)} files. Data are DVC's: dvc push, dvc pull.")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from ops import doctor

    return doctor.main(Path(), arguments.json)


def _models(arguments: argparse.Namespace) -> int:
    from ops import judge, registry

    root = Path()
    if arguments.action == "list":
        print(registry.table(registry.read(root)))
    elif arguments.action == "show":
        print(json.dumps(registry.read(root).model(arguments.name).model_dump(mode="json"), indent=1))
    elif arguments.action == "judge":
        for found in judge.judge(root, arguments.system):
            verdict = "promoted" if found.promoted else "not promoted"
            print(f"{found.model} version {found.version.number}: {verdict}, {found.why}")
    else:
        if arguments.action == "promote":
            version = registry.promote(root, arguments.name, arguments.version, arguments.why)
        else:
            version = registry.roll_back(root, arguments.name)
        print(f"version {version.number} is the champion of {arguments.name}: {registry.CHAMPIONS / arguments.name}")
    return 0


def _changes(_: argparse.Namespace) -> int:
    from ops import data_versions

    folders = sorted(path.parent for path in Path(data_versions.SHARDS).glob(f"*/{data_versions.SUMMARY}"))
    if not folders:
        raise LineamentError("there are no training shards yet: dvc repro makes them.")
    for folder in folders:
        print(f"{folder.name}: {data_versions.changes(Path(), folder).sentence()}")
    return 0
