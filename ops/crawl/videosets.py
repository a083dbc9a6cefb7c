"""Layouts of video data sets: VFHQ, HDTF and 300-VW, each frame with what the owner says of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ops.crawl.layouts import files, numbers, official_json
from ops.crawl.raw import RawPicture
from ops.crawl.video import frames_a_second, is_video, read_frames
from ops.store.pictures import encode_jpeg

QUALITY = 95  # unpublished: our choice; of frames decoded from videos
_VFHQ_CLIP = re.compile(r"Clip\+(?P<video>.+)\+P(?P<person>\d+)\+C\d+\+F\d+-\d+")
_SPAN = re.compile(r"(?:(\d+):)?(\d+):(\d+)-(?:(\d+):)?(\d+):(\d+)")


def vfhq(root: Path, stride: int) -> Iterator[RawPicture]:
    """VFHQ: a folder of frames a clip, named ``Clip+VIDEO+Pn+Cn+Fa-b``, and ``meta_info/CLIP.txt`` with its crop."""
    for folder in sorted({path.parent for path in files(root, "**/Clip+*/*.png")}):
        named = _VFHQ_CLIP.fullmatch(folder.name)
        video, person = (named["video"], named["person"]) if named else (folder.name, "0")
        crop = None
        for meta in sorted(root.glob(f"**/meta_info/{folder.name}.txt")):
            lines = [line.split() for line in meta.read_text(errors="replace").splitlines()]
            boxes = [words[-4:] for words in lines if words and words[0].startswith("CROP") and len(words) > 4]
            crop = _whole(boxes[0]) if boxes else None
        official = official_json(identity=f"{video}+P{person}", crop=crop, clip=folder.name)
        for path in files(folder, "*.png")[::stride]:
            known = {"page": f"https://www.youtube.com/watch?v={video}", "video": video, "clip": folder.name}
            yield RawPicture(path.relative_to(root).as_posix(), path.read_bytes(), known, official=official)


def hdtf(root: Path, stride: int) -> Iterator[RawPicture]:
    """HDTF: videos under their names in the owners' lists, whole or split as ``NAME_CLIP.mp4``; lists at any depth."""
    urls = dict(_pairs(root, "*_video_url.txt"))
    spans = {name: [_seconds(m) for m in _SPAN.finditer(rest)] for name, rest in _pairs(root, "*_annotion_time.txt")}
    crops = {name: _whole(rest.split()) for name, rest in _pairs(root, "*_crop_wh.txt")}
    for path in files(root, "**/*.mp4"):
        name = path.relative_to(root).as_posix()
        whole, _, clip = path.stem.rpartition("_")
        split = path.name in crops and clip.isdigit()
        owner = f"{whole}.mp4" if split else path.name
        page = urls.get(owner) or urls.get(Path(owner).stem)
        known = {"page": page, "video": name, "identity": Path(owner).stem}  # a video shows one speaker
        known = {key: value for key, value in known.items() if value}
        if not is_video(path):
            yield RawPicture(name, None, problem="unreadable_video")
            continue
        rate, kept = frames_a_second(path), 0
        for index, frame in enumerate(read_frames(path)):
            number = int(clip) if split else _which(spans.get(owner), index / rate)
            if index % stride or number is None:
                continue
            kept += 1
            crop = crops.get(path.name if split else f"{path.stem}_{number}.mp4")
            official = official_json(crop_x_w_y_h=crop, clip=number)
            where = {**known, "frame": index, "seconds": round(index / rate, 3)}
            yield RawPicture(f"{name}#{index:06d}", encode_jpeg(frame, QUALITY), where, official=official)
        if not kept:
            yield RawPicture(name, None, problem="unreadable_video")


def vw300(root: Path, stride: int) -> Iterator[RawPicture]:
    """300-VW: ``NNN/vid.avi`` and 68 points a frame in ``NNN/annot/FFFFFF.pts``, the first frame being 000001."""
    for path in files(root, "*/vid.avi", "*/*/vid.avi"):
        name = path.relative_to(root).as_posix()
        kept = 0
        for index, frame in enumerate(read_frames(path) if is_video(path) else ()):
            if index % stride:
                continue
            kept += 1
            points = _read_points(path.parent / "annot" / f"{index + 1:06d}.pts")
            official = official_json(landmarks68=points, identity=path.parent.name)
            where = {"video": name, "frame": index}
            yield RawPicture(f"{name}#{index:06d}", encode_jpeg(frame, QUALITY), where, official=official)
        if not kept:
            yield RawPicture(name, None, problem="unreadable_video")


def _read_points(path: Path) -> list[list[float]] | None:
    """The points of a .pts file; None where there are none, or not 68."""
    if not path.is_file():
        return None
    body = path.read_text(errors="replace").partition("{")[2].partition("}")[0].split()
    try:
        return np.reshape(numbers(body) or [], (68, 2)).tolist()
    except ValueError:
        return None


def _whole(words: list[str]) -> list[int] | None:
    """Words as whole numbers; None where one of them is none."""
    found = numbers(words)
    return None if found is None else [int(value) for value in found]


def _pairs(root: Path, pattern: str) -> Iterator[tuple[str, str]]:
    for path in sorted(root.glob(f"**/{pattern}")):
        for line in path.read_text(errors="replace").splitlines():
            name, _, rest = line.strip().partition(" ")
            if rest:
                yield name, rest.strip()


def _seconds(match: re.Match[str]) -> tuple[float, float]:
    values = [int(v or 0) for v in match.groups()]
    return (values[0] * 60 + values[1]) * 60 + values[2], (values[3] * 60 + values[4]) * 60 + values[5]


def _which(spans: list[tuple[float, float]] | None, second: float) -> int | None:
    """The clip that a second belongs to; 0 for a video that the lists do not know, None between clips."""
    if spans is None:
        return 0
    return next((i for i, (start, end) in enumerate(spans) if start <= second < end), None)


VIDEO_SETS: dict[str, Callable[[Path, int], Iterator[RawPicture]]] = {"vfhq": vfhq, "hdtf": hdtf, "300vw": vw300}
