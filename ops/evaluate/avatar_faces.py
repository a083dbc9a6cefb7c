"""What independent networks see in pictures of faces: landmarks, who it is, where the eyes look; and pairs compared.

Small pictures are enlarged before the face detector sees them. Where it finds no face nothing is invented: the pair
does not count, and every number stands beside how many did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ops.curate.detect import DetectParams, find_faces
from ops.curate.landmarks import find_landmarks
from ops.evaluate import intervals
from ops.evaluate.features import MobileNetFeatures
from ops.evaluate.identity import Recogniser
from ops.evaluate.pairwise import average_keypoint_distance, csim, l1, psnr
from ops.evaluate.perceptual import perceptual
from ops.evaluate.portrait import fit_picture
from ops.store.pictures import resize

LOOK = 256  # pixels to which a picture is enlarged before the detector sees it; unpublished: our choice
SCORE = 0.5  # of landmarks that count; as when clips are tracked
# FaceMesh's outline of either eye's opening, from the outer corner over the upper lid
EYES = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
)
OPEN = 0.12  # height of an eye's opening over its width, below which nothing is seen of the iris; our choice


@dataclass(frozen=True)
class Seen:
    """A face in a picture: (468, 2) landmarks in picture sides, and the eyes' turn (see :func:`gaze`), or None."""

    points: np.ndarray
    gaze: float | None


def see(picture: np.ndarray, weights: Path) -> Seen | None:
    """The largest face of a square picture (S, S, 3) uint8; None where none is found."""
    image = resize(picture, LOOK) if len(picture) < LOOK else picture
    faces = find_faces(image, weights, DetectParams.model_validate({}))
    if not faces:
        return None
    points, score = find_landmarks(image, faces[0].box, faces[0].points, weights, 1)
    if score < SCORE or not np.isfinite(points).all():
        return None
    return Seen(points[:, :2] / len(image), gaze(image, points[:, :2]))


