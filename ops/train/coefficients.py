"""Stage ``train_coefficients``: a network that reads identity and expression off faces, taught by the studio's truth.

Two of them, of half of the people each: ``teacher`` stands behind the landmark loss of AniPortraitGAN's training,
``judge`` reads the codes of generated faces again when they are evaluated. What a generator has learnt to make the one
say, it has not learnt to make the other say.

Both begin where :mod:`ops.train.coefficients_start` left them, likewise of other people each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.coefficients import Coefficients, CoefficientsConfig
from models.parametric.person import IDENTITY, Person, load_person
from ops.curate.crop import crop_quad, square_quad
from ops.curate.lessons import FACES_HELD_OUT, FACES_TRAIN, TRAIN
from ops.curate.sheets import contact_sheet
from ops.perception.facemesh_layers import layers
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store.tar import file_sha256
from ops.train import coefficients_start
from ops.train.lessons import Lesson, before, head_quad, look_ahead, read_lessons, to_tensor
from ops.train.loop import numerics
from ops.train.settings import TrainerParams
from ops.train.supervised import LearningParams, learn, publish_network

ROLES = ("teacher", "judge")
MILLIMETRES = 1000 / 2.7  # in a world unit
VARIES = 0.02  # deviation above which a code counts as one that the lessons teach; unpublished: our choice
LARGEST = 10  # identity codes that move landmarks most: the principal components come in order
COARSE = 32  # pixels across the coarse faces that a reader is measured on, too


class TrainCoefficientsParams(Params):
    learning: LearningParams = LearningParams(lr=2e-3, weight_decay=0.05)
    start: bool = Field(default=True, description="begin with what other people of the studio taught, where it fits")
    windows: int = Field(default=40000, ge=1, description="different ones to learn on")  # unpublished: our choice
    side: int = Field(default=96, ge=16, description="of the windows, pixels")  # unpublished: our choice
    model: CoefficientsConfig = CoefficientsConfig()
    azimuth: float = Field(default=50, ge=0, description="degrees to which other lessons count as faces")  # our choice
    clean: float = Field(default=0.6, ge=0, le=1, description="share of windows with their own colours and grain")
    coarsest: int = Field(default=24, ge=8, description="pixels across the coarsest faces")  # our choice


class Mirror(NamedTuple):
    """How codes change when a picture is mirrored: ``identity @ matrix + offset``, and units change sides."""

    matrix: np.ndarray
    offset: np.ndarray
    units: np.ndarray

    @classmethod
    def of(cls, people: Person) -> Self:
        """Of a parametric model: the codes that come nearest to mirrored heads."""
        codes = torch.cat([torch.zeros(1, IDENTITY), torch.eye(IDENTITY)])
        flipped = people.vertices(codes)[:, people.mirror] * torch.tensor([-1.0, 1.0, 1.0])
        found = people.encode(flipped)[0].numpy()
        names = people.expression_names
        other = [_other_side(name) for name in names]
        units = np.array([names.index(o) if o in names else n for n, o in enumerate(other)])
        return cls(found[1:] - found[0], found[0], units)

    def codes(self, identity: np.ndarray, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes (80,) and (52,) of the mirrored face."""
        return identity @ self.matrix + self.offset, expression[self.units]


def _other_side(name: str) -> str:
    if name.endswith("Left"):
        return name.removesuffix("Left") + "Right"
    return name.removesuffix("Right") + "Left" if name.endswith("Right") else name


