"""The ``lineament`` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from ops.apply.avatar_commands import add_to as add_avatar_commands
from ops.apply.commands import add_to as add_apply_commands
from ops.compare.commands import add_to as add_compare_command
from ops.evaluate.commands import add_to as add_evaluate_command
from ops.examples import EXAMPLES, GROUPS
from ops.operating import add_operating_commands
from ops.runtime.arguments import CommandParser, Commands, new_file, new_folder, number, whole
from ops.runtime.errors import LineamentError, in_words

REPORT = Path("data/report/index.html")
ADDABLE = {
    "folder": "pictures at any depth; nothing in it is changed",
    "urls": "a .txt, .csv or .parquet list of addresses",
    "search": "keyword lists, such as ops/crawl/hairstyles.yaml",
    "video": "a folder of videos",
    "dataset": "a public data set as its owners ship it; see --layout",
}


def _repro(arguments: argparse.Namespace) -> int:
    from ops.repro import repro

    failed = repro(Path(), arguments.units, arguments.jobs, lambda line: print(line, flush=True))
    if failed is None:
        return 0
    print("\n".join(failed.lines), file=sys.stderr)
    print(f"\n{failed.name} failed: the lines above say why. The same command goes on where it was.", file=sys.stderr)
    return 1


def _demo(arguments: argparse.Namespace) -> int:
    code = _repro(arguments)
    if code:
        return code
    print(
        f"""
The report: {REPORT.resolve()}

What to try next
  make ui                                    the lineage in Dagster, with a picture of every step
  . .venv/bin/activate                       then, in this shell:
  lineament status                           how many pictures came how far, and why the others fell
  lineament source add mine --folder PHOTOS  and `dvc repro`: your own pictures through the same lineage
  lineament profile use gpu                  the settings for one GPU, then again `dvc repro`
