"""Protocols: the tables and figures of the papers as files, what each asks for, and whether it can be run here.

``protocols/<name>.yaml`` freezes one table or figure: which system, how many samples, which seed, which backbone, which
numbers, and what the paper printed. A number made with another backbone than the one asked for takes that backbone's
name; the published rows stand beside it with what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ops.runtime.errors import LineamentError
from ops.runtime.params import Params, read_yaml, validate
from ops.runtime.shardwork import digest
from ops.runtime.weights import require

FOLDER = Path("protocols")
Better = Literal["higher", "lower"]
System = Literal["giraffe", "heads", "portrait", "avatar", "inverter"]
STAGE = {"inverter": "recurrent"}  # of the stages train_…, where their names are not the system's


class Asks(Params):
    """What the paper measured on and with."""

    data: str
    samples: int = Field(gt=0)
    backbone: str


class Protocol(Params):
    """One table or figure of a paper.

    Attributes:
        title: what it shows, in words.
        paper, source: where it was published.
        system: whose checkpoints it judges.
        measure: how; see :mod:`ops.evaluate.measures`.
        asks: data, number of samples and backbone of the paper.
        fallback: backbone used where the paper's weights are not there.
        seed: of everything drawn.
        metrics: the numbers, and which way is better.
        reference: published rows: name to numbers.
        variants: rows that can be measured here: name to the checkpoint's variant.
        note: what a reader must know.
    """

    title: str
    paper: str
    source: str
    system: System
    measure: str
    asks: Asks
    fallback: str
    seed: int = 0
    metrics: dict[str, Better]
    reference: dict[str, dict[str, float]] = Field(default_factory=dict)
    variants: dict[str, str]
    note: str = ""

    @property
    def hash(self) -> str:
        """Of the whole protocol: equal hashes mean equal rules."""
        return digest(self.model_dump(mode="json"))


@dataclass(frozen=True)
class State:
    """Whether a protocol can be run.

    Attributes:
        word: ``ready`` (as published), ``fallback`` (with another backbone), ``untrained`` (no checkpoint), or
            ``not here`` (this version has no such measure).
        why: in a sentence.
        backbone: what would be used.
    """

    word: Literal["ready", "fallback", "untrained", "not here"]
    why: str
    backbone: str


def load_protocols(folder: Path = FOLDER) -> dict[str, Protocol]:
    """All protocols by name.

    Raises:
        LineamentError: there is none, or one is wrong; says which value of which file.
    """
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise LineamentError(f"{folder.resolve()}: no protocols there; run lineament where params.yaml lies.")
    return {path.stem: load_protocol(path) for path in paths}


def load_protocol(path: Path) -> Protocol:
    """One protocol.

    Raises:
        LineamentError: see :func:`load_protocols`.
    """
    found = validate(Protocol, read_yaml(path), str(path))
    for row, values in found.reference.items():
        unknown = sorted(set(values) - set(found.metrics))
        if unknown:
            raise LineamentError(f"{path}: reference '{row}' has {unknown[0]}, which is none of its metrics.")
    return found


def backbone_of(protocol: Protocol) -> tuple[str, str]:
    """The backbone to use, and why it is not the one asked for, empty if it is."""
    try:
        require(protocol.asks.backbone)
    except LineamentError as error:
        return protocol.fallback, str(error)
    return protocol.asks.backbone, ""


def find_checkpoints(protocol: Protocol, root: Path = Path("data/checkpoints")) -> dict[str, Path]:
    """Row name to checkpoint folder, for the rows whose variant has been trained.

    Encoders of animatable heads (system ``inverter``) lie beside the systems; ``#way`` after a folder's name says how
    its encoders are used. Of portraits the super-resolution counts where it has been trained.
    """
    if protocol.system == "portrait":
        from ops.apply.portraits import largest

        found = {row: largest(root, variant) for row, variant in protocol.variants.items()}
        return {row: place for row, place in found.items() if (place / "config.json").is_file()}
    base = root if protocol.system == "inverter" else root / protocol.system
    places = {row: base / variant.partition("#")[0] for row, variant in protocol.variants.items()}
    return {row: place for row, place in places.items() if (place / "config.json").is_file()}


def state_of(protocol: Protocol, root: Path = Path("data/checkpoints")) -> State:
    """Whether it can be run, and what stands in the way."""
    from ops.evaluate.measures import MEASURES

    backbone, missing = backbone_of(protocol)
    if protocol.measure not in MEASURES:
        return State("not here", f"no measure '{protocol.measure}' yet", backbone)
    found = find_checkpoints(protocol, root)
    if not found:
        stage = f"train_{STAGE.get(protocol.system, protocol.system)}"
        return State("untrained", f"no checkpoint of {protocol.system}: dvc repro {stage}", backbone)
    if missing:
        return State("fallback", f"{protocol.asks.backbone} is not there", backbone)
    return State("ready", f"{len(found)} of {len(protocol.variants)} rows", backbone)


def listing(protocols: dict[str, Protocol], root: Path = Path("data/checkpoints")) -> str:
    """The protocols with their states, a line or two each."""
    lines = []
    for name, protocol in protocols.items():
        state = state_of(protocol, root)
        lines.append(f"{name:24} {state.word:10} {protocol.paper}, {protocol.source}: {protocol.title}")
        if state.word != "ready":
            lines.append(f"{'':35} {state.why}" + (f"; {state.backbone} instead" if state.word == "fallback" else ""))
    return "\n".join(lines)


def differences(protocol: Protocol, backbone: str, samples: int, records: Sequence[dict[str, Any]]) -> list[str]:
    """What keeps numbers measured here from being the paper's, in plain sentences."""
    lines = []
    if backbone != protocol.asks.backbone:
        lines.append(f"Made with {backbone}; the paper used {protocol.asks.backbone}. The two cannot be compared.")
    if samples != protocol.asks.samples:
        lines.append(f"{samples:,} samples; the paper used {protocol.asks.samples:,}.")
    lines.append(f"The paper's data: {protocol.asks.data}. Ours are the shards each checkpoint names.")
    seen = sorted({int(record.get("images", 0)) for record in records})
    if seen:
        lines.append(f"Our checkpoints saw {' and '.join(f'{n:,}' for n in seen)} pictures in training.")
    data = {str(record.get("data", "")) for record in records}
    if len(data) > 1:
        lines.append("The checkpoints were trained on different data versions: their rows are not on equal terms.")
    return lines


def beats(better: Better, a: float, b: float) -> bool:
    """Whether a is better than b."""
    return bool(np.isfinite(a) and np.isfinite(b) and (a > b if better == "higher" else a < b))
