"""Style mixing: coarse styles of some heads with fine styles of others, as a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from ops.apply.cameras import orbit
from ops.apply.heads import Heads, pictures
from ops.apply.pictures import grid, write_png
from ops.runtime.errors import LineamentError
from ops.runtime.progress import Reporter


def mixing_table(
    heads: Heads, rows: Sequence[int], columns: Sequence[int], layers: int, truncation: float, azimuth: float = 0.0
) -> np.ndarray:
    """(1 + rows, 1 + columns, H, H, 3) uint8: sources above and at the left, a white corner, mixtures inside.

    Args:
        heads: the generator.
        rows: seeds that give the first ``layers`` styles.
        columns: seeds that give the others.
        layers: how many styles a row gives.
        truncation: of all styles.
        azimuth: of the camera, degrees.

    Raises:
        LineamentError: a row would give no style, or all.
    """
    if not 0 < layers < heads.net.w_count:
        raise LineamentError(f"--layers must lie between 1 and {heads.net.w_count - 1} for this network, not {layers}.")
    label = orbit(azimuth)
    first, second = ([heads.styles(heads.latent(seed), truncation) for seed in seeds] for seeds in (rows, columns))

    def picture(ws: object) -> np.ndarray:
        return pictures(heads.views(ws, label))[0]  # type: ignore[arg-type]

    corner = np.full((heads.resolution, heads.resolution, 3), 255, np.uint8)
    table = [np.stack([corner, *map(picture, second)])]
    for coarse in Reporter("mix").progress(first, unit="row"):
        mixed = []
        for fine in second:
            ws = fine.clone()
            ws[:, :layers] = coarse[:, :layers]
            mixed.append(picture(ws))
        table.append(np.stack([picture(coarse), *mixed]))
    return np.stack(table)


def mix(arguments: argparse.Namespace) -> int:
    """``lineament mix``: the table as a PNG."""
    heads = Heads(arguments.checkpoint, arguments.device)
    rows, columns = arguments.rows, arguments.columns
    layers = heads.net.w_count // 2 if arguments.layers is None else arguments.layers
    table = mixing_table(heads, rows, columns, layers, arguments.truncation, arguments.azimuth)
    write_png(arguments.out, grid(table.reshape(-1, *table.shape[2:]), len(columns) + 1))
    print(f"{len(rows)} x {len(columns)} mixtures, {layers} of {heads.net.w_count} styles by row, in {arguments.out}")
    return 0
