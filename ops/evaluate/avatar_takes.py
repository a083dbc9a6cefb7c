"""Clips to judge avatars by: people that training has not seen, what was tracked of them, and what the studio knows.

The studio films them from a seed of its own. Their frames go through the same tracking as any clip; the truth of their
expressions, and how they look from where no frame was taken, is kept apart. Clips of real people come from shards of
clips, without such truth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from models.camera import spherical_angles, unpack_label
from ops.apply.cameras import orbit
from ops.apply.source import CHIP, Frame, SourceParams, clip_frames
from ops.evaluate.held_out import SEED
from ops.evaluate.identity import Recogniser, load_recogniser
from ops.runtime.errors import LineamentError
from ops.store.clips import encode_clip
from ops.store.pictures import decode, resize
from ops.store.reader import ShardDataset
from ops.train.export import read_config
from ops.train.footage import Footage

T = TypeVar("T")
FILMED = 192  # pixels of the studio's frames at least: smaller faces cannot be tracked; unpublished: our choice
SMALLEST = 16  # pixels: only the records are read
RATE = 4.0  # frames a second: fewer than films have, so that few frames show much; unpublished: our choice


@dataclass(frozen=True)
class Unseen:
    """One moment of a take from cameras that took no frame: pictures (V, S, S, 3), masks (V, S, S) uint8, cameras
    (V, 25), and the fitted expression (52,) of that moment."""

    pictures: np.ndarray
    masks: np.ndarray
    cameras: np.ndarray
    expression: np.ndarray


@dataclass(frozen=True)
class Take:
    """Frames of one person in motion.

    Attributes:
        name: of the clip.
        frames: fitted frames, all usable, in order.
        expressions: (F, 52) true face units; None where nobody knows them.
        unseen: other views of the first frame; None where there are none.
    """

    name: str
    frames: list[Frame] = field(repr=False)
    expressions: np.ndarray | None = field(default=None, repr=False)
    unseen: Unseen | None = field(default=None, repr=False)

    def split(self, share: float = 2 / 3) -> tuple[list[int], list[int]]:
        """Numbers of the frames to build from, and of those to be judged by (section 4.2.3: 200 and 100 of 300)."""
        cut = max(1, min(len(self.frames) - 1, round(len(self.frames) * share)))
        return list(range(cut)), list(range(cut, len(self.frames)))


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the items, evenly."""
    picks = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[n] for n in picks]


def studio_takes(
    count: int, frames: int, side: int, weights: Path, unseen: Sequence[float] = (), seed: int = SEED
) -> list[Take]:
    """``count`` people who talk, one clip each; people whose clip could not be tracked are left out.

    Args:
        frames: of each clip.
        side: of the crops in pixels.
        weights: folder of the labelling networks.
        unseen: degrees to either side of the first frame's azimuth from which it is shown once more.
        seed: of the people.
    """
    from ops.studio.crawl import Studio
    from ops.studio.params import StudioParams
    from ops.studio.render import photograph

    size = max(FILMED, side)
    params = StudioParams(
        people=count, views=1, size=size, seed=seed, clips=count, clip_frames=frames, clip_size=size, clip_fps=RATE
    )
    studio = Studio(params)
    reading = SourceParams.model_validate({"frames": frames})
    recogniser = load_recogniser("dlib_128d")
    found = []
    for person in range(count):
        film = list(studio.film(person, person))
        data = encode_clip((shot.picture for _, shot in film), RATE)
        tracked = clip_frames(data, f"person {person}", side, weights, reading, recogniser)
        good = [n for n, frame in enumerate(tracked) if frame.reason is None]
        if len(good) < 2:
            continue
        view, avatar = film[good[0]][0], studio.avatar(person)
        shots = [photograph(studio.model, avatar, replace(view, camera=c)) for c in around(view.camera, unseen)]
        first = tracked[good[0]]
        assert first.expression is not None
        others = Unseen(
            np.stack([resize(shot.picture, side) for shot in shots]),
            np.stack([resize(shot.mask, side) for shot in shots]),
            around(view.camera, unseen),
            first.expression,
        ) if unseen else None  # fmt: skip
        expressions = np.stack([film[n][0].expression for n in good])
        found.append(Take(f"person {person}", [tracked[n] for n in good], expressions, others))
    if not found:
        raise LineamentError(
            f"of {count} held-out clips of {frames} frames none could be tracked; raise evaluate_avatar.clip_frames."
        )
    return found


def around(camera: np.ndarray, degrees: Sequence[float]) -> np.ndarray:
    """(V, 25) cameras about the head at the data's distance, turned from where a camera (25,) stands."""
    import torch

    pose, _ = unpack_label(torch.from_numpy(np.asarray(camera, np.float32))[None])
    azimuth, elevation, _ = (float(torch.rad2deg(value)[0]) for value in spherical_angles(pose))
    views = [orbit(azimuth + turn, elevation).numpy() for turn in degrees]
    return np.concatenate(views) if views else np.zeros((0, 25), np.float32)


def untrained_clips(shards: Path, encoders: Mapping[str, Path]) -> list[int]:
    """Numbers of the clips in a folder of shards that none of the encoders has learnt from.

    Those trained on clips hold the last ones back, as :meth:`ops.train.footage.Footage.split` says. Where they were
    trained on other shards than these, no clip can be said to be new to them. Pictures of the same people may have
    been trained on, by these and by the generator.

    Args:
        encoders: name to folder of a checkpoint.
    """
    footage = Footage(shards, SMALLEST)
    left = set(footage.numbers)
    for record in map(read_config, encoders.values()):
        if "clips" in record:
            trained, held_out = footage.split(record["params"]["objective"]["held_out"])
            left &= set(held_out.numbers) if trained.hash == record["clips"] else set()
    return sorted(left)


def shard_takes(shards: Path, numbers: Sequence[int], frames: int, side: int) -> list[Take]:
    """Clips of a folder of shards by number, with at most ``frames`` frames each, evenly."""
    if not numbers:
        return []
    dataset, recogniser = ShardDataset(shards), load_recogniser("dlib_128d")
    return [_of_shard(dataset, n, frames, side, recogniser) for n in numbers]


def _of_shard(data: ShardDataset, number: int, frames: int, side: int, recogniser: Recogniser) -> Take:
    fields = data.read(number)
    label = json.loads(fields["json"])
    taken = []
    for n in spread(range(len(label["frames"])), frames):
        picture = decode(fields[f"f{n:04d}.jpg"])
        codes = {"expression": label["expression"][n], "camera": label["camera"][n], "identity": label["identity"]}
        known = {name: np.array(values, np.float32) for name, values in codes.items()}
        who = recogniser.embed([resize(picture, CHIP)])[0]
        name = f"{data.key(number)}#{label['frames'][n]}"
        taken.append(Frame(name, None, resize(picture, side), **known, residual=label["residual"][n], who=who))
    return Take(data.key(number), taken)
