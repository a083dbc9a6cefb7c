"""Stage ``train_parser``: the network that names each pixel of a head's crop, taught by the studio's truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.parser import Parser, ParserConfig
from ops.curate.crop import crop_quad, from_crop, quad_side, square_quad
from ops.curate.lessons import FACES_TRAIN, HELD_OUT, TRAIN
from ops.curate.sheets import contact_sheet
from ops.perception.parser import FACE, face_place, parse
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store.parsing import CLASSES, coloured, mirrored_classes
from ops.train.lessons import Lesson, before, cut_classes, head_quad, read_lessons, scenery, spoil, to_tensor
from ops.train.supervised import LearningParams, learn, publish_network

TRIES = 50  # lessons drawn for one that shows a face; most do
OPEN = CLASSES.index("mouth")  # its inside, which an open mouth shows
PLACE = 48  # pixels at which a face is looked for


class TrainParserParams(Params):
    learning: LearningParams = LearningParams(batch=16)
    model: ParserConfig = ParserConfig()
    other_background: float = Field(default=0.6, ge=0, le=1, description="share of crops before other pixels")
    cover: float = Field(default=0.0, ge=0, le=1, description="share of crops of which a part is covered")
    faces: float = Field(default=0.75, ge=0, le=1, description="looks at faces for each crop")
    mouths: float = Field(default=0.4, ge=0, le=1, description="share of open mouths among the looks at faces")
    overlap: float = Field(default=1.0, ge=0, description="weight of Dice's overlap beside the cross entropy")
    rare: float = Field(default=0.5, ge=0, le=1, description="weight of a class by its share, to minus this power")


@stage("train_parser", TrainParserParams)
def main(s: Stage[TrainParserParams], lessons: Path, out: Path) -> None:
    """Teach a small network what each pixel of a head's crop shows."""
    p = s.params
    taught, data = read_lessons(lessons / TRAIN)
    faces, more = read_lessons(lessons / FACES_TRAIN) if any((lessons / FACES_TRAIN).glob("*.tar")) else ([], "")
    pictures = Pictures.sorted(taught, faces)
    torch.manual_seed(p.learning.seed)
    network = Parser(p.model)
    config = {"system": "parser", "params": p.model_dump(mode="json")}
    weights = class_weights(pictures.heads, p.rare)
    data += more
    curves = learn(s, network, partial(loss, pictures, weights, p), p.learning, config=config, data=data)
    publish_network(s, network, curves, out, config=config, data=data)
    held_out = [lesson for lesson in read_lessons(lessons / HELD_OUT)[0] if lesson.head]
    crops, true = zip(
        *(_crop(lesson, head_quad(lesson.truth, len(lesson.picture)), p.model.side) for lesson in held_out)
    )
    found = [parse(crop, network) for crop in crops]
    s.metrics({"held_out": measure(true, found), "last": curves.last()})
    s.preview(_sheet(crops, true, found))


@dataclass(frozen=True)
class Pictures:
    """Lessons by what they are for: heads from all sides, faces to look at from nearer, and those with open mouths."""

    heads: list[Lesson]
    faces: list[Lesson]
    mouths: list[Lesson]

    @classmethod
    def sorted(cls, heads: list[Lesson], faces: list[Lesson]) -> Pictures:
        """From lessons of heads from all sides, and further ones about the front."""
        heads = [lesson for lesson in heads if lesson.head]
        faces = heads + faces
        return cls(heads, faces, [lesson for lesson in faces if (lesson.classes == OPEN).any()])

    def one(self, rng: np.random.Generator, *, near: bool, mouths: float) -> Lesson:
        """A lesson at random; among looks from nearer that share has an open mouth, which few faces have."""
        pool = self.heads if not near else self.mouths if self.mouths and rng.random() < mouths else self.faces
        return pool[rng.integers(len(pool))]


def class_weights(lessons: list[Lesson], power: float) -> Tensor:
    """(19,) weights that rise as classes get rarer, mean 1 over the pixels; classes never seen weigh as the rarest."""
    counts = np.sum([np.bincount(lesson.classes.ravel(), minlength=len(CLASSES)) for lesson in lessons], axis=0)
    shares = np.maximum(counts / counts.sum(), 1e-4)
    weights = shares**-power
    return torch.from_numpy(weights / (weights * counts).sum() * counts.sum()).float()