def gaze(image: np.ndarray, points: np.ndarray) -> float | None:
    """Where the eyes look, sideways: how far the dark of the eyes lies from the middle of their openings.

    Args:
        image: (H, W, 3) uint8.
        points: (468, 2) landmarks in pixels.

    Returns:
        mean over the open eyes in widths of an eye, positive to the picture's right; None where both are shut.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    found = []
    for outline in EYES:
        ring = points[list(outline)].astype(np.float64)
        corners = ring[[0, len(ring) // 2]]
        across = corners[corners[:, 0].argmax()] - corners[corners[:, 0].argmin()]
        width = float(np.hypot(*across))
        if width < 1:
            continue
        up = np.array([-across[1], across[0]]) / width
        height = np.ptp((ring - corners.mean(0)) @ up)
        inside = cv2.fillPoly(np.zeros(grey.shape, np.uint8), [np.rint(ring).astype(np.int32)], 1).astype(bool)
        values = grey[inside]
        if height < OPEN * width or values.size < 8 or np.ptp(values) < 1:
            continue
        dark = np.clip(np.quantile(values, 0.6) - values, 0, None)
        rows, columns = np.nonzero(inside)
        place = np.stack([columns, rows], axis=1)
        centre = (place * dark[:, None]).sum(0) / dark.sum()
        found.append(float((centre - ring.mean(0)) @ across / width**2))
    return float(np.mean(found)) if found else None


@dataclass
class Judge:
    """Compares pictures with what they should show, by the networks of one folder.

    Attributes:
        weights: folder of the labelling networks.
        backbone: of perceptual distances.
        recogniser: of identities.
        device: of perceptual distances.
    """

    weights: Path
    backbone: MobileNetFeatures
    recogniser: Recogniser
    device: str = "cpu"
    _known: dict[bytes, Seen | None] = field(default_factory=dict, repr=False)
    _people: dict[bytes, np.ndarray] = field(default_factory=dict, repr=False)
    _fits: dict[bytes, np.ndarray | None] = field(default_factory=dict, repr=False)

    @cached_property
    def _distances(self) -> Mapping[str, Any]:
        return perceptual(self.backbone, self.device)

    @property
    def csim(self) -> str:
        """The name that identity's cosine bears: ``csim`` with ArcFace alone, else with the network's name."""
        return "csim" if self.recogniser.name == "arcface_ir50" else f"csim_{self.recogniser.name}"

    def see(self, picture: np.ndarray) -> Seen | None:
        """As :func:`see`; a picture is looked at once."""
        key = picture.tobytes()
        if key not in self._known:
            self._known[key] = see(picture, self.weights)
        return self._known[key]

    def embed(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """(N, D) descriptors; a picture is looked at once."""
        new = {key: picture for picture in pictures if (key := picture.tobytes()) not in self._people}
        self._people |= dict(zip(new, self.recogniser.embed(list(new.values())))) if new else {}
        return np.stack([self._people[picture.tobytes()] for picture in pictures])

    def units(self, picture: np.ndarray) -> np.ndarray | None:
        """(52,) face units fitted to a picture; None where no face is found and fitted. A picture is fitted once."""
        if self.see(picture) is None:  # landmarks of a blur can be fitted, too
            return None
        key = picture.tobytes()
        if key not in self._fits:
            fitted = fit_picture(resize(picture, LOOK) if len(picture) < LOOK else picture, self.weights)
            self._fits[key] = None if fitted is None else fitted[0]
        return self._fits[key]

    def likeness(self, true: Sequence[np.ndarray], shown: Sequence[np.ndarray]) -> dict[str, list[float]]:
        """Pictures against pictures, pair by pair: psnr, l1, perceptual distances."""
        found = {"psnr": list(map(psnr, true, shown)), "l1": list(map(l1, true, shown))}
        return found | {name: list(map(float, d(true, shown))) for name, d in self._distances.items()}

    def motion(self, driver: Sequence[np.ndarray], shown: Sequence[np.ndarray]) -> dict[str, list[float]]:
        """How far the face is from doing what its driver does: ``akd`` in picture sides, ``gaze`` in eye widths.

        NaN where either picture shows no face (or no open eye).
        """
        found: dict[str, list[float]] = {"akd": [], "gaze": []}
        for a, b in zip(map(self.see, driver), map(self.see, shown)):
            both = a is not None and b is not None
            found["akd"].append(average_keypoint_distance(a.points[None], b.points[None]) if a and b else np.nan)
            eyes = (a.gaze, b.gaze) if a is not None and b is not None else (None, None)
            known = both and None not in eyes
            found["gaze"].append(abs(eyes[0] - eyes[1]) if known else np.nan)  # type: ignore[operator]
        return found

    def identity(self, person: Sequence[np.ndarray], shown: Sequence[np.ndarray]) -> dict[str, list[float]]:
        """Cosines of identity of aligned pictures, pair by pair. No detector runs, so each pair counts."""
        a, b = self.embed(person), self.embed(shown)
        return {self.csim: [csim(x[None], y[None]) for x, y in zip(a, b)]}

    def consistency(self, shown: Sequence[np.ndarray]) -> float:
        """Mean cosine of all pairs of pictures that should show one person."""
        known = self.embed(shown).astype(np.float64)
        known /= np.maximum(np.linalg.norm(known, axis=1, keepdims=True), 1e-12)
        pairs = np.triu_indices(len(known), 1)
        return float((known @ known.T)[pairs].mean())


def summarise(rows: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, dict[str, Any]]:
    """Numbers of several takes: mean, interval (takes are drawn whole), count. ``faces`` says how often one was found.

    Args:
        rows: a take each: measure to the values of its pictures, NaN where there was nothing to measure.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    found = {}
    for name in names:
        parts = [np.asarray(row.get(name, ()), np.float64) for row in rows]
        groups = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        found[name] = intervals.mean(np.concatenate(parts), groups)
    if "akd" in found:
        total = sum(len(row.get("akd", ())) for row in rows)
        found["faces"] = intervals.share(found["akd"]["n"], total)
    return found
