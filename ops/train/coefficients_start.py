"""Where the readers of codes begin: what many people of the studio, whom no source and no lesson shows, taught them.

A laptop renders a few hundred faces in the time that the demo has, and so few teach next to nothing of expressions
(held-out correlation 0.0). What is here was learned once from 520 people with 8 faces each, half of them for either
reader, so that the two still know nothing of each other's. Made again with parameters ``lessons: {people: 520,
held_out: 1, views: 1, faces: 8, size: 160, seed: 90211, extent_max: 1.5, sceneries: 0}`` and ``train_coefficients:
{start: false, azimuth: 0, clean: 1, windows: 4600, learning: {steps: 900, batch: 64, lr: 2.0e-3, threads: 1}}``:

    python -m ops.curate.lessons lessons --params start.yaml
    python -m ops.train.coefficients lessons data/weights/embedded teacher --role teacher --params start.yaml
    python -m ops.train.coefficients lessons data/weights/embedded judge --role judge --params start.yaml
    python -m ops.train.coefficients_start teacher judge
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from models.coefficients import Coefficients
from ops.train.export import read_weights

START = Path(__file__).with_name("coefficients_start.safetensors")


def fill(network: Coefficients, role: str) -> bool:
    """Fill all but the frozen layers, where sizes are those of the file.

    Returns:
        whether they are; if not, the network stays as it is.
    """
    own = {name: value for name, value in network.state_dict().items() if not name.startswith("trunk.")}
    found = {name.removeprefix(f"{role}."): value for name, value in load_file(START).items() if name.startswith(role)}
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in found.items()}:
        return False
    network.load_state_dict({name: value.float() for name, value in found.items()}, strict=False)
    return True


def main(arguments: list[str]) -> int:
    """Put two published readers, teacher and judge, into the file, in half precision."""
    kept: dict[str, torch.Tensor] = {}
    for role, folder in zip(("teacher", "judge"), arguments, strict=True):
        for name, value in read_weights(Path(folder), "network").items():
            if not name.startswith("trunk."):
                kept[f"{role}.{name}"] = value.half().contiguous()
    save_file(kept, START)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
