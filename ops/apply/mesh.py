"""The shape of a head: its density as a volume, and the surface in it as a coloured mesh."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from skimage.measure import marching_cubes

from models.headcache import HeadCache
from ops.apply.heads import Heads
from ops.apply.saved_avatars import Posed, is_avatar, load_avatar
from ops.runtime.errors import LineamentError
from ops.runtime.progress import Reporter
from ops.runtime.publish import publish

FORMATS = (".ply", ".obj", ".glb")
_POINTS = 1 << 17  # measured at a time


@torch.no_grad()
def density_volume(cache: HeadCache | Posed, resolution: int, reporter: Reporter | None = None) -> np.ndarray:
    """(R, R, R) float32 raw densities at the centres of the planes' cube, indexed [x, y, z]."""
    axis = torch.from_numpy(_axis(resolution, cache.net.config.box)).to(cache.ws)
    parts = torch.cartesian_prod(axis, axis, axis).split(_POINTS)
    steps = parts if reporter is None else reporter.progress(parts, unit="block")
    found = [cache.field(part[None])[1][0].float().cpu() for part in steps]
    return torch.cat(found).view(resolution, resolution, resolution).numpy()


@torch.no_grad()
def surface(cache: HeadCache | Posed, density: np.ndarray, level: float, largest: bool = False) -> trimesh.Trimesh:
    """The surface where the raw density is ``level``, in world units, closed at the cube's sides, with vertex colours.

    Args:
        cache: the identity, for its colours.
        density: of :func:`density_volume`.
        level: raw density of the surface.
        largest: keep the largest connected piece only.

    Raises:
        LineamentError: the density never reaches the level; says what it reaches.
    """
    most = float(density.max())
    if not level < most:
        raise LineamentError(
            f"the density nowhere reaches {level:g}: its largest value is {most:.3g}. Choose a lower --level "
            "(a network in early training has no solid surface yet)."
        )
    box, resolution = cache.net.config.box, len(density)
    padded = np.pad(density, 1, constant_values=min(float(density.min()), level - 1))
    vertices, faces, _, _ = marching_cubes(padded, level)
    points = ((vertices - 0.5) / resolution - 0.5) * box  # index 1 is the first centre, half a cell from the side
    mesh = trimesh.Trimesh(points, faces, process=False)
    if mesh.volume < 0:  # normals point out of the solid
        mesh.invert()
    if largest:
        pieces = mesh.split(only_watertight=False)
        mesh = max(pieces, key=lambda piece: len(piece.faces))
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=colours(cache, np.asarray(mesh.vertices)))
    return mesh


@torch.no_grad()
def colours(cache: HeadCache | Posed, points: np.ndarray) -> np.ndarray:
    """(P, 3) uint8 colours of world points (P, 3), as an opaque surface there would show before super-resolution."""
    found = []
    to_raw = None if isinstance(cache, Posed) else cache.net.to_raw
    for part in torch.from_numpy(points.astype(np.float32)).to(cache.ws).split(_POINTS):
        feature = cache.field(part[None])[0].transpose(1, 2).unsqueeze(-1)  # (1, C, P, 1)
        shown = feature[:, :3] * 2 - 1 if to_raw is None else to_raw(feature, cache.ws[:, -1])
        found.append(((shown[0, :3, :, 0].T + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy())
    return np.concatenate(found)


def save_mesh(mesh: trimesh.Trimesh, out: Path) -> None:
    """Publish a mesh as ply, obj or glb, by the name's ending.

    Raises:
        LineamentError: another ending.
    """
    if out.suffix not in FORMATS:
        raise LineamentError(f"{out}: a mesh is written as {', '.join(FORMATS)}.")
    data: Any = mesh.export(file_type=out.suffix[1:])
    with publish(out) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def save_volume(density: np.ndarray, box: float, out: Path) -> None:
    """Publish densities as npz: ``density`` [x, y, z], ``origin`` of its first centre, ``spacing``, world units."""
    spacing = box / len(density)
    with publish(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, density=density, origin=np.full(3, (spacing - box) / 2), spacing=spacing)


def mesh(arguments: argparse.Namespace) -> int:
    """``lineament mesh``: meshes and volumes of one identity or avatar, one file a name given."""
    outs: list[Path] = arguments.out
    wrong = [str(out) for out in outs if out.suffix not in (*FORMATS, ".npz")]
    if wrong:
        raise LineamentError(f"{', '.join(wrong)}: write {', '.join(FORMATS)} for a mesh, .npz for the density.")
    cache: HeadCache | Posed
    if is_avatar(arguments.checkpoint):
        cache = load_avatar(arguments.checkpoint, device=arguments.device).neutral()
    else:
        heads = Heads(arguments.checkpoint, arguments.device)
        cache = heads.cache(heads.identity(arguments.seed, arguments.truncation, arguments.cutoff), False)
    density = density_volume(cache, arguments.resolution, Reporter("mesh"))
    made = None
    for out in outs:
        if out.suffix == ".npz":
            save_volume(density, cache.net.config.box, out)
            print(f"{out}: density from {density.min():.3g} to {density.max():.3g}")
            continue
        made = surface(cache, density, arguments.level, arguments.largest) if made is None else made
        save_mesh(made, out)
        print(f"{out}: {len(made.vertices):,} vertices, {len(made.faces):,} triangles")
    return 0


def _axis(resolution: int, box: float) -> np.ndarray:
    return (((np.arange(resolution) + 0.5) / resolution - 0.5) * box).astype(np.float32)
