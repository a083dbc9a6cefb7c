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


def beside_others(rows: list[Row], ran: set[str], path: Path) -> list[dict[str, object]]:
    """The rows of the areas that ran, and behind them what the file says of the others."""
    before = json.loads(path.read_text()) if path.is_file() else []
    renewed = ran | {row.name.split("/")[0] for row in rows}
    others = [row for row in before if row["name"].split("/")[0] not in renewed]
    return [row.as_dict() for row in rows] + others


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
    asked = arguments.area or areas()
    for area in asked:
        print(f"... {area}", file=sys.stderr)
        try:
            rows += importlib.import_module(f"benchmarks.{area}").rows()
        except Exception:  # noqa: BLE001  one broken area must not hide the others' numbers; it is reported below
            failed.append(area)
            traceback.print_exc()
    print(table(rows))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    everything = beside_others(rows, set(asked) - set(failed), arguments.out)
    arguments.out.write_text(json.dumps(everything, indent=2) + "\n")
    missed = [row.name for row in rows if row.ok is False]
    print(f"\n{len(rows)} rows, {len(missed)} below target{': ' + ', '.join(missed) if missed else ''}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
