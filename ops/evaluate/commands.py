"""``lineament evaluate``: list the papers' protocols, or run one and print it beside the published rows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ops.evaluate import protocol as protocols
from ops.evaluate.measures import Known, Setting, run
from ops.evaluate.protocol import Protocol
from ops.runtime.arguments import device, new_file, whole
from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    one = commands.add_parser(
        "evaluate",
        help="run a table of a paper on your checkpoints",
        description="Measure checkpoints by a protocol (protocols/*.yaml); print them beside the published rows.",
    )
    one.add_argument("protocol", nargs="?", help="name of a protocol, see --list")
    one.add_argument("checkpoint", nargs="*", type=Path, help="folders; default: all that the protocol names and finds")
    one.add_argument("--list", action="store_true", help="all protocols, and whether they can be run here")
    one.add_argument(
        "--samples", type=whole(2, 1_000_000), help="fewer samples than the protocol asks for; the result says so"
    )
    one.add_argument("--shards", type=Path, help="real pictures (default: the system's shards)")
    one.add_argument("--weights", type=Path, default=Path("data/weights/embedded"), help=argparse.SUPPRESS)
    one.add_argument("--out", type=new_file(".json"), help="also write the result as json")
    one.add_argument("--device", type=device, default="cpu", help="cpu or cuda (default: %(default)s)")
    one.set_defaults(run=_evaluate)


SHARDS = {"giraffe": "faces", "heads": "heads", "portrait": "portraits", "avatar": "faces", "inverter": "faces"}


def _evaluate(arguments: argparse.Namespace) -> int:
    known = protocols.load_protocols()
    if arguments.list or arguments.protocol is None:
        print(protocols.listing(known))
        return 0
    if arguments.protocol not in known:
        raise LineamentError(f"there is no protocol '{arguments.protocol}'; there are {', '.join(known)}.")
    chosen = known[arguments.protocol]
    result = evaluate(
        arguments.protocol,
        chosen,
        {path.name: path for path in arguments.checkpoint} or None,
        samples=arguments.samples,
        shards=arguments.shards or Path("data/shards") / SHARDS[chosen.system],
        weights=arguments.weights,
        device=arguments.device,
    )
    print(as_text(result))
    if arguments.out:
        with publish(arguments.out) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def evaluate(
    name: str,
    protocol: Protocol,
    checkpoints: dict[str, Path] | None = None,
    *,
    samples: int | None = None,
    shards: Path,
    weights: Path,
    work: Path = Path("data/.work/protocols"),
    device: str = "cpu",
    known: Known | None = None,
) -> dict[str, Any]:
    """Run a protocol; a result that can be written as json. ``known``: see :func:`ops.evaluate.measures.run`.

    Raises:
        LineamentError: it cannot be run; says why and what to do.
    """
    from ops.train.export import read_config

    found = checkpoints or protocols.find_checkpoints(protocol)
    if not found:
        state = protocols.state_of(protocol)
        raise LineamentError(f"protocol {name} cannot be run: {state.why}.")
    backbone, missing = protocols.backbone_of(protocol)
    count = samples or protocol.asks.samples
    setting = Setting(backbone, count, shards, weights, work, device)
    rows = run(protocol, found, setting, known)
    records = {row: read_config(folder) for row, folder in found.items()}
    return {
        "protocol": {"name": name, "hash": protocol.hash, **protocol.model_dump(mode="json")},
        "backbone": backbone,
        "missing": missing,
        "samples": count,
        "rows": {row: {metric: number.as_dict() for metric, number in values.items()} for row, values in rows.items()},
        "checkpoints": {
            row: {key: record.get(key) for key in ("variant", "step", "images", "data", "revision")}
            for row, record in records.items()
        },
        "not_measured": {
            row: f"no checkpoint of {protocol.system}/{variant}"
            for row, variant in protocol.variants.items()
            if row not in found and variant not in found
        },
        "differs": protocols.differences(protocol, backbone, count, list(records.values())),
        "warnings": sorted({n.note for values in rows.values() for n in values.values() if n.note})
        + _foreign(records, shards),
    }


def _foreign(records: dict[str, dict[str, Any]], shards: Path) -> list[str]:
    """Which checkpoints were trained on other data than the real pictures they are held against."""
    from ops.store.reader import ShardDataset

    if not any(shards.glob("*.tar")):
        return []
    data = ShardDataset(shards).hash
    return [f"{row} was trained on other data than {shards}." for row, r in records.items() if r.get("data") != data]


def as_text(result: dict[str, Any]) -> str:
    """A result as a table for a terminal: ours first, the published rows below, then what differs."""
    rows: dict[str, Any] = result["rows"]
    measured = list(dict.fromkeys(metric for values in rows.values() for metric in values))
    published = [metric for metric in result["protocol"]["metrics"] if metric not in measured]
    columns = [*measured, *published]
    width = max([12, *(len(row) + 1 for row in (*rows, *result["protocol"]["reference"]))])
    cells = [max(len(column), 20) for column in columns]
    head = " " * width + "".join(f"{c:>{w + 2}}" for c, w in zip(columns, cells))
    lines = [f"{result['protocol']['paper']}, {result['protocol']['source']}: {result['protocol']['title']}", head]
    for row, values in rows.items():
        lines.append(f"{row:{width}}" + "".join(f"{_cell(values.get(c)):>{w + 2}}" for c, w in zip(columns, cells)))
    lines.append("published:")
    for row, values in result["protocol"]["reference"].items():
        texts = [f"{values[c]:g}" if c in values else "–" for c in columns]
        lines.append(f"{row:{width}}" + "".join(f"{t:>{w + 2}}" for t, w in zip(texts, cells)))
    for title, key in (("what differs", "differs"), ("mind", "warnings")):
        lines += [f"{title}: {line}" for line in result[key]]
    lines += [f"not measured: {row}: {why}" for row, why in result["not_measured"].items()]
    return "\n".join(lines)


def _cell(number: dict[str, Any] | None) -> str:
    if number is None or number["value"] is None:
        return "–"
    text = f"{number['value']:.4g}"
    return text if number["low"] is None else f"{text} [{number['low']:.3g}, {number['high']:.3g}]"
