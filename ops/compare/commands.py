"""``lineament compare``: two checkpoints, data versions or results side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from ops.runtime.arguments import new_file
from ops.runtime.publish import publish


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    one = commands.add_parser(
        "compare",
        help="two checkpoints or data versions side by side, with what differs beyond noise marked",
        description="Compare two checkpoints (data/checkpoints/SYSTEM/VARIANT), two data versions (data/shards/NAME, "
        "one of them in another checkout) or two results of `lineament evaluate … --out FILE.json`.",
    )
    one.add_argument("a", type=Path, metavar="RUN_A")
    one.add_argument("b", type=Path, metavar="RUN_B")
    one.add_argument(
        "--out", type=new_file(".html"), default=Path("comparison.html"), help="the page (default: %(default)s)"
    )
    one.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from ops.compare.page import as_page, as_text, differences
    from ops.compare.sides import read_side

    a, b = read_side(arguments.a), read_side(arguments.b)
    found = differences(a, b)
    with publish(arguments.out) as temporary:
        temporary.write_text(as_page(a, b, found), encoding="utf-8")
    print(as_text(a, b, found))
    print(f"\nThe page: {arguments.out.resolve()}")
    return 0
