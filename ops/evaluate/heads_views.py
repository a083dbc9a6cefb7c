"""Real head pictures, with what judging generated ones needs: features, angles, and simple facts of each picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq

from ops.evaluate.backbones import Backbone
from ops.evaluate.features import levels_of
from ops.perception.blazeface import detect
from ops.runtime.errors import LineamentError
from ops.store.pictures import decode, decode_grey, resize
from ops.store.reader import ShardDataset

FRONT, BACK = 60.0, 120.0  # degrees of azimuth: nearer the front, farther than the sides; the paper leaves them open
VIEWS = ("all", "front", "back")
_DETECTORS = ("blazeface_full_range", "blazeface_short_range")
BINS = 8  # of azimuth; unpublished: our choice


@dataclass(frozen=True)
class RealHeads:
    """The data set as evaluation sees it: N pictures at one size.

    Attributes:
        features: (N, 1280); low: (N, 72), see ops.evaluate.features.
        cameras: (N, 25).
        azimuths: (N,) degrees, from the cameras.
        true_azimuths: (N,) degrees; the studio's truth where there is one, else NaN.
        identities: (N,) names; empty where unknown.
        face_scores: (N,) see :func:`face_score`.
        sharpness: (N,) see :func:`sharpness`.
        coverage: (N,) share of the picture that is head; NaN without a mask.
        pieces: (N,) share of the head outside its largest piece; NaN without a mask.
    """

    features: np.ndarray
    low: np.ndarray
    cameras: np.ndarray
    azimuths: np.ndarray
    true_azimuths: np.ndarray
    identities: np.ndarray
    face_scores: np.ndarray
    sharpness: np.ndarray
    coverage: np.ndarray
    pieces: np.ndarray

    @property
    def calibration_azimuths(self) -> np.ndarray:
        """(N,) the truth where it is known, else what the cameras say."""
        return np.where(np.isnan(self.true_azimuths), self.azimuths, self.true_azimuths)

    def save(self, path: Path) -> None:
        """Write as npz."""
        with path.open("wb") as file:
            np.savez(file, **self.__dict__)

    @classmethod
    def load(cls, path: Path) -> RealHeads:
        """Read what save() wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{name: stored[name] for name in cls.__dataclass_fields__})


def read_real(
    dataset: ShardDataset, numbers: Iterable[int], truth: Path, side: int, backbone: Backbone, weights: Path
) -> RealHeads:
    """Look at pictures of a data set, one after the other.

    Args:
        dataset: head shards.
        numbers: which samples.
        truth: folder with what the studio knows, a folder a source; may be missing.
        side: pixels to which pictures are resized first, those of the generator.
        backbone: of the features.
        weights: folder of the stage ``weights``, for the face detector.

    Raises:
        LineamentError: a sample has no camera.
    """
    known = true_azimuths(truth)
    rows: list[dict[str, object]] = []

    def pictures() -> Iterator[np.ndarray]:
        for number in numbers:
            key, sample = dataset.key(number), dataset.read(number)
            record = json.loads(sample.get("json", b"{}"))
            if len(record.get("camera") or ()) != 25:
                raise LineamentError(f"{dataset.folder}: sample {key} has no camera of 25 values.")
            image = resize(decode(sample["jpg"]), side)
            mask = resize(decode_grey(sample["mask.png"]), side) if "mask.png" in sample else None
            coverage, pieces = mask_facts(None if mask is None else mask > 127)
            rows.append(
                {
                    "cameras": record["camera"],
                    "true_azimuths": known.get(key, math.nan),
                    "identities": str(record.get("identity") if record.get("identity") is not None else ""),
                    "face_scores": face_score(image, weights),
                    "sharpness": sharpness(image),
                    "coverage": coverage,
                    "pieces": pieces,
                }
            )
            yield image

    low, features = levels_of(backbone, pictures())
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return RealHeads(features=features, low=low, azimuths=azimuths_of(columns["cameras"]), **columns)


def true_azimuths(truth: Path) -> dict[str, float]:
    """Azimuth in degrees by sample id, of all sources whose truth is known."""
    found: dict[str, float] = {}
    for path in sorted(truth.glob("*/truth.parquet")):
        if {"id", "azimuth"} <= set(pq.read_schema(path).names):
            table = pq.read_table(path, columns=["id", "azimuth"])
            for key, value in zip(table.column("id").to_pylist(), table.column("azimuth").to_pylist()):
                if value is not None:
                    found[key] = float(value)
    return found


def azimuths_of(cameras: np.ndarray) -> np.ndarray:
    """(N,) degrees in (-180, 180] of (N, 25) cameras: 0 in front, positive on the subject's left."""
    return np.degrees(np.arctan2(cameras[:, 3], cameras[:, 11]))


def in_view(azimuths: np.ndarray, view: str) -> np.ndarray:
    """(N,) which belong to ``all``, ``front`` or ``back``."""
    size = np.abs((azimuths + 180) % 360 - 180)
    return {"all": np.ones(len(size), bool), "front": size <= FRONT, "back": size > BACK}[view]


def bin_of(azimuths: np.ndarray) -> np.ndarray:
    """(N,) number of the azimuth bin; bin 0 is centred in front."""
    return np.floor((azimuths % 360) / (360 / BINS) + 0.5).astype(int) % BINS


def face_score(image: np.ndarray, weights: Path) -> float:
    """The highest score in [0, 1] that the pipeline's two face detectors give to anything in (H, W, 3) uint8."""
    faces = [face for name in _DETECTORS for face in detect(image, weights, name, 0.05, 0.3)]
    return max((face.score for face in faces), default=0.0)


def sharpness(image: np.ndarray) -> float:
    """Standard deviation of the Laplacian of the grey picture, in grey levels."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).std())


def mask_facts(mask: np.ndarray | None) -> tuple[float, float]:
    """Share of the picture inside a boolean mask, and share of the mask outside its largest piece; NaN for none."""
    if mask is None:
        return math.nan, math.nan
    area = int(mask.sum())
    if not area:
        return 0.0, 0.0
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return area / mask.size, 1 - int(stats[1:, cv2.CC_STAT_AREA].max()) / area


def chosen_numbers(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` numbers, evenly spread; all if ``most`` is 0."""
    if not most or most >= count:
        return list(range(count))
    return np.linspace(0, count - 1, most).round().astype(int).tolist()