def loss(
    pictures: Pictures, weights: Tensor, params: TrainParserParams, network: Parser, rng: np.random.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Of one batch of crops and one of faces, each looked at by its network."""
    far, right = _loss(pictures, weights, params, network.crop, rng, near=False)
    near, _ = _loss(pictures, weights, params, network.face, rng, near=True)
    return far + near, {"crop": far, "face": near, "right": right}


def _loss(
    pictures: Pictures,
    weights: Tensor,
    params: TrainParserParams,
    network: nn.Module,
    rng: np.random.Generator,
    *,
    near: bool,
) -> tuple[Tensor, Tensor]:
    """How far a batch is from the truth (see misfit), and the share of right pixels."""
    count = max(1, round(params.learning.batch * (params.faces if near else 1)))
    crops, classes = zip(*(draw(pictures, params, rng, near=near) for _ in range(count)))
    wanted = torch.from_numpy(np.stack(classes)).long()
    seen = network(spoil(to_tensor(list(crops)), rng, cover=params.cover))
    right = (seen.detach().argmax(1) == wanted).float().mean()
    return misfit(seen, wanted, weights, params.overlap), right


def misfit(logits: Tensor, wanted: Tensor, weights: Tensor, overlap: float) -> Tensor:
    """Weighted cross entropy, and one minus Dice's overlap in the mean of the classes that are there.

    The overlap counts each class alike, however few pixels it has.

    Args:
        logits: (N, 19, H, W); wanted: (N, H, W) int64 classes; weights: (19,) of the classes in the cross entropy.
        overlap: weight of the second part.
    """
    logs = logits.log_softmax(1)
    share = logs.exp()
    pixels, of_true = wanted.flatten(), share.gather(1, wanted[:, None]).flatten()
    true = pixels.bincount(minlength=len(CLASSES))
    both = share.new_zeros(len(CLASSES)).index_add(0, pixels, of_true)
    dice = ((2 * both + 1) / (share.sum((0, 2, 3)) + true + 1))[true > 0].mean()
    return F.nll_loss(logs, wanted, weight=weights) + overlap * (1 - dice)


def draw(
    pictures: Pictures, params: TrainParserParams, rng: np.random.Generator, *, near: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A crop (side, side, 3) and its classes (side, side), as the stage ``heads`` would cut it, or of the face."""
    model = params.model
    side, share = (model.face_side, model.face_share) if near else (model.side, 1.0)
    for _ in range(TRIES):
        lesson = pictures.one(rng, near=near, mouths=params.mouths)
        quad = head_quad(lesson.truth, len(lesson.picture))
        if not near:
            break
        there = np.isin(cut_classes(lesson.classes, quad, PLACE), FACE).astype(np.float32)
        place = face_place(torch.from_numpy(there), share)
        if place is not None:
            quad = square_quad(from_crop(place, quad), share * quad_side(quad), np.deg2rad(lesson.truth["roll"]))
            break
    size = quad_side(quad)
    centre = quad.mean(0) + size * rng.normal(0, 0.05, 2)
    lean = np.deg2rad(lesson.truth["roll"] + rng.normal(0, 6))
    crop, classes = _crop(lesson, square_quad(centre, size * np.exp(rng.normal(0, 0.12)), lean), side)
    if rng.random() < params.other_background:
        mask = np.where(classes > 0, 255, 0).astype(np.uint8)
        crop = before(crop, mask, scenery(pictures.one(rng, near=False, mouths=0).picture, side, rng))
    if rng.random() < 0.5:
        return crop[:, ::-1], mirrored_classes()[classes[:, ::-1]]
    return crop, classes


def _crop(lesson: Lesson, quad: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    return crop_quad(lesson.picture, quad, side), cut_classes(lesson.classes, quad, side)


def measure(true: Any, found: Any) -> dict[str, Any]:
    """Share of right pixels, and intersection over union of each class that occurs."""
    confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for t, f in zip(true, found):
        np.add.at(confusion, (t.ravel(), f.ravel()), 1)
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    occurs = confusion.sum(1) > 0
    ious = {name: round(float(hits[i] / union[i]), 4) for i, name in enumerate(CLASSES) if occurs[i]}
    person = confusion[1:, 1:].sum() / (confusion.sum() - confusion[0, 0])
    return {
        "pictures": len(true),
        "right": round(float(hits.sum() / confusion.sum()), 4),
        "person_iou": round(float(person), 4),
        "mean_iou": round(float(np.mean(list(ious.values()))), 4),
        "iou": ious,
    }


def _sheet(crops: Any, true: Any, found: Any, shown: int = 16) -> np.ndarray:
    images: list[np.ndarray] = []
    for number in np.linspace(0, len(crops) - 1, min(shown, len(crops))).astype(int):
        images += [crops[number], coloured(true[number]), coloured(found[number])]
    return contact_sheet(images, ["picture", "truth", "network"] * (len(images) // 3), columns=9)


if __name__ == "__main__":
    raise SystemExit(main())
