"""A finished run as a versioned output: weights, configuration, curves and pictures, without anything that varies.

``<out>/``: ``<name>.safetensors`` for each averaged network (``generator.safetensors``), ``networks.safetensors`` with
all trained ones, ``config.json``, ``curves.csv``, ``grid.png`` and ``snapshots.png``, the first row of each grid from
the beginning of training to its end; where the run kept pictures of its snapshots, ``snapshots/step-NNNNNNN`` with
``images`` (N, H, W, 3) uint8 and their ``camera`` (N, 25), from the untrained networks on. Equal seed, data and code
give equal bytes; timings stay in the run folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file

from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish
from ops.store.pictures import decode, encode_png
from ops.train import checkpoint
from ops.train.checkpoint import Checkpoint, Tensors
from ops.train.curves import draw
from ops.train.loop import Trainer

CHECKPOINTS = Path("data/checkpoints")
CONFIG = "config.json"
STRIP_ROWS = 12  # unpublished: our choice


def publish_run(trainer: Trainer, out: Path, **facts: Any) -> None:
    """Publish a finished run to ``out``; ``facts`` go into ``config.json``, e.g. ``system`` and ``variant``."""
    networks = trainer.objective.networks
    tensors = {name: dict(network.state_dict()) for name, network in trainer.average.networks.items()}
    tensors["networks"] = checkpoint.pack({name: network.state_dict() for name, network in networks.items()})
    for path in sorted((trainer.folder / "snapshots").glob("step-*.safetensors")):
        tensors[f"snapshots/{path.stem}"] = load_file(path)
    record = {
        **facts,
        **trainer.config,
        "step": trainer.step,
        "images": trainer.images,
        "parameters": parameter_counts(trainer),
        "data": trainer.pictures.hash,
        "revision": checkpoint.code_revision(),
        "torch": torch.__version__,
    }
    with publish(out, folder=True) as folder:
        checkpoint.write_into(folder, CONFIG, Checkpoint(tensors, record))
        trainer.curves.write(folder / "curves.csv")
        (folder / "grid.png").write_bytes(encode_png(trainer.grid()))
        (folder / "snapshots.png").write_bytes(encode_png(_strip(trainer)))


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a published run.

    Raises:
        LineamentError: missing or damaged.
    """
    if not folder.is_dir():
        raise LineamentError(f"{folder}: no such checkpoint. {_others()}")
    return checkpoint.read_record(folder / CONFIG, _remedy(folder))


def read_weights(folder: Path, name: str = "generator") -> Tensors:
    """The tensors of ``<name>.safetensors`` of a published run, verified.

    Raises:
        LineamentError: missing, cut, damaged or pickled.
    """
    return checkpoint.read_file(folder, f"{name}.safetensors", read_config(folder), _remedy(folder))


def parameter_counts(trainer: Trainer) -> dict[str, int]:
    """Numbers of parameters by network."""
    return {name: sum(p.numel() for p in net.parameters()) for name, net in trainer.objective.networks.items()}


def preview(trainer: Trainer) -> np.ndarray:
    """The samples beside the curves, (H, W, 3) uint8."""
    grid = trainer.grid()
    height = max(360, grid.shape[0])
    grid = cv2.resize(grid, (grid.shape[1] * height // grid.shape[0], height), interpolation=cv2.INTER_AREA)
    return np.hstack([grid, draw(trainer.curves, (height * 4 // 3, height))])


def _strip(trainer: Trainer) -> np.ndarray:
    paths = sorted((trainer.folder / "grids").glob("step-*.png"))
    chosen = paths
    if len(paths) > STRIP_ROWS:
        chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, STRIP_ROWS).round().astype(int)]
    grids = [decode(path.read_bytes()) for path in chosen]
    return np.vstack([grid[: len(grid) // trainer.params.grid_rows] for grid in grids])


def _others() -> str:
    """Which checkpoints there are in place of a missing one."""
    found = sorted(str(path.parent) for path in CHECKPOINTS.glob(f"**/{CONFIG}"))
    return f"There are {', '.join(found)}." if found else "`dvc repro` trains them, `dvc pull` fetches a colleague's."


def _remedy(folder: Path) -> str:
    return f"Restore it with `dvc checkout {folder}`, or train again."
