"""A talking video: a clip's face drives a generated character."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from models.portrait import Latents
from ops.apply.pictures import Film
from ops.apply.portraits import Portraits, head_turn
from ops.fit.clips import TrackClipsParams, track
from ops.runtime.errors import LineamentError
from ops.runtime.progress import Reporter
from ops.store.clips import decode_clip, frame_rate


def reenact_portrait(arguments: argparse.Namespace) -> int:
    """``lineament reenact-portrait``: track expression and head of a clip, smooth, and let a character do the same."""
    if not arguments.clip.is_file():
        raise LineamentError(f"{arguments.clip}: no such file.")
    portraits = Portraits(arguments.checkpoint, arguments.priors, arguments.device)
    data = arguments.clip.read_bytes()
    params = TrackClipsParams.model_validate({})
    rows = drive(track(data, arguments.clip.stem, params, arguments.weights), arguments.clip)
    latents, words = portraits.out_of_range(asked(portraits, arguments.seed, rows), clamp=arguments.clamp)
    for line in words:
        print(f"mind: {line}{'; clamped' if arguments.clamp else '; --clamp brings them back'}")
    label = portraits.camera(arguments.azimuth)
    frames = list(decode_clip(data))
    with Film(arguments.out, frame_rate(data)) as film:
        for n, row in enumerate(Reporter("reenact").progress(rows, unit="frame")):
            picture = portraits.render(latents[n : n + 1], label, truncation=arguments.truncation)[0]
            side = max(256, picture.shape[0])
            film.add(beside(frames[row["frame"]], cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)))
    kept_sound = add_sound(arguments.clip, arguments.out)
    print(f"{arguments.out}: {len(rows)} of {len(frames)} frames{'' if kept_sound else ', without sound'}")
    return 0


def drive(rows: Sequence[dict[str, Any]], clip: Path) -> list[dict[str, Any]]:
    """The tracked frames of the longest shot, in order; of several shots the others are left out, and that is said.

    Raises:
        LineamentError: nobody was tracked; says what became of the frames.
    """
    kept = [row for row in rows if row["kept"]]
    if not kept:
        why = sorted({str(row["reason"]) for row in rows})
        raise LineamentError(
            f"{clip}: no frame can drive a portrait ({', '.join(why)}). Give a clip of one facing person."
        )
    shots: dict[int, list[dict[str, Any]]] = {}
    for row in kept:
        shots.setdefault(row["shot"], []).append(row)
    longest = max(shots.values(), key=len)
    if len(shots) > 1:
        print(f"mind: {clip} has {len(shots)} shots; the longest, of {len(longest)} frames, drives the portrait")
    missed = longest[-1]["frame"] - longest[0]["frame"] + 1 - len(longest)
    if missed:
        print(f"mind: {missed} frames within the shot could not be tracked and are left out")
    return longest


def asked(portraits: Portraits, seed: int, rows: Sequence[dict[str, Any]]) -> Latents:
    """The character of a seed, once a frame, with the frames' expressions and head turns."""
    own, _ = portraits.characters([seed])
    count = len(rows)
    same = Latents(*(part.expand(count, *[-1] * (part.ndim - 1)) for part in vars(own).values()))
    expression = torch.tensor([row["expression"] for row in rows], dtype=torch.float32)
    pose = torch.from_numpy(head_turn(np.array([row["pose"] for row in rows]))).float()
    return replace(same, expression=expression.to(own.noise), pose=pose.to(own.noise))


def beside(frame: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """The driving frame, at the picture's height, left of the picture."""
    height = picture.shape[0]
    width = round(frame.shape[1] * height / frame.shape[0])
    return np.concatenate([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), picture], axis=1)


def add_sound(clip: Path, out: Path) -> bool:
    """Put the clip's sound under a video, where ffmpeg is installed and there is sound. Whether it was done."""
    program = shutil.which("ffmpeg")
    if program is None:
        return False
    part = out.with_name(out.name + ".sound.mp4")
    words = [program, "-v", "error", "-y", "-i", str(out), "-i", str(clip)]
    words += ["-map", "0:v:0", "-map", "1:a:0", "-c:v", "copy", "-shortest", str(part)]
    done = subprocess.run(words, check=False, capture_output=True).returncode == 0
    if done:
        part.replace(out)
    part.unlink(missing_ok=True)
    return done
