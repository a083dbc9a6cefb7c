"""Checkpoints: folders of safetensors and JSON that appear whole or not at all, and never a pickle.

``<run>/step-0001200/`` holds ``networks``, ``averaged`` and ``optimizers`` as ``.safetensors``, and ``state.json``
with everything that is no tensor: counters, data position, configuration, data hash, git revision, torch version, and
size and sha256 of each tensor file, so that a file cut by a byte is noticed before it is used.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish, remove
from ops.store.tar import file_sha256

FORMAT = 1
STATE = "state.json"
_NAME = re.compile(r"step-(\d{7,})")
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """The content of one checkpoint: groups of tensors by file stem, and the record that goes with them."""

    tensors: dict[str, Tensors]
    record: dict[str, Any]


def write(run: Path, step: int, content: Checkpoint, keep: int) -> Path:
    """Publish a checkpoint in the run folder and drop all but the newest ``keep``.

    Raises:
        LineamentError: the disk is full.
    """
    path = run / f"step-{step:07d}"
    with publish(path, folder=True) as folder:
        write_into(folder, STATE, content)
    for old in all_of(run)[:-keep]:
        remove(old)
    return path


def write_into(folder: Path, record: str, content: Checkpoint) -> None:
    """Write the tensor files and the record ``record`` (a file name), which holds their sizes and hashes. A group's
    name may have a folder: ``snapshots/step-0000100``."""
    files = {}
    for stem, tensors in content.tensors.items():
        file = folder / f"{stem}.safetensors"
        file.parent.mkdir(exist_ok=True)
        save_tensors(file, tensors)
        files[f"{stem}.safetensors"] = {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    text = json.dumps({"format": FORMAT, "files": files, **content.record}, indent=1)
    (folder / record).write_text(text + "\n", encoding="utf-8")


def all_of(run: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first. Folders that a killed process left half-written do not count."""
    found = [(int(m[1]), path) for path in run.glob("step-*") if (m := _NAME.fullmatch(path.name)) and path.is_dir()]
    return [path for _, path in sorted(found)]


def newest(run: Path) -> Path | None:
    """The latest checkpoint of a run folder; None if there is none."""
    found = all_of(run)
    return found[-1] if found else None


def read(path: Path, *, same: Mapping[str, Any] | None = None) -> Checkpoint:
    """A checkpoint, verified.

    Args:
        path: its folder.
        same: entries of the record that must have these values, such as ``config`` and ``data``.

    Raises:
        LineamentError: a file is missing, cut, damaged or pickled, or the record differs from ``same``.
    """
    remedy = f"Delete {path} to go on from the checkpoint before it, or from the start."
    record = read_record(path / STATE, remedy)
    for key, expected in (same or {}).items():
        if record.get(key) != expected:
            where = _difference(record.get(key), expected, key)
            raise LineamentError(f"{path}: belongs to another run: {where}. {remedy}")
    return Checkpoint({Path(n).stem: read_file(path, n, record, remedy) for n in record["files"]}, record)


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON record of a checkpoint.

    Raises:
        LineamentError: missing, damaged, or of another format; ends with ``remedy``.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not isinstance(record["files"], dict):
            raise ValueError("no mapping with the files")
    except (FileNotFoundError, NotADirectoryError):
        raise LineamentError(f"{path}: is missing from the checkpoint. {remedy}") from None
    except (ValueError, KeyError) as error:
        raise LineamentError(f"{path}: is damaged ({error}). {remedy}") from None
    if record.get("format") != FORMAT:
        raise LineamentError(f"{path}: format {record.get('format')!r} is not {FORMAT}. {remedy}")
    return record


