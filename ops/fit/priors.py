"""Stage ``priors``: how identity, expression, body, pose and camera occur together, from the fits of all sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor

from models.camera import intrinsics, pack_label, pose_on_sphere, unpack_label
from models.parametric import person_basis
from models.parametric.base import JOINTS
from models.parametric.person import Person, load_person
from ops.crawl.sources import load_sources
from ops.fit.overlay import draw_mesh
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.stage import Stage, stage
from ops.store import tables
from ops.train.priors import CODES, Priors, PriorSample

SHOWN = 8  # people drawn and rendered for the preview
DATA, DRAWN = "#0072b2", "#d55e00"


class PriorsParams(Params):
    """The kernel's widths, in standard deviations of the data; all unpublished: our choice."""

    identity: float = Field(0.8, ge=0, description="wide: a code of 80 numbers is far from every other")
    shape: float = Field(0.8, ge=0, description="as the identity")
    pose: float = Field(0.4, ge=0, description="of the six joints")
    expression: float = Field(0.25, ge=0, description="narrow: units are clipped to [0, 1]")
    camera_degrees: float = Field(3.0, ge=0, description="turn of the camera about each axis")
    min_samples: int = Field(100, ge=2, description="fewer are an error")


def gather(labels: Path, sources: Mapping[str, object]) -> tuple[dict[str, Tensor], Counter[str]]:
    """What both fits kept of all sources, as the fields of PriorSample, and how many fell for each reason.

    Args:
        labels: folder with a folder of tables a source.
        sources: names of the sources, in order; a picture of two counts for the first.

    Raises:
        LineamentError: a table is missing or damaged, or codes have another length.
    """
    rows: dict[str, dict[str, Any]] = {}
    lost: Counter[str] = Counter()
    for source in sources:
        faces = {row["id"]: row for row in tables.read(labels / source / "fit_face.parquet").to_pylist()}
        cameras = {row["id"]: row for row in tables.read(labels / source / "camera.parquet").to_pylist()}
        for row in tables.read(labels / source / "fit_body.parquet").to_pylist():
            face = faces.get(row["id"])
            if face is None or not face["kept"]:
                lost["no_face_fit"] += 1
            elif not row["kept"]:
                lost["no_body_fit"] += 1
            elif row["id"] in rows:
                lost["in_another_source"] += 1
            else:
                entry = {name: face[name] for name in ("identity", "expression")}
                entry |= {name: row[name] for name in ("shape", "pose", "camera")}
                entry["camera_face"] = cameras[row["id"]]["camera"]
                if _finite(entry):
                    rows[row["id"]] = entry
                else:
                    lost["not_finite"] += 1
    return _tensors(list(rows.values())), lost


def _finite(entry: Mapping[str, Any]) -> bool:
    return all(values is not None and np.isfinite(np.array(values, np.float64)).all() for values in entry.values())


