"""From photos and clips to the frames of one person: aligned crops, what was fitted to them, and why others fell.

A photo goes through the pipeline's own detection, alignment and fit; a clip through its tracking, one identity a shot.
Frames of another person are found by dlib's descriptor and left out; nothing that is wrong with one frame stops the
others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ops.crawl.video import EXTENSIONS as VIDEOS
from ops.curate.align import ffhq_quad
from ops.curate.camera import CameraParams, angles, label_of, solve_camera
from ops.curate.crop import crop_quad, to_crop
from ops.curate.detect import find_faces
from ops.curate.landmarks import find_landmarks
from ops.evaluate.identity import Recogniser, load_recogniser
from ops.fit.clips import TrackClipsParams, track
from ops.fit.face import FitFaceParams, fit_crops, why_not
from ops.runtime.errors import LineamentError, PictureError
from ops.runtime.params import Params
from ops.store.clips import decode_clip
from ops.store.pictures import decode

PHOTOS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm"}
CHIP = 256  # pixels of the aligned crop by which a person is recognised; unpublished: our choice

WORDS = {
    "no_face": "no face was found: it is covered, too small, turned away, or seen from behind",
    "several_faces": "several faces of like size; crop it to one person",
    "low_landmark_score": "a face, but its features are not clear enough",
    "camera_not_found": "no camera fits the face's landmarks",
    "turned_too_far": "in profile: the face is turned too far for its landmarks to be trusted",
    "tilted_too_far": "the face is tilted too far",
    "rolled_too_far": "the head is rolled too far",
    "not_converged": "the fit of the face model did not converge",
    "behind_the_camera": "the fit puts the face behind the camera",
    "large_residual": "the fitted face lies too far from the landmarks",
    "unlikely_identity": "the fit found a face beyond what the model knows",
    "another_person": "another person than in most of the frames",
    "short_shot": "its shot between two cuts is too short to be tracked",
    "not_a_picture": "not a picture that can be read",
    "not_a_clip": "not a video that can be read",
    "not_needed": "fine, but there were enough frames",
}


class SourceParams(Params):
    """How photos and clips are read."""

    # Appendix A.2.3: sequences of up to 32 frames in training
    frames: int = Field(32, ge=1, description="at most, evenly over each clip")
    # dlib's own threshold for its descriptor: below it two pictures show one person
    same_person: float = Field(0.6, gt=0, description="distance of two descriptors")
    photo: FitFaceParams = FitFaceParams.model_validate({})
    clip: TrackClipsParams = TrackClipsParams.model_validate({})
    camera: CameraParams = CameraParams.model_validate({})


@dataclass(frozen=True)
class Frame:
    """One picture of the source.

    Attributes:
        name: of the photo, or of the clip with the frame's number: ``talk.mp4#12``.
        reason: why it cannot be used; None if it can.
        picture: (S, S, 3) uint8 aligned crop.
        identity: (80,), expression: (52,), camera: (25,) in the head frame: what was fitted.
        residual: of the fit, per cent of the outer eye distance.
        who: (D,) descriptor of the person.
    """

    name: str
    reason: str | None = None
    picture: np.ndarray | None = field(default=None, repr=False)
    identity: np.ndarray | None = field(default=None, repr=False)
    expression: np.ndarray | None = field(default=None, repr=False)
    camera: np.ndarray | None = field(default=None, repr=False)
    residual: float | None = None
    who: np.ndarray | None = field(default=None, repr=False)

    @property
    def says(self) -> str:
        """Its state in words."""
        return "used" if self.reason is None else WORDS.get(self.reason, self.reason.replace("_", " "))

    def as_dict(self) -> dict[str, Any]:
        """For the avatar's record."""
        residual = None if self.residual is None else float(f"{self.residual:.4g}")
        return {"frame": self.name, "used": self.reason is None, "reason": self.reason, "residual": residual}


Watch = Callable[[Iterable[Path]], Iterable[Path]]  # puts a progress bar around files


def read_source(
    path: Path, side: int, weights: Path, params: SourceParams | None = None, watch: Watch = lambda files: files
) -> list[Frame]:
    """All frames of a photo, a clip, or a folder of both, in order; those that cannot be used say why.

    Args:
        path: what was given.
        side: of the crops, pixels.
        weights: folder of the stage ``weights``.
        params: how.
        watch: around the files.

    Raises:
        LineamentError: there is no such file, nothing readable in the folder, or not one frame can be used; the
            message names the frames and their reasons.
    """
    p = params or SourceParams.model_validate({})
    recogniser = load_recogniser("dlib_128d")
    frames: list[Frame] = []
    for file in watch(_files(path)):
        if file.suffix.lower() in VIDEOS:
            frames += clip_frames(file.read_bytes(), file.name, side, weights, p, recogniser)
        else:
            frames.append(read_photo(file, side, weights, p, recogniser))
    frames = one_person(frames, p.same_person)
    if all(frame.reason is not None for frame in frames):
        raise LineamentError(f"{path}: no frame can be used. {explain(frames)}")
    return frames


def explain(frames: Sequence[Frame], most: int = 4) -> str:
    """Why frames were not used, by reason, each with the frames that fell by it."""
    fallen: dict[str, list[str]] = {}
    for frame in frames:
        if frame.reason not in (None, "not_needed"):
            fallen.setdefault(frame.says, []).append(frame.name)
    lines = []
    for says, names in fallen.items():
        more = f" and {len(names) - most} more" if len(names) > most else ""
        lines.append(f"{', '.join(names[:most])}{more}: {says}.")
    return " ".join(lines)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise LineamentError(f"{path}: no such file or folder.")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in PHOTOS | VIDEOS and p.is_file())
    if not found:
        raise LineamentError(f"{path}: holds neither photos ({', '.join(sorted(PHOTOS))}) nor videos.")
    return found


