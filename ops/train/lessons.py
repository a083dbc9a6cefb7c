"""The studio's lessons in memory: pictures with truth, and windows of them as a network may meet them.

What a rendered picture is not, a photo is: other light, other grain, other surroundings. So each window is changed at
random: mirrored, turned, framed otherwise, before another background, with other colours, less sharp, partly covered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from ops.curate.crop import crop_quad, square_quad
from ops.runtime.errors import LineamentError
from ops.runtime.stage import Stage
from ops.store import pictures
from ops.store.tar import Shard, shard_paths

NOBODY = -1
TOGETHER = 50  # windows through frozen layers at once: bounds memory
CLEAN = 0.6  # share of crops left as they were rendered; unpublished: our choice


@dataclass(frozen=True)
class Lesson:
    """A picture (S, S, 3) uint8, its classes (S, S) uint8, and what is known of the head (see ops.curate.lessons)."""

    picture: np.ndarray
    classes: np.ndarray
    truth: dict[str, Any]

    @property
    def head(self) -> bool:
        """Whether there is a person in it."""
        return self.truth["identity"] != NOBODY


def read_lessons(folder: Path) -> tuple[list[Lesson], str]:
    """All lessons of a folder, and the hash of its shards.

    Raises:
        LineamentError: there are none.
    """
    lessons, total = [], hashlib.sha256()
    for path in shard_paths(folder):
        shard = Shard(path)
        total.update(shard.sha256.encode())
        for _, fields in shard.samples():
            picture, classes = pictures.decode(fields["jpg"]), pictures.decode_grey(fields["parsing.png"])
            lessons.append(Lesson(picture, classes, json.loads(fields["json"])))
    if not any(lesson.head for lesson in lessons):
        raise LineamentError(f"{folder}: no lesson shows a person. `dvc repro lessons` renders them again.")
    return lessons, total.hexdigest()


def head_quad(truth: dict[str, Any], size: int) -> np.ndarray:
    """(4, 2) true square around the head, pixels."""
    return square_quad(np.array([truth["x"], truth["y"]]) * size, truth["side"] * size, np.deg2rad(truth["roll"]))


def cut_classes(image: np.ndarray, quad: np.ndarray, size: int) -> np.ndarray:
    """crop_quad for class numbers: each pixel takes one class, none is mixed."""
    step = np.stack([quad[3] - quad[0], quad[1] - quad[0]], axis=1) / size
    matrix = np.concatenate([step, (quad[0] + step @ [0.5, 0.5] - 0.5)[:, None]], axis=1)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def before(person: np.ndarray, mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The person of a crop (S, S, 3), by its mask (S, S) uint8, before another picture's pixels."""
    share = mask.astype(np.uint16)[..., None]
    return ((person * share + other * (255 - share) + 127) // 255).astype(np.uint8)


def scenery(picture: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, size, 3) a small part of a picture, enlarged and turned about, so that no head is seen in it."""
    side = len(picture) * rng.uniform(0.15, 0.5)
    centre = rng.uniform(side / 2, len(picture) - side / 2, 2)
    return crop_quad(picture, square_quad(centre, side, rng.uniform(0, 2 * np.pi)), size)


def spoil(images: Tensor, rng: np.random.Generator, *, cover: float, clean: float = CLEAN) -> Tensor:
    """Change colours, sharpness and grain of (N, 3, S, S) pictures in [-1, 1]; cover a part of some.

    Args:
        cover: share of the pictures of which a part is covered.
        clean: share left as they are, but for that.
    """
    n, _, side, _ = images.shape
    as_it_is = torch.from_numpy(rng.random(n) < clean)[:, None, None, None]

    def draw(*shape: int) -> Tensor:
        return torch.from_numpy(rng.random(shape, dtype=np.float32))

    gain = torch.exp((draw(n, 1, 1, 1) - 0.5) * 0.6 + (draw(n, 3, 1, 1) - 0.5) * 0.25)
    gamma = torch.exp((draw(n, 1, 1, 1) - 0.5) * 0.6)
    x = ((images + 1) / 2 * gain).clamp(1e-4, 1) ** gamma
    grey = x.mean(1, keepdim=True)
    keep = torch.where(draw(n, 1, 1, 1) < 0.15, torch.zeros(()), 0.4 + 0.9 * draw(n, 1, 1, 1))
    x = grey + (x - grey) * keep
    soft = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    x = torch.lerp(x, soft, (draw(n, 1, 1, 1) * 1.6 - 0.6).clamp_min(0))
    x = x + 0.1 * draw(n, 1, 1, 1) * (draw(*x.shape) - 0.5)
    x = torch.where(as_it_is, images, x.clamp(0, 1) * 2 - 1)
    for number in np.flatnonzero(rng.random(n) < cover):
        high, wide = rng.integers(side // 8, side // 3, 2)
        top, left = rng.integers(0, side - high), rng.integers(0, side - wide)
        x[number, :, top : top + high, left : left + wide] = draw(3, 1, 1) * 2 - 1
    return x


def to_tensor(images: list[np.ndarray]) -> Tensor:
    """(H, W, 3) uint8 pictures to (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


class Looks(Protocol):
    """A network whose first layers are frozen."""

    def features(self, window: Tensor, /) -> Tensor:
        """(N, 3, side, side) windows in [-1, 1] to what these layers see."""


def look_ahead(
    s: Stage[Any],
    network: Looks,
    draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]],
    count: int,
    *,
    seed: int,
    cover: float,
    clean: float = CLEAN,
) -> tuple[Tensor, Tensor]:
    """Windows as a network's frozen layers see them, which is the same in every step: (N, C, h, w), and their answers.

    Args:
        s: the stage, for its progress.
        network: whose frozen layers look.
        draw: makes a window (side, side, 3) uint8 and what should be seen in it, (A,) float32.
        count: of windows.
        seed: of what is drawn.
        cover: share of the windows of which a part is covered.
        clean: share of the windows left as they are, but for that.
    """
    features, answers = [], []
    for first in s.progress(range(0, count, TOGETHER), desc="windows", unit="batch"):
        rng = np.random.default_rng([seed, 1, first])
        windows, wanted = zip(*(draw(rng) for _ in range(min(TOGETHER, count - first))))
        with torch.inference_mode():
            features.append(network.features(spoil(to_tensor(list(windows)), rng, cover=cover, clean=clean)))
        answers.append(torch.from_numpy(np.stack(wanted)))
    return torch.cat(features).clone(), torch.cat(answers)