@stage("train_coefficients", TrainCoefficientsParams)
def main(s: Stage[TrainCoefficientsParams], lessons: Path, weights: Path, out: Path, *, role: str = ROLES[0]) -> None:
    """Teach a small network to read identity and expression codes off faces."""
    p = s.params
    if role not in ROLES:
        raise LineamentError(f"train_coefficients has no role {role!r}; choose {' or '.join(ROLES)}.")
    (faces, data), (others, more) = (read_lessons(lessons / part) for part in (FACES_TRAIN, TRAIN))
    everyone = faces + [one for one in others if one.head and abs(one.truth["azimuth"]) <= p.azimuth]
    taught = [lesson for lesson in everyone if lesson.truth["identity"] % 2 == ROLES.index(role)]
    if not taught:
        raise LineamentError(f"{lessons}: no face for the {role} to learn on. Raise lessons.people or lessons.faces.")
    people = load_person()
    torch.manual_seed(p.learning.seed + ROLES.index(role))
    network = Coefficients(p.model, layers(weights))
    started = p.start and coefficients_start.fill(network, role)
    seed = 2 * p.learning.seed + ROLES.index(role)
    config: dict[str, Any] = {"system": "coefficients", "role": role, "params": p.model_dump(mode="json")}
    config |= {"start": file_sha256(coefficients_start.START) if started else None}
    mirror = Mirror.of(people)
    with numerics(TrainerParams(threads=p.learning.threads), torch.device("cpu")):
        seen, answers = look_ahead(
            s, network, partial(draw, taught, mirror, p), p.windows, seed=seed, cover=0.0, clean=p.clean
        )
    if not started:
        network.measure(seen, answers)
    basis = landmark_basis(people)
    weight = code_weights(network, basis)
    lesson = partial(loss, seen, answers, weight, basis, p.learning.batch)
    curves = learn(s, network, lesson, p.learning, config=config, data=data + more)
    publish_network(s, network, curves, out, config=config, data=data + more)
    held_out, _ = read_lessons(lessons / FACES_HELD_OUT)
    windows = [face_of(lesson, head_quad(lesson.truth, len(lesson.picture)), p.side) for lesson in held_out]
    true = torch.from_numpy(np.stack([np.concatenate(codes_of(lesson)) for lesson in held_out]))
    found, coarse = (
        _answers(network, [coarsen(w, pixels) for w in windows]) for pixels in (p.side, min(COARSE, p.side))
    )
    names = people.expression_names
    s.metrics(
        {
            "taught": len(taught),
            "held_out": measure(true, found, network.middle, basis, names),
            "held_out_coarse": measure(true, coarse, network.middle, basis, names),
            "last": curves.last(),
        }
    )
    s.preview(_sheet(windows, people, true, found))


@torch.inference_mode()
def _answers(network: Coefficients, faces: list[np.ndarray]) -> Tensor:
    return torch.cat(network(to_tensor(faces)), dim=1)


def coarsen(face: np.ndarray, pixels: int) -> np.ndarray:
    """A face (side, side, 3) as it looks at so many pixels, at its own size."""
    side = len(face)
    if pixels >= side:
        return face
    coarse = cv2.resize(face, (pixels, pixels), interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)


def codes_of(lesson: Lesson) -> tuple[np.ndarray, np.ndarray]:
    """True identity (80,) and expression (52,) of a face."""
    codes = lesson.truth["codes"]
    return np.array(codes["identity"], np.float32), np.array(codes["expression"], np.float32)


def face_of(lesson: Lesson, quad: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) the window of a lesson before white, as the generator's face camera shows people."""
    mask = crop_quad((lesson.classes > 0).view(np.uint8)[..., None] * 255, quad, side)
    return before(crop_quad(lesson.picture, quad, side), mask, np.full((side, side, 3), 255, np.uint8))


