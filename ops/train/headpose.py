"""Stage ``train_headpose``: the network that finds a head from any side, taught by the studio's truth."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.headpose import HeadPose, HeadPoseConfig
from ops.curate.crop import crop_quad, quad_side, square_quad, to_crop
from ops.curate.lessons import HELD_OUT, TRAIN
from ops.curate.sheets import contact_sheet, draw_polygon
from ops.evaluate.features import load_features
from ops.perception.headpose import MIRROR, ZOOM, Head, look_together
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.train.lessons import Lesson, before, head_quad, look_ahead, read_lessons, scenery
from ops.train.loop import numerics
from ops.train.settings import TrainerParams
from ops.train.supervised import LearningParams, learn, publish_network

WHOLE = 0.2  # share of windows that show the whole picture, as a first look does; unpublished: our choice
AWAY = 0.1  # share of windows beside the head, with nobody in them; likewise
BESIDE = 0.6  # of a square's side: a head whose middle is further off than this from a window's is not in it


class TrainHeadposeParams(Params):
    learning: LearningParams = LearningParams(lr=2e-3, weight_decay=0.05)
    windows: int = Field(default=40000, ge=1, description="different ones to learn on")  # unpublished: our choice
    model: HeadPoseConfig = HeadPoseConfig()
    other_background: float = Field(default=0.2, ge=0, le=1, description="share of windows before other pixels")
    cover: float = Field(default=0.1, ge=0, le=1, description="share of windows of which a part is covered")


@stage("train_headpose", TrainHeadposeParams)
def main(s: Stage[TrainHeadposeParams], lessons: Path, weights: Path, out: Path) -> None:
    """Teach a small network where a head is and how it is turned, from any side."""
    p = s.params
    taught, data = read_lessons(lessons / TRAIN)
    trunk = load_features(weights)
    torch.manual_seed(p.learning.seed)
    network = HeadPose(p.model, trunk.network)
    config = {"system": "headpose", "params": p.model_dump(mode="json"), "trunk": trunk.digest}
    with numerics(TrainerParams(threads=p.learning.threads), torch.device("cpu")):
        features, answers = look_ahead(
            s, network, partial(draw, taught, p), p.windows, seed=p.learning.seed, cover=p.cover
        )
    network.normalise(features)
    curves = learn(s, network, partial(loss, features, answers, p.learning.batch), p.learning, config=config, data=data)
    publish_network(s, network, curves, out, config=config, data=data)
    held_out, _ = read_lessons(lessons / HELD_OUT)
    found = look_together([(lesson.picture, None) for lesson in held_out], network)
    s.metrics({"held_out": measure(held_out, found), "last": curves.last()})
    s.preview(_sheet(held_out, found))


def loss(
    features: Tensor, answers: Tensor, batch: int, network: nn.Module, rng: np.random.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Of one batch: is there a head; where, how large and how turned is it."""
    chosen = torch.from_numpy(rng.integers(0, len(features), batch))
    wanted = answers[chosen]
    seen = network.answer(features[chosen])  # type: ignore[operator]
    there = wanted[:, 0]
    presence = F.binary_cross_entropy_with_logits(seen[:, 0], there)
    away = F.smooth_l1_loss(seen[:, 1:], wanted[:, 1:], beta=0.1, reduction="none") * there[:, None]
    place, turn, lean = (away[:, part].sum(1).sum() / there.sum().clamp_min(1) for part in PARTS)
    total = 0.3 * presence + 4 * place + turn + 4 * lean
    return total, {"presence": presence, "place": place, "turn": turn, "lean": lean}


PARTS = (slice(0, 3), slice(3, 5), slice(5, 7))  # of what follows the presence: x, y, size; azimuth; elevation, roll