def read_photo(path: Path, side: int, weights: Path, p: SourceParams, recogniser: Recogniser) -> Frame:
    """One photo as a frame."""
    try:
        image = decode(path.read_bytes())
    except PictureError:
        return Frame(path.name, "not_a_picture")
    return fit_photo(image, path.name, side, weights, p, recogniser)


def fit_photo(image: np.ndarray, name: str, side: int, weights: Path, p: SourceParams, recogniser: Recogniser) -> Frame:
    """The face of (H, W, 3) uint8, aligned by FFHQ's rule and fitted."""
    faces = find_faces(image, weights, p.clip.detect)
    if not faces:
        return Frame(name, "no_face")
    if any(face.area >= p.clip.detect.several_share * faces[0].area for face in faces[1:]):
        return Frame(name, "several_faces")
    points, score = find_landmarks(image, faces[0].box, faces[0].points, weights, 1)
    if score < p.clip.min_score or not np.isfinite(points).all():
        return Frame(name, "low_landmark_score")
    quad = ffhq_quad(points)
    pose, residual = solve_camera(to_crop(points[:, :2].astype(np.float64), quad), p.camera.focal)
    if not residual <= p.camera.max_residual or pose[:3, 3] @ pose[:3, 2] > 0:
        return Frame(name, "camera_not_found")
    row = {
        "points": points.ravel().tolist(),
        "quad": quad.ravel().tolist(),
        "camera": label_of(pose, "fixed", p.camera.focal).tolist(),
        "distance": float(np.linalg.norm(pose[:3, 3])),
    }
    columns = fit_crops([row], p.photo)[0]
    reason = why_not(columns, p.photo) or turned(columns["camera"], p.camera)
    return _frame(name, reason, image, points, quad, columns, side, recogniser)


def turned(camera: Sequence[float], p: CameraParams) -> str | None:
    """The reason why a view is not trusted, or None."""
    pose = np.array(camera[:16], np.float64).reshape(4, 4)
    limits = (p.max_yaw, p.max_pitch, p.max_roll)
    reasons = ("turned_too_far", "tilted_too_far", "rolled_too_far")
    return next((r for r, angle, most in zip(reasons, angles(pose), limits) if abs(angle) > most), None)


def clip_frames(
    data: bytes, name: str, side: int, weights: Path, p: SourceParams, recogniser: Recogniser
) -> list[Frame]:
    """A clip's frames: tracked together, then as many as are wanted, evenly over those that can be used."""
    rows = track(data, name, p.clip, weights)
    if rows and rows[0]["frame"] is None:
        return [Frame(name, rows[0]["reason"])]
    reasons = [row["reason"] or turned(row["camera"], p.camera) for row in rows]
    good = [n for n, reason in enumerate(reasons) if reason is None]
    picks = np.linspace(0, len(good) - 1, min(p.frames, len(good))).round().astype(int)
    chosen = {good[n] for n in picks}
    images = dict(_chosen(data, {rows[n]["frame"] for n in chosen}))
    frames = []
    for n, row in enumerate(rows):
        number = f"{name}#{row['frame']}"
        if n in chosen:
            points = np.array(row["points"], np.float64).reshape(-1, 3)
            quad = np.array(row["quad"], np.float64).reshape(4, 2)
            frames.append(_frame(number, None, images[row["frame"]], points, quad, row, side, recogniser))
        else:
            frames.append(Frame(number, reasons[n] or "not_needed", residual=row["residual"]))
    return frames


def _chosen(data: bytes, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    yield from ((n, image) for n, image in enumerate(decode_clip(data)) if n in wanted)


def _frame(
    name: str,
    reason: str | None,
    image: np.ndarray,
    points: np.ndarray,
    quad: np.ndarray,
    columns: dict[str, Any],
    side: int,
    recogniser: Recogniser,
) -> Frame:
    """A fitted frame, with the descriptor of the face upright in its own square."""
    who = recogniser.embed([crop_quad(image, ffhq_quad(points), CHIP)])[0]
    codes = {key: np.array(columns[key], np.float32) for key in ("identity", "expression", "camera")}
    return Frame(name, reason, crop_quad(image, quad, side), **codes, residual=columns["residual"], who=who)


def one_person(frames: Sequence[Frame], most: float) -> list[Frame]:
    """Frames of another person than that of most frames are given the reason ``another_person``.

    The person is that of the frame to which most others are nearer than ``most``; of equals, the first.
    """
    good = [n for n, frame in enumerate(frames) if frame.reason is None]
    if not good:
        return list(frames)
    known = np.stack([frames[n].who for n in good]).astype(np.float64)  # type: ignore[misc]
    near = np.linalg.norm(known[:, None] - known[None], axis=-1) <= most
    same = dict(zip(good, near[near.sum(1).argmax()]))
    return [frame if same.get(n, True) else replace(frame, reason="another_person") for n, frame in enumerate(frames)]


def counts(frames: Sequence[Frame]) -> str:
    """How many frames were used and left out, in words."""
    used = sum(frame.reason is None for frame in frames)
    spare = sum(frame.reason == "not_needed" for frame in frames)
    fallen = len(frames) - used - spare
    parts = [f"{used} of {len(frames)} frames used"]
    parts += [f"{spare} not needed"] if spare else []
    return ", ".join([*parts, f"{fallen} left out"] if fallen else parts)
