"""Stage train_recurrent: decoders that merge frame after frame (E_tex_rec and E_tri_rec), and what frames are worth.

python -m ops.train.recurrent data/shards/faces data/shards/clips data/priors data/checkpoints/avatar/avatar
    data/checkpoints/image_encoders data/weights/embedded data/checkpoints/recurrent

The metrics hold the reconstruction error of frames not given, by the number of frames given: on clips held out from
training, and on people of the prior who were not filmed before.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from pydantic import Field

from models.fusion import Kind
from models.inversion import Inverter
from ops.apply.inverters import ENCODERS, load_inverter
from ops.evaluate.plots import figure, pixels
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.params import Params, validate
from ops.runtime.stage import Stage, stage
from ops.store.pictures import decode
from ops.train import ddp
from ops.train.data import Pictures
from ops.train.encoders import EncoderParams, begin, first_pictures, rounded, teach
from ops.train.footage import Footage
from ops.train.loop import numerics, step_seed
from ops.train.objectives.recurrent import RecurrentObjective, RecurrentTraining

Curve = dict[int, dict[str, float]]
LABELS = {"clips": "clips held out", "prior": "people of the prior"}


class CurveParams(Params):
    """How the error by the number of frames is measured. All unpublished: our choice; the paper's figure 6 shows the
    same on 200 frames of its test clips."""

    frames: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    targets: int = Field(default=8, ge=1, description="frames not given, on which errors are measured")
    orders: int = Field(default=4, ge=1, description="random orders of the frames of each clip")
    people: int = Field(default=16, ge=0, description="people of the prior, beside the clips held out")


class TrainRecurrentParams(EncoderParams):
    """Parameters of the stage. Bodies and heads are those of the stage before."""

    fusion: Kind = "gru"  # section 3.4; conv and attention are its baselines, mean the plainest
    objective: RecurrentTraining = RecurrentTraining()
    curve: CurveParams = CurveParams()


@stage("train_recurrent", TrainRecurrentParams)
def main(
    s: Stage[TrainRecurrentParams],
    shards: Path,
    clips: Path,
    priors: Path,
    prior: Path,
    images: Path,
    weights: Path,
    out: Path,
    *,
    fusion: str = "",
) -> None:
    """Train the recurrent decoders on clips and on the prior's people, and measure what further frames are worth.
    ``fusion`` takes the place of the parameter: a baseline."""
    p = s.params
    if fusion:
        p = validate(TrainRecurrentParams, {**p.model_dump(), "fusion": fusion}, "--fusion")
    model = p.model.fused(fusion=p.fusion)
    lesson = begin("recurrent", p.model_dump(mode="json", exclude={"curve"}), model, prior, priors, (images, ENCODERS))
    side = lesson.prior.config.resolution
    footage, held_out = Footage(clips, side).split(p.objective.held_out)
    if not len(footage):
        s.log(f"{clips}: no clips: learning from the prior's people alone, who move as the pictures' fits do")
    lesson.facts["clips"] = footage.hash

    made: list[RecurrentObjective] = []

    def build(pictures: Pictures) -> RecurrentObjective:
        world = lesson.world(p.objective, weights)
        shown = first_pictures(pictures, p.trainer.grid_rows)
        made.append(RecurrentObjective(world, p.objective, shown, footage, held_out))
        return made[0]

    teach(s, lesson, build, shards, out)
    if not ddp.from_environment().main:
        return
    device = next(made[0].inverter.parameters()).device
    inverter = load_inverter(replace(lesson.prior, device=str(device)), out)
    with numerics(p.trainer, device):
        curves = measure(made[0], inverter, p.curve, p.trainer.seed)
    s.metrics(
        {
            "clips": len(footage),
            "held_out": len(held_out),
            "frames": {name: {str(n): rounded(row) for n, row in curve.items()} for name, curve in curves.items()},
        }
    )
    s.preview(beside(decode((out / "grid.png").read_bytes()), curves))


def measure(objective: RecurrentObjective, inverter: Inverter, params: CurveParams, seed: int) -> dict[str, Curve]:
    """The error by the number of frames: on the clips held out, and on the prior's people. Counts that leave no frames
    of a clip to measure on are left out."""
    device = next(inverter.parameters()).device
    found = {}
    longest = max((len(label["camera"]) for label in objective.held_out.labels), default=0) - params.targets
    counts = [n for n in params.frames if n <= longest]
    if counts:
        films = objective.films(objective.held_out, params.orders, max(counts) + params.targets, device)
        found["clips"] = objective.curve(inverter, films, counts)
    if params.people:
        random = torch.Generator(device).manual_seed(step_seed(seed, 0, 0, -2 % 2**31))
        counts = [n for n in params.frames if n <= objective.training.longest]
        length = max(counts) + min(params.targets, 4)
        films = [objective.film(params.people, length, random, real=False)]
        found["prior"] = objective.curve(inverter, films, counts)
    return found


def beside(grid: np.ndarray, curves: dict[str, Curve]) -> np.ndarray:
    """The samples beside the curves of errors."""
    canvas, axes = figure(4.5, 3.6)
    for name, curve in curves.items():
        axes[0].plot(list(curve), [row["l1"] for row in curve.values()], marker="o", markersize=4, label=LABELS[name])
    axes[0].set(xlabel="frames given", ylabel="L1 on frames not given")
    axes[0].set_xscale("log", base=2)
    axes[0].xaxis.set_major_formatter("{x:.0f}")
    axes[0].legend(fontsize=8, frameon=False)
    plot = pixels(canvas)
    height = max(len(grid), len(plot))
    wide = cv2.resize(grid, (grid.shape[1] * height // len(grid), height), interpolation=cv2.INTER_AREA)
    padded = np.full((height, plot.shape[1], 3), 255, np.uint8)
    padded[: len(plot)] = plot
    return np.hstack([wide, padded])


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
