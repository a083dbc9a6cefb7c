"""What is seen in the frames of a clip: the face's landmarks, cuts, and the shots between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ops.curate.align import ffhq_quad
from ops.curate.crop import quad_side
from ops.curate.detect import DetectParams, find_faces
from ops.curate.landmarks import find_landmarks

THUMB = 24  # pixels: frames are compared at this size


@dataclass
class Frame:
    """One frame.

    Attributes:
        number: from 0.
        faces: how many faces were found.
        points: (468, 3) landmarks in pixels; None without a usable face.
        score: of the landmarks.
        reason: why there are none.
        cut: whether another scene begins here.
    """

    number: int
    faces: int = 0
    points: np.ndarray | None = field(default=None, repr=False)
    score: float = 0.0
    reason: str | None = None
    cut: bool = False


def watch(
    images: Iterable[np.ndarray], weights: Path, detect: DetectParams, min_score: float, cut: float
) -> Iterator[Frame]:
    """Look at each frame of a clip.

    Args:
        images: (H, W, 3) uint8 RGB in order.
        weights: folder of the stage ``weights``.
        detect: of the face detector; with ``several: largest`` the face nearest to the last one is followed.
        min_score: landmarks below are not used.
        cut: mean difference of two frames' thumbnails, of the range of values, that only a cut makes.
    """
    before, last = None, None
    for number, image in enumerate(images):
        frame = Frame(number)
        thumb = cv2.resize(image, (THUMB, THUMB), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        frame.cut = before is not None and float(np.abs(thumb - before).mean()) > cut
        before = thumb
        if frame.cut:
            last = None
        _look(frame, image, weights, detect, min_score, last)
        if frame.points is not None:
            last = frame.points[:, :2].mean(0)
        yield frame


def _look(
    frame: Frame, image: np.ndarray, weights: Path, detect: DetectParams, min_score: float, last: np.ndarray | None
) -> None:
    faces = find_faces(image, weights, detect)
    frame.faces = len(faces)
    if not faces:
        frame.reason = "no_face"
        return
    rivals = [face for face in faces if face.area >= detect.several_share * faces[0].area]
    if len(rivals) > 1 and detect.several == "reject":
        frame.reason = "several_faces"
        return
    face = faces[0]
    if last is not None:
        near = last
        face = min(rivals, key=lambda f: float(np.hypot(*((f.box[:2] + f.box[2:]) / 2 - near))))
    points, frame.score = find_landmarks(image, face.box, face.points, weights, 1)
    if frame.score < min_score or not np.isfinite(points).all():
        frame.reason = "low_landmark_score"
        return
    frame.points = points


def shots(frames: Sequence[Frame], max_gap: int) -> list[list[Frame]]:
    """The usable frames in runs of one face: split at cuts, at gaps of more than ``max_gap`` frames, and where the
    face jumps by more than its own square."""
    runs: list[list[Frame]] = []
    fresh = True
    for frame in frames:
        fresh = fresh or frame.cut
        if frame.points is None:
            continue
        if not fresh:
            earlier = runs[-1][-1]
            fresh = frame.number - earlier.number > max_gap or _jumps(earlier, frame)
        if fresh:
            runs.append([])
        runs[-1].append(frame)
        fresh = False
    return runs


def _jumps(earlier: Frame, frame: Frame) -> bool:
    assert earlier.points is not None and frame.points is not None  # noqa: PT018
    far = np.hypot(*(frame.points[:, :2].mean(0) - earlier.points[:, :2].mean(0)))
    sides = [quad_side(ffhq_quad(points)) for points in (earlier.points, frame.points)]
    return bool(far > min(sides) * 0.5 or max(sides) > 1.6 * min(sides))


def square(shot: Sequence[Frame]) -> np.ndarray:
    """(4, 2) one upright square for a whole shot: the median of its frames' FFHQ squares, in pixels."""
    quads = np.stack([ffhq_quad(frame.points) for frame in shot if frame.points is not None])
    centre = np.median(quads.mean(1), axis=0)
    half = np.median([quad_side(quad) for quad in quads]) / 2
    return centre + half * np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])