"""
    )
    return 0


def _source(arguments: argparse.Namespace) -> int:
    from ops import settings
    from ops.crawl.sources import load_sources

    if arguments.action == "add":
        kind, path = next((kind, path) for kind in ADDABLE if (path := getattr(arguments, kind)))
        values = {"kind": kind, "path": settings.stored_path(path), "licence": arguments.licence}
        for name in ("refresh", "layout"):
            if getattr(arguments, name):
                values[name] = getattr(arguments, name)
        settings.add_source(arguments.name, values)
        print(f"'{arguments.name}' is declared in params.yaml. `dvc repro` brings it through the lineage.")
    elif arguments.action == "remove":
        settings.remove_source(arguments.name)
        print(f"'{arguments.name}' is no longer declared. `dvc repro` leaves it out of the training shards.")
    else:
        for name, source in load_sources().items():
            print(f"{name:16} {source.kind:8} {source.path}  (licence: {source.licence})")
    return 0


def _profile(arguments: argparse.Namespace) -> int:
    from ops import settings
    from ops.runtime.params import read_yaml

    if arguments.name:
        settings.use_profile(arguments.name)
        print(f"params.yaml now holds the profile '{arguments.name}'. `dvc repro` runs what that changes.")
    else:
        current = read_yaml(Path("params.yaml")).get("profile")
        for name in settings.profiles():
            print(f"{'*' if name == current else ' '} {name}")
    return 0


def _status(_: argparse.Namespace) -> int:
    from ops.status import status_table

    print(status_table())
    return 0


def _lineage(arguments: argparse.Namespace) -> int:
    from ops.trace import ids_of, trace

    for key in ids_of(Path(), arguments.what):
        places = trace(Path(), key)
        print(key if places else f"{key}: nothing here holds or speaks of it")
        for place in places:
            print(f"  {place.kind:10} {place.where:52} {place.says}")
    return 0


def _takedown(arguments: argparse.Namespace) -> int:
    from ops.takedowns import add_command, list_command

    if arguments.action == "list":
        print(list_command(Path()))
    else:
        print(add_command(Path(), arguments.what, arguments.reason))
    return 0


def _review(arguments: argparse.Namespace) -> int:
    from ops.review.server import serve

    serve(Path(), arguments.source, arguments.port)
    return 0


def _dataset(arguments: argparse.Namespace) -> int:
    from ops.shards.eg3d import export, import_

    if arguments.action == "export":
        count = export(arguments.shards, arguments.out, arguments.repeat)
    else:
        count = import_(arguments.zip, arguments.out, arguments.licence)
    print(f"{arguments.out}: {count} pictures")
    return 0


def _weights(_: argparse.Namespace) -> int:
    from ops.runtime.weights import table

    print(table())
    return 0


def _model(arguments: argparse.Namespace) -> int:
    from ops.parametric.convert import convert

    convert(arguments.file, arguments.kind, arguments.out)
    print(f"{arguments.out}: {arguments.kind} in safetensors and JSON; the original file is not needed any more.")
    return 0


def _check(_: argparse.Namespace) -> int:
    from ops.checks import main

    return main([])


def _plan(arguments: argparse.Namespace) -> int:
    from ops import plan, settings

    path = Path("params.yaml")
    if arguments.profile:
        if arguments.profile not in settings.profiles():
            known = ", ".join(settings.profiles())
            raise LineamentError(f"there is no profile '{arguments.profile}'; there are {known}.")
        path = settings.PROFILES / f"{arguments.profile}.yaml"
    print(plan.table(path, arguments.devices, arguments.speed))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line, with a line of help for each sub-command."""
    CommandParser.examples = EXAMPLES
    top = CommandParser(
        prog="lineament",
        description="From raw pictures of people to trained 3D-aware generators, with every step on record. Run in the "
        "project's folder. `lineament COMMAND --help` shows examples.",
    )
    commands = cast(Commands, top.add_subparsers(dest="command", required=True, metavar="COMMAND"))

    demo = commands.add_parser("demo", help="run the whole lineage, then say where the report is")
    demo.set_defaults(run=_demo, units=[])
    again = commands.add_parser(
        "repro", help="bring the lineage up to date, as `dvc repro` does, several units at a time"
    )
    again.add_argument("units", nargs="*", metavar="UNIT", help="and what they read from; all of it if none is named")
    again.set_defaults(run=_repro)
    for command in (demo, again):
        command.add_argument("--jobs", type=whole(1, 64), default=2, help="units at a time (default: %(default)s)")

    source = commands.add_parser("source", help="list, add or remove sources of pictures")
    actions = source.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the declared sources")
    add = actions.add_parser("add", help="declare a source of pictures")
    add.add_argument("name", help="lower-case letters, digits, - and _")
    where = add.add_mutually_exclusive_group(required=True)
    for kind, text in ADDABLE.items():
        where.add_argument(f"--{kind}", metavar="PATH", help=text)
    add.add_argument(
        "--layout", help="of a data set: ffhq, celeba_hq, lpff, k_hairstyle, shhq, vfhq, hdtf, 300vw, eg3d"
    )
    add.add_argument("--licence", default="unknown", help="of the pictures; kept with each one (default: %(default)s)")
    add.add_argument("--refresh", metavar="CRON", help="when Dagster looks for new pictures, e.g. '0 3 * * *'")
    remove = actions.add_parser("remove", help="take a source out again")
    remove.add_argument("name", help="as `lineament source list` shows it")
    source.set_defaults(run=_source)

    lineage = commands.add_parser("lineage", help="where a sample is: raw shard, tables, training shards, checkpoints")
    lineage.add_argument("what", metavar="ID|SHA256|FILE|URL")
    lineage.set_defaults(run=_lineage)

    takedown = commands.add_parser("takedown", help="take pictures out of everything that is made from now on")
    actions = takedown.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="what is on the list, and which checkpoints saw it")
    down = actions.add_parser("add", help="put pictures on the list, data/takedown.csv")
    down.add_argument("what", nargs="+", metavar="ID|SHA256|FILE|URL", help="a file is matched by likeness too")
    down.add_argument("--reason", default="", help="kept in the list")
    takedown.set_defaults(run=_takedown)

    review = commands.add_parser("review", help="look at doubtful labels in the browser; accept, reject, fix poses")
    review.add_argument("--source", help="one source's pictures only")
    review.add_argument("--port", type=whole(0, 65535), default=0, help="of 127.0.0.1; a free one if not given")
    review.set_defaults(run=_review)

    dataset = commands.add_parser("dataset", help="training shards to and from the formats of other projects")
    actions = dataset.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = actions.add_parser("export", help="shards to a zip with dataset.json, masks beside it in NAME_seg.zip")
    export.add_argument("shards", type=Path, help="e.g. data/shards/faces")
    export.add_argument("out", type=new_file(".zip"), help="NAME.zip")
    export.add_argument("--format", choices=["eg3d"], default="eg3d", help="as EG3D, PanoHead and SphereHead read it")
    export.add_argument("--repeat", action="store_true", help="each picture as often as balancing says")
    back = actions.add_parser("import", help="such a zip, or folder, to shards")
    back.add_argument("zip", type=Path, help="NAME.zip, or a folder with a dataset.json")
    back.add_argument("out", type=new_folder, help="folder of the new shards")
    back.add_argument("--licence", default="unknown", help="of the pictures (default: %(default)s)")
    dataset.set_defaults(run=_dataset)

    profile = commands.add_parser("profile", help="list the profiles, or use one")
    profile.add_argument("use", nargs="?", choices=["use"], help=argparse.SUPPRESS)
    profile.add_argument("name", nargs="?", help="smoke (laptop), gpu (one GPU) or paper")
    profile.set_defaults(run=_profile)

    plan = commands.add_parser("plan", help="networks, memory and time of training as a profile declares it")
    plan.add_argument("--profile", help="smoke, gpu or paper (default: the values in use)")
    plan.add_argument("--devices", type=whole(1, 100_000), default=8, help="that share a batch (default: %(default)s)")
    plan.add_argument(
        "--speed", type=number(0.001, 1e6), default=12.5, help="sustained TFLOP/s of one (default: %(default)s)"
    )
    plan.set_defaults(run=_plan)

    add_apply_commands(commands)
    add_avatar_commands(commands)
    add_operating_commands(commands)
    add_evaluate_command(commands)
    add_compare_command(commands)

    model = commands.add_parser("model", help="read a licensed face or body model of your own")
    actions = model.add_subparsers(dest="action", required=True, metavar="ACTION")
    read = actions.add_parser("convert", help="a .pkl, .npz, .npy or .mat to safetensors; nothing in it is run")
    read.add_argument("file", type=Path)
    read.add_argument("--kind", required=True, choices=["smpl", "smplx", "flame", "bfm", "faceverse"])
    read.add_argument("out", type=new_folder, metavar="FOLDER")
    model.set_defaults(run=_model)

    for name, run, text in (
        ("status", _status, "how many pictures came how far, and why the others fell"),
        ("weights", _weights, "the networks the pipeline can use: which are there, where the others come from"),
        ("check", _check, "do counts add up, do shards decode, are cameras and losses sane?"),
    ):
        commands.add_parser(name, help=text).set_defaults(run=run)
    commands.group(GROUPS)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it went well, 1 with a message when it did not."""
    try:
        arguments = parser().parse_args(argv)
        if arguments.command in ("lineage", "takedown") and not Path("params.yaml").is_file():
            raise LineamentError(f"{Path.cwd()}: no project here (params.yaml). Run from the project's folder.")
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        text = in_words(error)
        if text is None:
            raise
        print(f"error: {text}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