def read_file(folder: Path, name: str, record: Mapping[str, Any], remedy: str) -> Tensors:
    """The tensors of one file of a checkpoint, after comparing size and hash with the record.

    Raises:
        LineamentError: missing, cut, damaged or pickled; ends with ``remedy``.
    """
    file, facts = folder / name, record["files"].get(name)
    if facts is None or not file.is_file():
        raise LineamentError(f"{file}: is missing from the checkpoint. {remedy}")
    refuse_pickle(file)
    size = file.stat().st_size
    if size != facts["bytes"]:
        raise LineamentError(f"{file}: damaged: {size} bytes, where {facts['bytes']} were written. {remedy}")
    if file_sha256(file) != facts["sha256"]:
        raise LineamentError(f"{file}: damaged: its sha256 is not the recorded one. {remedy}")
    try:
        return load_file(file)
    except (SafetensorError, ValueError) as error:
        raise LineamentError(f"{file}: not a safetensors file ({error}). {remedy}") from None


def _difference(found: Any, expected: Any, name: str) -> str:
    """The first place where two records differ, in words."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(set(found) | set(expected)):
            if found.get(key) != expected.get(key):
                return _difference(found.get(key), expected.get(key), f"{name}.{key}")
    return f"{name} was {found!r} and is now {expected!r}"


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors; equal tensors give equal bytes."""
    save_file({name: t.detach().to("cpu", copy=True).contiguous() for name, t in sorted(tensors.items())}, path)


def refuse_pickle(path: Path) -> None:
    """Raise LineamentError if a file's first bytes are those of a pickle or of torch.save's archive."""
    with open(path, "rb") as stream:
        start = stream.read(4)
    if start.startswith(_PICKLES):
        raise LineamentError(
            f"{path}: is a pickle, which can run any code when loaded, so it is refused. "
            "Convert it to safetensors where you trust its origin."
        )


def load_network(network: nn.Module, tensors: Mapping[str, Tensor], where: object) -> None:
    """Copy saved tensors into a network of the same architecture.

    Raises:
        LineamentError: names are missing or left over, or shapes differ; says which.
    """
    wanted = network.state_dict()
    missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    reshaped = [n for n in wanted if n in tensors and wanted[n].shape != tensors[n].shape]
    if not (missing or extra or reshaped):
        network.load_state_dict(dict(tensors))
        return
    problems = []
    if missing:
        problems.append(f"lacks {missing[0]} ({len(missing)} in all)")
    if extra:
        problems.append(f"has {extra[0]} too many ({len(extra)} in all)")
    if reshaped:
        name = reshaped[0]
        problems.append(f"{name} is {list(tensors[name].shape)} where {list(wanted[name].shape)} is wanted")
    raise LineamentError(
        f"{where}: a checkpoint of another architecture: it {'; it '.join(problems)}. "
        "Build the network from the config.json beside the weights."
    )


def pack(parts: Mapping[str, Mapping[str, Tensor]]) -> Tensors:
    """{network: {name: tensor}} as one flat mapping ``network/name``."""
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def unpack(tensors: Mapping[str, Tensor], part: str) -> Tensors:
    """One part of what pack() joined."""
    return {name.removeprefix(f"{part}/"): t for name, t in tensors.items() if name.startswith(f"{part}/")}


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """An optimiser's state as tensors and JSON."""
    state = optimizer.state_dict()
    tensors: Tensors = {}
    numbers: dict[str, Any] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"{index}.{name}"] = value
    return tensors, {"groups": state["param_groups"], "numbers": numbers}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, record: Mapping[str, Any]) -> None:
    """Put back what pack_optimizer() took."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **record["numbers"]}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    groups = []
    for saved, current in zip(record["groups"], optimizer.state_dict()["param_groups"]):
        # JSON knows no tuples: take each value's type from the optimiser as it is built now.
        groups.append({k: tuple(v) if isinstance(current.get(k), tuple) else v for k, v in saved.items()})
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def code_revision() -> str | None:
    """The last git commit that touched the code of training (``models``, ``ops``), ``-dirty`` if it was edited since.

    Commits that touch other things leave it alone, so that equal code gives equal checkpoints. None outside git.
    """
    root, code = Path(__file__).resolve().parents[2], ("models", "ops")
    try:
        last = _git(root, "log", "-1", "--format=%H", "--", *code)
        edited = _git(root, "status", "--porcelain", "--", *code)
    except (OSError, subprocess.CalledProcessError):
        return None
    return (last + "-dirty" * bool(edited)) or None


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True).stdout.strip()
