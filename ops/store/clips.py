"""Video clips in and out: MPEG-4 in an .mp4, which OpenCV reads and writes everywhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from ops.runtime.errors import LineamentError, PictureError

EXTENSIONS = ("mp4",)  # fields of raw samples that hold clips, not pictures


def encode_clip(frames: Iterable[np.ndarray], fps: float) -> bytes:
    """Frames (H, W, 3) uint8 RGB of one size to the bytes of an .mp4; equal frames give equal bytes.

    Raises:
        ValueError: no frame at all, or frames of different sizes.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        writer, size = None, (0, 0)
        for frame in frames:
            if writer is None:
                size = frame.shape[1], frame.shape[0]
                writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
            if (frame.shape[1], frame.shape[0]) != size:
                raise ValueError(f"the frames of a clip have one size: {size} first, then {frame.shape[1::-1]}")
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        if writer is None:
            raise ValueError("a clip needs at least one frame")
        writer.release()
        if not path.is_file() or not path.stat().st_size:
            raise LineamentError("OpenCV could not write an .mp4; its build lacks FFmpeg.")
        return path.read_bytes()


def decode_clip(data: bytes) -> Iterator[np.ndarray]:
    """The frames of a clip in order, (H, W, 3) uint8 RGB.

    Raises:
        PictureError: ``not_a_clip``: not one frame can be decoded.
    """
    with _opened(data) as capture:
        more, frame = capture.read()
        if not more:
            raise PictureError("not_a_clip", "no frame can be decoded")
        while more:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            more, frame = capture.read()


def frame_rate(data: bytes) -> float:
    """Frames a second that a clip's header gives.

    Raises:
        PictureError: ``not_a_clip``: there is no video in it.
    """
    with _opened(data) as capture:
        rate = float(capture.get(cv2.CAP_PROP_FPS))
    if not rate > 0:
        raise PictureError("not_a_clip", "no video stream")
    return rate


@contextmanager
def _opened(data: bytes) -> Iterator[cv2.VideoCapture]:
    """OpenCV reads videos from files alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(data)
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        try:
            yield capture
        finally:
            capture.release()
