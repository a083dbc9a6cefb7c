"""Stage ``evaluate_protocols``: every table and figure of the papers that can be run here, and why the others cannot.

python -m ops.evaluate.tables data/checkpoints data/shards data/weights/embedded data/evaluation/protocols
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from ops.evaluate import plots
from ops.evaluate.commands import SHARDS, evaluate
from ops.evaluate.measures import Known
from ops.evaluate.protocol import FOLDER, find_checkpoints, load_protocols, state_of
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.stage import Stage, stage

CAN_RUN = ("ready", "fallback")


class EvaluateProtocolsParams(Params):
    """How much of each protocol is run."""

    samples: int | None = Field(default=None, ge=2, description="at most so many; the protocol's own number if empty")
    device: Literal["auto", "cpu", "cuda"] = "auto"


@stage("evaluate_protocols", EvaluateProtocolsParams)
def main(s: Stage[EvaluateProtocolsParams], checkpoints: Path, shards: Path, weights: Path, out: Path) -> None:
    """Run the papers' protocols on what has been trained."""
    torch.set_num_threads(1)  # sums depend on the number of threads
    p, known = s.params, load_protocols(FOLDER)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if p.device == "auto" else p.device
    states = {name: state_of(protocol, checkpoints) for name, protocol in known.items()}
    results: dict[str, dict[str, Any]] = {}
    measured: Known = {}
    possible = [name for name, state in states.items() if state.word in CAN_RUN]
    for name in s.progress(possible, desc="protocols"):
        protocol = known[name]
        results[name] = evaluate(
            name,
            protocol,
            find_checkpoints(protocol, checkpoints),
            samples=min(p.samples or protocol.asks.samples, protocol.asks.samples),
            shards=shards / SHARDS[protocol.system],
            weights=weights,
            work=s.work,
            device=device,
            known=measured,
        )
    with publish(out, folder=True) as folder:
        for name, result in results.items():
            _write(folder / f"{name}.json", result)
        about = {
            name: {"word": state.word, "why": state.why, "backbone": state.backbone, "title": known[name].title}
            | {"paper": known[name].paper, "source": known[name].source}
            for name, state in states.items()
        }
        _write(folder / "states.json", about)
    numbers = {
        name: {
            row: {metric: _short(number["value"]) for metric, number in values.items()}
            for row, values in result["rows"].items()
        }
        for name, result in results.items()
    }
    s.metrics({"protocols": len(known), "run": len(results), "samples": p.samples, "results": numbers})
    s.preview(_preview(results))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _preview(results: dict[str, dict[str, Any]]) -> np.ndarray:
    """The first metric of each protocol that was run, one bar a row with its interval."""
    count = max(1, len(results))
    canvas, axes = plots.figure(4 * count, 3.2, panels=count)
    if not results:
        axes[0].set(title="no protocol could be run yet", xticks=[], yticks=[])
    for panel, (name, result) in zip(axes, results.items()):
        rows = [row for row, values in result["rows"].items() if values]
        metric = next((m for row in rows for m in result["rows"][row]), None)
        shown = [row for row in rows if metric in result["rows"][row]]
        numbers = [result["rows"][row][metric] for row in shown]
        values = [n["value"] or 0.0 for n in numbers]
        spread = [[0.0 if n["low"] is None else (n["value"] - n["low"]) for n in numbers],
                  [0.0 if n["high"] is None else (n["high"] - n["value"]) for n in numbers]]  # fmt: skip
        panel.bar(range(len(shown)), values, yerr=spread, capsize=3)
        panel.set(title=f"{name}: {metric}", xticks=range(len(shown)))
        panel.set_xticklabels(shown, rotation=20, fontsize=7)
    return plots.pixels(canvas)


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
