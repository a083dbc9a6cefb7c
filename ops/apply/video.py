"""Videos of one head: a turntable or a path through key frames; picture, depth, normals and parsing side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from models.headcache import HeadCache
from ops.apply.cameras import key_of, path, swing, turntable
from ops.apply.heads import Heads
from ops.apply.pictures import Film, panels
from ops.apply.saved_avatars import Avatar, Posed, is_avatar, load_avatar
from ops.runtime.progress import Reporter

SWING = 40.0  # degrees to either side: avatars of faces have no back of the head; unpublished: our choice


def video(arguments: argparse.Namespace) -> int:
    """``lineament video``: an mp4 of one identity, or of an avatar with a neutral face."""
    if is_avatar(arguments.checkpoint):
        return _video_of_avatar(arguments)
    heads = Heads(arguments.checkpoint, arguments.device)
    labels = camera_path(arguments)
    ws = heads.identity(arguments.seed, arguments.truncation, arguments.cutoff)
    cache = heads.cache(ws, not arguments.every_sample, arguments.precision)
    frames = Reporter("video").progress(labels.split(1), unit="frame")
    film(heads, cache, frames, arguments.out, arguments.show, arguments.side, arguments.rate)
    print(f"{len(labels)} frames in {arguments.out}")
    return 0


def _video_of_avatar(arguments: argparse.Namespace) -> int:
    avatar = load_avatar(arguments.checkpoint, device=arguments.device)
    labels = camera_path(arguments) if arguments.keys else swing(arguments.frames, SWING, arguments.elevation)
    show = [name for name in arguments.show if name != "parsing"]
    frames = Reporter("video").progress(labels.split(1), unit="frame")
    film(avatar, avatar.neutral(), frames, arguments.out, show, arguments.side, arguments.rate)
    print(f"{len(labels)} frames in {arguments.out}")
    return 0


def camera_path(arguments: argparse.Namespace) -> Tensor:
    """(F, 25) cameras of the command line: its key frames, or else a turntable."""
    if arguments.keys:
        return path([key_of(text) for text in arguments.keys])
    return turntable(arguments.frames, arguments.elevation, arguments.radius)


def film(
    heads: Heads | Avatar,
    cache: HeadCache | Posed,
    labels: Iterable[Tensor],
    out: Path,
    show: Sequence[str],
    side: int | None = None,
    rate: float = 24.0,
) -> None:
    """Write a video of one prepared identity.

    Args:
        heads: its generator, or the avatar.
        cache: the identity, or the avatar with an expression.
        labels: one (1, 25) camera a frame.
        out: an ``.mp4``.
        show: which pictures stand side by side, see ops.apply.pictures.PANELS.
        side: pixels of each; at least 256 if not given, so that small networks can be looked at.
        rate: frames a second.
    """
    side = side or max(heads.resolution, 256)
    with Film(out, rate) as frames:
        for label in labels:
            label = label.to(heads.device)
            frames.add(panels(heads.checked(cache.view(label)), label, show, side)[0])
