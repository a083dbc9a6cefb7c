"""Fitting: seconds a face in batches of 16, and seconds a frame of a clip."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.harness import Row, at_most, seconds
from ops.curate.camera import CROP_FOCAL
from ops.fit import energy
from ops.fit.clips import TrackClipsParams
from ops.fit.energy import State
from ops.fit.face import FitFaceParams
from ops.fit.sequence import fit_shot
from ops.fit.solver import fit
from ops.fit.target import interocular, target

BATCH, FRAMES = 16, 64


def people(count: int) -> tuple[State, torch.Tensor]:
    """Random heads near the front and their landmarks (count, 468, 2) with the noise that the fits expect."""
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    turn = torch.linalg.matrix_exp(energy.skew(0.25 * draw(count, 3)))
    state = State(
        0.7 * draw(count, 80),
        0.5 * torch.rand(count, 52, generator=rng, dtype=torch.float64) ** 4,
        turn @ torch.tensor(energy.FRONT, dtype=torch.float64),
        torch.tensor([0.0, 0.0, 2.7], dtype=torch.float64).repeat(count, 1),
    )
    seen = energy.project(target().face, state, CROP_FOCAL)[0]
    return state, seen + FitFaceParams.model_validate({}).noise * draw(*seen.shape)


def rows() -> list[Row]:
    """A batch from a cold pose, and a shot from its frames' own fits."""
    goal, params, clip = target(), FitFaceParams.model_validate({}), TrackClipsParams.model_validate({})
    _, seen = people(BATCH)
    ahead = torch.tensor(energy.FRONT, dtype=torch.float64).repeat(BATCH, 1, 1)
    place = torch.tensor([0.0, 0.0, 2.7], dtype=torch.float64).repeat(BATCH, 1)
    weights = goal.weights.expand(BATCH, -1)

    def batch() -> State:
        return fit(goal.face, seen, ahead, place, CROP_FOCAL, params.terms, weights=weights).state

    state = batch()
    face = float(np.median([seconds(batch) for _ in range(3)])) / BATCH
    away = (energy.project(goal.face, state, CROP_FOCAL)[0] - seen).norm(dim=-1).square().mean(-1).sqrt()
    residual = float(100 * (away / interocular(goal.face, state, CROP_FOCAL)).mean())
    noise = float(100 * params.noise * 2**0.5 / interocular(goal.face, state, CROP_FOCAL).mean())

    start = State(*(value[:1].repeat(FRAMES, *[1] * (value.dim() - 1)) for value in vars(state).values()))
    rng = torch.Generator().manual_seed(1)
    frames = seen[:1] + params.noise * torch.randn(FRAMES, *seen.shape[1:], generator=rng, dtype=torch.float64)
    gaps = torch.ones(FRAMES - 1, dtype=torch.float64)
    everywhere = goal.weights.expand(FRAMES, -1)

    def shot() -> object:
        return fit_shot(goal.face, frames, start, gaps, CROP_FOCAL, clip.terms, clip.smoothness, weights=everywhere)

    return [
        at_most("fit/face_batch_16", face, "s", 1.5),
        Row("fit/face_residual", residual, "% of the eyes", noise, residual / noise, "about the noise that was put in"),
        Row("fit/clip_frame", float(np.median([seconds(shot) for _ in range(2)])) / FRAMES, "s"),
    ]
