"""A talking video: a clip's face drives a generated character."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from models.portrait import Latents
from ops.apply.pictures import Film
from ops.apply.portraits import Portraits, head_turn
from ops.apply.source import WORDS
from ops.fit.clips import TrackClipsParams, track
from ops.runtime.errors import LineamentError
from ops.runtime.progress import Reporter
from ops.store.clips import decode_clip, frame_rate
from ops.store.sound import lay_sound


def reenact_portrait(arguments: argparse.Namespace) -> int:
    """``lineament reenact-portrait``: track expression and head of a clip, smooth, and let a character do the same."""
    if not arguments.clip.is_file():
        raise LineamentError(f"{arguments.clip}: no such file.")
    portraits = Portraits(arguments.checkpoint, arguments.priors, arguments.device, arguments.precision)
    data = arguments.clip.read_bytes()
    params = TrackClipsParams.model_validate({})
    rows = drive(track(data, arguments.clip.stem, params, arguments.weights), arguments.clip)
    latents, words = portraits.out_of_range(asked(portraits, arguments.seed, rows), clamp=arguments.clamp)
    for line in words:
        print(f"mind: {line}{'; clamped' if arguments.clamp else '; --clamp brings them back'}")
    frames, rate = list(decode_clip(data)), frame_rate(data)
    first = rows[0]["frame"]
    shown = acted(portraits, latents, portraits.camera(arguments.azimuth), arguments.truncation)
    with Film(arguments.out, rate) as film:
        for number, picture in enumerate(Reporter("reenact").progress(shown, total=len(rows), unit="frame")):
            film.add(beside(frames[first + number], picture))
    silent = lay_sound(arguments.clip, arguments.out, first / rate)
    print(f"{arguments.out}: {len(rows)} of {len(frames)} frames{f', without sound: {silent}' if silent else ''}")
    return 0


def drive(rows: Sequence[dict[str, Any]], clip: Path) -> list[dict[str, Any]]:
    """The frames of the longest shot, one after the other; of several shots the others are left out, and that is said.

    A frame that could not be tracked holds the one before it, so that the video keeps the clip's time, and its sound.

    Raises:
        LineamentError: nobody was tracked; says what became of the frames.
    """
    kept = [row for row in rows if row["kept"]]
    if not kept:
        fallen = Counter(str(row["reason"]) for row in rows)
        parts = [f"{count} of {len(rows)}: {WORDS.get(reason, reason)}" for reason, count in fallen.most_common()]
        raise LineamentError(
            f"{clip}: no frame can drive a face ({'; '.join(parts)}). Give a clip of one facing person."
        )
    shots: dict[int, list[dict[str, Any]]] = {}
    for row in kept:
        shots.setdefault(row["shot"], []).append(row)
    longest = max(shots.values(), key=len)
    if len(shots) > 1:
        print(f"mind: {clip} has {len(shots)} shots; the longest, of {len(longest)} frames, drives")
    held: list[dict[str, Any]] = []
    for row in longest:
        while held and held[-1]["frame"] + 1 < row["frame"]:
            held.append({**held[-1], "frame": held[-1]["frame"] + 1})
        held.append(row)
    if len(held) > len(longest):
        print(f"mind: {len(held) - len(longest)} frames within the shot could not be tracked and hold the one before")
    return held


def asked(portraits: Portraits, seed: int, rows: Sequence[dict[str, Any]]) -> Latents:
    """The character of a seed, once a frame, with the frames' ``expression`` (52,) and ``pose`` (6,)."""
    own, _ = portraits.characters([seed])
    count = len(rows)
    same = Latents(*(part.expand(count, *[-1] * (part.ndim - 1)) for part in vars(own).values()))
    expression = torch.tensor([row["expression"] for row in rows], dtype=torch.float32)
    if expression.shape[1] != own.expression.shape[1]:
        raise LineamentError(
            f"{portraits.folder}: speaks {own.expression.shape[1]} expression units, where the clip was tracked with "
            f"{expression.shape[1]}. Track it with the parametric model of the portraits' training."
        )
    pose = torch.from_numpy(head_turn(np.array([row["pose"] for row in rows]))).float()
    return replace(same, expression=expression.to(own.noise), pose=pose.to(own.noise))


def acted(portraits: Portraits, latents: Latents, label: Tensor, truncation: float) -> Iterator[np.ndarray]:
    """A picture (S, S, 3) uint8 of each of N frames, at least 256 pixels large, by one camera (1, 25)."""
    for number in range(len(latents.noise)):
        picture = portraits.render(latents[number : number + 1], label, truncation=truncation)[0]
        side = max(256, len(picture))
        yield cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)


def beside(frame: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """The driving frame, at the picture's height, left of the picture."""
    height = picture.shape[0]
    width = round(frame.shape[1] * height / frame.shape[0])
    how = cv2.INTER_AREA if frame.shape[0] > height else cv2.INTER_CUBIC
    return np.concatenate([cv2.resize(frame, (width, height), interpolation=how), picture], axis=1)