def draw(
    lessons: list[Lesson], mirror: Mirror, params: TrainCoefficientsParams, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A face as a generator might draw it, (side, side, 3) uint8, coarser or finer, and its codes (132,) float32."""
    lesson = lessons[rng.integers(len(lessons))]
    size, truth = len(lesson.picture), lesson.truth
    centre = np.array([truth["x"], truth["y"]]) * size + truth["side"] * size * rng.normal(0, 0.02, 2)
    lean = np.deg2rad(truth["roll"] + rng.normal(0, 2))
    face = face_of(lesson, square_quad(centre, truth["side"] * size * np.exp(rng.normal(0, 0.03)), lean), params.side)
    pixels = np.exp(rng.uniform(np.log(min(params.coarsest, params.side)), np.log(params.side)))
    face = coarsen(face, round(pixels))
    codes = codes_of(lesson)
    if rng.random() < 0.5:
        face, codes = face[:, ::-1], mirror.codes(*codes)
    return face, np.concatenate(codes).astype(np.float32)


def landmark_basis(people: Person) -> Tensor:
    """(132, 68, 3) what a unit of each code moves the landmarks by, millimetres."""
    units = torch.cat([people.identity_basis, people.expression_basis])
    return units[:, people.landmarks68] * MILLIMETRES


def code_weights(network: Coefficients, basis: Tensor) -> Tensor:
    """(132,) what a deviation of each code weighs: about 1 in the mean of those that matter, 0 where a code is still.

    Identities weigh by how far they move the landmarks, which Equation 9 will compare. Expressions weigh by how much
    they vary, for a look moves no landmark.
    """
    varies = network.width > VARIES
    millimetres = basis.square().sum(-1).mean(1).sqrt() * network.width
    units = network.width[IDENTITY:]
    counted = units[varies[IDENTITY:]]
    parts = (
        millimetres[:IDENTITY] / millimetres[:LARGEST].mean().clamp_min(1e-6),
        units / (counted.mean() if len(counted) else 1),
    )
    return torch.cat(parts) * varies


def loss(
    features: Tensor, answers: Tensor, weight: Tensor, basis: Tensor, batch: int, network: nn.Module,
    rng: np.random.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Of one batch: squared errors of the codes in deviations, weighed; beside it the error of their landmarks."""
    assert isinstance(network, Coefficients)
    chosen = torch.from_numpy(rng.integers(0, len(features), batch))
    wanted, seen = answers[chosen], network.read(features[chosen])
    total = (weight * (seen - (wanted - network.middle) / network.width.clamp_min(VARIES)).square()).mean()
    with torch.no_grad():
        wrong = torch.tensordot(network.middle + network.width * seen - wanted, basis, 1)
    return total, {"codes": total, "landmarks_mm": wrong.norm(dim=-1).mean()}


def measure(true: Tensor, found: Tensor, middle: Tensor, basis: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Errors on faces of people who were not in the lessons, beside those of always answering with the mean.

    Args:
        true, found: (N, 132) codes. middle: (132,) mean of the lessons. basis: from :func:`landmark_basis`.
        names: of the expression units.

    Returns:
        correlations of the codes about their means, all together and ``units`` one by one; errors of codes; landmarks.
    """
    units = [n for n in range(len(names)) if true[:, IDENTITY + n].std() > VARIES]
    numbers: dict[str, Any] = {"pictures": len(true), "expression_units": len(units)}
    parts = {
        "expression": [IDENTITY + n for n in units],
        "identity": list(range(IDENTITY)),
        "identity_largest": list(range(LARGEST)),
    }
    for name, part in parts.items():
        numbers[f"{name}_correlation"] = _correlation(true[:, part], found[:, part])
        numbers[f"{name}_error"] = float((found[:, part] - true[:, part]).abs().mean())
    for name, answer in (("landmarks_mm", found), ("landmarks_mm_mean_face", middle.expand_as(true))):
        numbers[name] = float(torch.tensordot(answer - true, basis, 1).norm(dim=-1).mean())
    numbers = {key: value if isinstance(value, int) else round(value, 4) for key, value in numbers.items()}
    places = {names[n]: IDENTITY + n for n in units}
    numbers["units"] = {name: round(_correlation(true[:, [k]], found[:, [k]]), 3) for name, k in places.items()}
    return numbers


def _correlation(true: Tensor, found: Tensor) -> float:
    """Of codes (N, K), each about its own mean."""
    t, f = ((codes - codes.mean(0)).flatten() for codes in (true, found))
    return float(F.cosine_similarity(t, f, dim=0))


def _sheet(faces: list[np.ndarray], people: Person, true: Tensor, found: Tensor, shown: int = 16) -> np.ndarray:
    images: list[np.ndarray] = []
    for number in np.linspace(0, len(faces) - 1, min(shown, len(faces))).astype(int):
        drawing = np.full((128, 128, 3), 255, np.uint8)
        for codes, colour in ((true, (60, 160, 90)), (found, (230, 90, 40))):
            one = codes[number : number + 1]
            points = people.vertices(one[:, :IDENTITY], one[:, IDENTITY:])[0, people.landmarks68, :2].numpy()
            for x, y in points:
                cv2.circle(
                    drawing, (round(64 + 150 * float(x)), round(64 - 150 * float(y))), 1, colour, -1, cv2.LINE_AA
                )
        images += [cv2.resize(faces[number], (128, 128), interpolation=cv2.INTER_CUBIC), drawing]
    return contact_sheet(images, ["face", "true, found"] * (len(images) // 2), columns=8)


if __name__ == "__main__":
    raise SystemExit(main())
