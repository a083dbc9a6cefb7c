"""Run the benchmarks: ``python -m benchmarks [AREA ...]``; a table on the screen and rows in metrics/bench.json."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import traceback
from pathlib import Path

import benchmarks
from benchmarks.harness import Row
from ops.runtime.allocator import use_fast_allocator


def areas() -> list[str]:
    """All modules of this folder that have rows."""
    names = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(
        name for name in names if name not in ("__main__", "growth", "harness", "memory", "synthetic", "toyhead")
    )


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = [f"{'name':52} {'value':>11} {'unit':12} {'reference':>11} {'ratio':>7} {'target':16} ok"]
    for row in rows:
        reference = f"{row.reference:11.4g}" if row.reference is not None else " " * 11
        ratio = f"{row.ratio:7.2f}" if row.ratio is not None else " " * 7
        verdict = {True: "yes", False: "NO", None: ""}[row.ok]
        lines.append(f"{row.name:52} {row.value:11.4g} {row.unit:12} {reference} {ratio} {row.target:16} {verdict}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("area", nargs="*", help=f"of {', '.join(areas())}; all if none is named")
    parser.add_argument("--out", type=Path, default=Path("metrics/bench.json"))
    arguments = parser.parse_args()
    unknown = set(arguments.area) - set(areas())
    if unknown:
        parser.error(f"no such area: {', '.join(sorted(unknown))}; there are {', '.join(areas())}")
    rows: list[Row] = []
    failed = []
    for area in arguments.area or areas():
        print(f"... {area}", file=sys.stderr)
        try:
            rows += importlib.import_module(f"benchmarks.{area}").rows()
        except Exception:  # noqa: BLE001  one broken area must not hide the others' numbers; it is reported below
            failed.append(area)
            traceback.print_exc()
    print(table(rows))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps([row.as_dict() for row in rows], indent=2) + "\n")
    missed = [row.name for row in rows if row.ok is False]
    print(f"\n{len(rows)} rows, {len(missed)} below target{': ' + ', '.join(missed) if missed else ''}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