def _tensors(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    sizes = {"identity": 80, "expression": 52, "shape": 10, "pose": 18, "camera": 25, "camera_face": 25}
    tensors = {}
    for name, size in sizes.items():
        lengths = {len(row[name]) for row in rows}
        if lengths - {size}:
            raise LineamentError(
                f"the fits' {name} has {sorted(lengths - {size})[0]} numbers where {size} are expected."
            )
        tensors[name] = torch.tensor([row[name] for row in rows], dtype=torch.float32).reshape(-1, size)
    tensors["pose"] = tensors["pose"].unflatten(1, (len(JOINTS), 3))
    return tensors


@stage("priors", PriorsParams)
def main(s: Stage[PriorsParams], labels: Path, out: Path) -> None:
    """Estimate from all fits what people, poses and cameras occur together; training draws from it."""
    tensors, lost = gather(labels, load_sources(s.params_file))
    count = len(tensors["identity"])
    if count < s.params.min_samples:
        raise LineamentError(
            f"only {count} pictures have both fits, where priors.min_samples asks for {s.params.min_samples} "
            f"({', '.join(f'{n} {reason}' for reason, n in sorted(lost.items())) or 'none fell'}). "
            "`lineament status` shows at which step the others fell."
        )
    priors = Priors(tensors, {name: getattr(s.params, name) for name in CODES}, s.params.camera_degrees)
    model, names = person_basis.load()
    with publish(out, folder=True) as folder:
        priors.save(folder, model, expression_names=list(names), samples=count)
    s.log(f"{count} pictures; {dict(lost) or 'none left out'}")
    s.metrics({"in": count + sum(lost.values()), "kept": count, "rejected": sum(lost.values()), "reasons": dict(lost)})
    drawn = priors.sample(max(count, 500), torch.Generator().manual_seed(0))
    s.metrics({f"spread_{name}": round(float(tensors[name].std(0).mean()), 4) for name in CODES})
    s.preview(np.concatenate([plots(tensors, drawn), people(load_person(), drawn)]))


def plots(data: Mapping[str, Tensor], drawn: PriorSample) -> np.ndarray:
    """Data and draws side by side, (H, 1200, 3) uint8."""
    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    _histogram(axes[0], "identity codes (standard deviations)", data["identity"], drawn.identity)
    _scatter(axes[1], "two identity codes", data["identity"][:, :2], drawn.identity[:, :2])
    _scatter(axes[2], "camera about the head (degrees)", _angles(data["camera_face"]), _angles(drawn.camera_face))
    _histogram(axes[3], "joint turns (degrees)", _degrees(data["pose"]), _degrees(drawn.pose))
    turns = [torch.stack([_angles(c)[:, 0], _degrees(p)[:, 1, 1]], 1) for c, p in _pairs(data, drawn)]
    _scatter(axes[4], "camera azimuth and the head's turn", *turns)
    places = np.arange(52)
    axes[5].bar(places - 0.2, data["expression"].mean(0).numpy(), 0.4, color=DATA)
    axes[5].bar(places + 0.2, drawn.expression.mean(0).numpy(), 0.4, color=DRAWN)
    axes[5].set_title("mean of each face unit", fontsize=9)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _pairs(data: Mapping[str, Tensor], drawn: PriorSample) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return (data["camera_face"], data["pose"]), (drawn.camera_face, drawn.pose)


def _histogram(axes: Axes, title: str, data: Tensor, drawn: Tensor) -> None:
    for values, colour, name in ((data, DATA, "fits"), (drawn, DRAWN, "drawn")):
        axes.hist(values.flatten().numpy(), bins=60, density=True, histtype="step", color=colour, label=name)
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7)


def _scatter(axes: Axes, title: str, data: Tensor, drawn: Tensor) -> None:
    axes.plot(*drawn.numpy().T, ".", markersize=2, color=DRAWN)
    axes.plot(*data.numpy().T, ".", markersize=2, color=DATA)
    axes.set_title(title, fontsize=9)


def _degrees(turns: Tensor) -> Tensor:
    return turns * (180 / torch.pi)


def _angles(camera: Tensor) -> Tensor:
    """(N, 25) to (N, 2) azimuth and elevation of the camera's place, degrees."""
    place = unpack_label(camera)[0][:, :3, 3]
    azimuth = torch.atan2(place[:, 0], place[:, 2])
    return _degrees(torch.stack([azimuth, torch.asin(place[:, 1] / place.norm(dim=-1))], dim=1))


def people(model: Person, drawn: PriorSample, side: int = 150) -> np.ndarray:
    """SHOWN people as drawn, (side, 1200, 3) uint8, each from a little to its left."""
    eye = pose_on_sphere(torch.tensor([0.25]), torch.tensor([0.05]), radius=4.5)
    eye[:, 1, 3] -= 0.25
    camera = pack_label(eye, intrinsics(2.6))
    tiles = []
    for number in range(SHOWN):
        one = slice(number, number + 1)
        posed = model.posed(drawn.shape[one], drawn.pose[one], drawn.identity[one], drawn.expression[one])
        tiles.append(draw_mesh(np.full((side, side, 3), 250, np.uint8), posed, model.triangles, camera))
    return np.concatenate(tiles, axis=1)


if __name__ == "__main__":
    raise SystemExit(main())
