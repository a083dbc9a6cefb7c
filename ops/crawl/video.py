"""The ``video`` source: files → clips without a cut → frames, or the clips themselves."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ops.crawl.files import files_below
from ops.crawl.raw import RawPicture
from ops.store.clips import encode_clip
from ops.store.pictures import encode_jpeg

if TYPE_CHECKING:
    from ops.crawl.sources import VideoSource

EXTENSIONS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"}
MAX_BYTES = 16 * 2**30  # unpublished: our choice
MAX_SIDE = 8192  # unpublished: our choice; larger frames are taken for a bomb


def find_videos(root: Path) -> Iterator[Path]:
    """The videos below a folder, in a fixed order.

    Raises:
        LineamentError: there is no such folder, or no video in it.
    """
    return files_below(root, lambda path: path.suffix.lower() in EXTENSIONS, "video", EXTENSIONS)


def is_video(path: Path) -> bool:
    """Whether a file begins like a video. Play lists, which would make the decoder open other files, do not."""
    with open(path, "rb") as stream:
        head = stream.read(16)
    riff = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    return riff or head[4:8] == b"ftyp" or head.startswith((b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x47"))


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video, (H, W, 3) uint8 RGB; ends where the file is cut short."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        width, height = (capture.get(what) for what in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if max(width, height) > MAX_SIDE:
            return
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def frames_a_second(path: Path) -> float:
    """As the file says, 25 where it says nothing sensible."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return rate if 1 <= rate <= 240 else 25.0


def find_cuts(path: Path, threshold: float) -> list[int]:
    """The first frame of every clip, then the number of frames.

    A cut is a frame whose colours, at 32 x 32 in HSV, differ from the last one's by more than ``threshold`` on average
    and twice as much as is usual nearby (the median), so that a fast movement is none.

    Args:
        path: a video.
        threshold: of the mean difference, in steps of 0 to 255.
    """
    differences: list[float] = []
    last: np.ndarray | None = None
    count = 0
    for frame in read_frames(path):
        small = cv2.cvtColor(cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2HSV)
        small = small.astype(np.float32)
        if last is not None:
            change = np.abs(small - last)
            change[..., 0] = np.minimum(change[..., 0], 180 - change[..., 0])  # hue is a circle of 180 steps
            differences.append(float(change.mean()))
        last, count = small, count + 1
    changes = np.array(differences)
    cuts = [0]
    for i, change in enumerate(changes):
        nearby = np.delete(changes[max(0, i - 5) : i + 6], min(i, 5))
        if change > threshold and change > 2 * (np.median(nearby) if len(nearby) else 0.0):
            cuts.append(i + 1)
    return [*cuts, count] if count else []


def pictures(source: VideoSource) -> Iterator[RawPicture]:
    """The frames, or clips, of every video of the folder; a file that cannot be read comes with the reason."""
    root = Path(source.path).expanduser()
    for path in find_videos(root):
        name = path.relative_to(root).as_posix()
        yield from video_pictures(path, name, source)


def video_pictures(path: Path, name: str, source: VideoSource) -> Iterator[RawPicture]:
    """The frames, or clips, of one video."""
    if path.stat().st_size > MAX_BYTES:
        yield RawPicture(name, None, problem="file_too_large")
        return
    edges = find_cuts(path, source.cut_threshold) if is_video(path) else []
    if not edges:
        yield RawPicture(name, None, problem="unreadable_video")
        return
    rate = frames_a_second(path)
    with open(path, "rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    known = {"licence": source.licence, "video": name, "video_sha256": sha256, "frames_per_second": rate}
    clips = [
        (number, first, last)
        for number, (first, last) in enumerate(itertools.pairwise(edges))
        if last - first >= source.min_seconds * rate
    ]
    if not clips:
        yield RawPicture(name, None, problem="no_clip_long_enough")
    elif source.offer == "clips":
        for number, first, last in clips:
            whole = len(edges) == 2 and path.suffix == ".mp4"
            data = path.read_bytes() if whole else encode_clip(itertools.islice(read_frames(path), first, last), rate)
            yield RawPicture(f"{name}#{number}", data, {**known, "clip": number, "first": first, "last": last})
    else:
        step = max(1, round(source.every_seconds * rate))
        wanted = {i: number for number, first, last in clips for i in range(first, last, step)[: source.max_frames]}
        for index, frame in enumerate(read_frames(path)):
            if index in wanted:
                where = {"clip": wanted[index], "frame": index, "seconds": round(index / rate, 3)}
                yield RawPicture(f"{name}#{index:06d}", encode_jpeg(frame, source.quality), {**known, **where})