def draw(lessons: list[Lesson], params: TrainHeadposeParams, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A window of a lesson, (side, side, 3) uint8, and what should be seen in it, (8,) (see models.headpose)."""
    lesson = lessons[rng.integers(len(lessons))]
    quad = draw_window(lesson, rng)
    seen = crop_quad(lesson.picture, quad, params.model.side)
    if lesson.head and rng.random() < params.other_background:
        mask = crop_quad((lesson.classes > 0).view(np.uint8)[..., None] * 255, quad, params.model.side)
        seen = before(seen, mask, scenery(lessons[rng.integers(len(lessons))].picture, params.model.side, rng))
    wanted = answer(lesson, quad)
    return (seen, wanted) if rng.random() < 0.5 else (seen[:, ::-1], wanted * MIRROR)


def draw_window(lesson: Lesson, rng: np.random.Generator) -> np.ndarray:
    """(4, 2) a window as a first look, a later one, or one beside the head has it."""
    size = len(lesson.picture)
    kind = rng.random()
    if kind < WHOLE or not lesson.head:
        middle = size * (0.5 + rng.normal(0, 0.06, 2))
        return square_quad(middle, size * np.exp(rng.uniform(-0.1, 0.8)), np.deg2rad(rng.normal(0, 8)))
    truth = lesson.truth
    side = truth["side"] * size
    centre = np.array([truth["x"], truth["y"]]) * size
    if kind < WHOLE + AWAY:
        direction = rng.uniform(0, 2 * np.pi)
        centre = centre + side * rng.uniform(0.9, 1.5) * np.array([np.cos(direction), np.sin(direction)])
        return square_quad(centre, side * rng.uniform(0.5, 1.0), np.deg2rad(rng.normal(0, 15)))
    centre = centre + side * rng.normal(0, 0.1, 2)
    lean = np.deg2rad(truth["roll"] + rng.normal(0, 12))
    return square_quad(centre, side * ZOOM * np.exp(rng.normal(0, 0.15)), lean)


def answer(lesson: Lesson, quad: np.ndarray) -> np.ndarray:
    """(8,) float32: what the network should say of a window (models.headpose.OUTPUTS), presence as 0 or 1."""
    truth = lesson.truth
    if not lesson.head:
        return np.zeros(8, np.float32)
    size = len(lesson.picture)
    x, y = to_crop(np.array([truth["x"], truth["y"]]) * size, quad) - 0.5
    relative = truth["side"] * size / quad_side(quad)
    across = quad[3] - quad[0]
    turn = np.deg2rad(truth["azimuth"])
    roll = np.deg2rad(truth["roll"]) - np.arctan2(across[1], across[0])
    there = max(abs(x), abs(y)) < BESIDE
    values = [there, x, y, np.log(relative), np.sin(turn), np.cos(turn), np.deg2rad(truth["elevation"]), roll]
    return np.array(values, np.float32)


def measure(lessons: list[Lesson], found: list[Head]) -> dict[str, Any]:
    """Errors on lessons: degrees, and shares of the head's square; by view too."""
    pairs = [(lesson.truth, head, len(lesson.picture)) for lesson, head in zip(lessons, found) if lesson.head]
    azimuth = np.array([abs((head.azimuth - truth["azimuth"] + 180) % 360 - 180) for truth, head, _ in pairs])
    views = np.array([abs(truth["azimuth"]) for truth, _, _ in pairs])
    side = np.array([truth["side"] * size for truth, _, size in pairs])
    off = [np.hypot(*(head.centre - size * np.array([t["x"], t["y"]]))) for t, head, size in pairs]
    nobody = [head.presence for lesson, head in zip(lessons, found) if not lesson.head]
    numbers: dict[str, Any] = {
        "pictures": len(pairs),
        "azimuth_median": np.median(azimuth),
        "azimuth_mean": azimuth.mean(),
        "azimuth_90_percent": np.quantile(azimuth, 0.9),
        "elevation_mean": np.mean([abs(head.elevation - truth["elevation"]) for truth, head, _ in pairs]),
        "roll_mean": np.mean([abs(head.roll - truth["roll"]) for truth, head, _ in pairs]),
        "centre_mean": np.mean(off / side),
        "size_mean": np.mean([abs(np.log(head.side / s)) for (_, head, _), s in zip(pairs, side)]),
        "seen": np.mean([head.presence > 0.5 for _, head, _ in pairs]),
        "nobody_rejected": np.mean(np.array(nobody) < 0.5) if nobody else None,
    }
    for name, low, high in (("front", 0, 45), ("side", 45, 135), ("back", 135, 181)):
        chosen = azimuth[(views >= low) & (views < high)]
        numbers[f"azimuth_median_{name}"] = np.median(chosen) if len(chosen) else None
    return {k: v if v is None or isinstance(v, int) else round(float(v), 4) for k, v in numbers.items()}


def _sheet(lessons: list[Lesson], found: list[Head], shown: int = 32) -> np.ndarray:
    images, captions = [], []
    for number in np.linspace(0, len(lessons) - 1, min(shown, len(lessons))).astype(int):
        lesson, head = lessons[number], found[number]
        image = draw_polygon(lesson.picture, head.quad, (255, 80, 40))
        if lesson.head:
            image = draw_polygon(image, head_quad(lesson.truth, len(image)), (60, 220, 90))
        true = f" ({lesson.truth['azimuth']:+.0f})" if lesson.head else ""
        images.append(image)
        captions.append(f"{head.azimuth:+.0f}{true}" if head.presence > 0.5 else "nobody")
    return contact_sheet(images, captions)


if __name__ == "__main__":
    raise SystemExit(main())
