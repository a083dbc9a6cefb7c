"""Measures where FaceMesh sees its points, and what can be read off them: the two files beside this one.

    python -m ops.fit.calibrate data/weights/embedded [FOLDER]

The landmark network has habits: it rounds the jaw, narrows noses, and does so on everyone alike. People of the studio
that no source shows (another seed) are photographed from near the front; each landmark's mean distance from its point
of the surface, in the head's frame, is what the fits subtract (``facemesh_offset.json``). It is made symmetric, so
that no face is skewed by it. From the same pictures :mod:`ops.fit.reading` learns the codes
(``facemesh_reading.safetensors``).
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import camera as geometry
from ops.curate.detect import DetectParams, find_faces
from ops.curate.landmarks import LandmarksParams, find_landmarks
from ops.fit.reading import READING, learn
from ops.perception.facemesh import mirrored
from ops.store import pictures

OFFSETS = Path(__file__).with_name("facemesh_offset.json")
SEED, PEOPLE, VIEWS, SIDE = 90210, 240, 4, 384  # a seed that no source uses; unpublished: our choice
SPREAD = 30.0  # degrees of azimuth, standard deviation; unpublished: our choice
MAX_AZIMUTH = 40.0  # degrees: beyond, the far side's landmarks are guesses, and their distances not measured
MAX_READ = 65.0  # degrees up to which pictures teach the reading
RIDGE = 5.0  # observations' worth of belief that there is no offset


@lru_cache
def offsets() -> np.ndarray:
    """(468, 3) measured offsets of FaceMesh's points from their points of the surface, world units, read only."""
    found = np.array(json.loads(OFFSETS.read_text(encoding="utf-8")), np.float64)
    found.flags.writeable = False
    return found


def photographs(weights: Path) -> list[tuple[dict[str, Any], np.ndarray, int]]:
    """Truth, landmarks (468, 3) and side in pixels of each near-front picture in which a face is found."""
    from ops.studio.crawl import render_pictures
    from ops.studio.params import RubbishShares, StudioParams

    studio = StudioParams(
        seed=SEED,
        people=PEOPLE,
        views=VIEWS,
        size=SIDE,
        azimuth_front_share=1.0,
        azimuth_front_spread=SPREAD,
        extent_max=1.5,
        rubbish=RubbishShares(**dict.fromkeys(RubbishShares.model_fields, 0.0)),
    )
    found = []
    for picture in render_pictures(studio, range(PEOPLE * VIEWS)):
        if abs(picture.truth["azimuth"]) > MAX_READ:
            continue
        image = pictures.decode(picture.data)
        faces = find_faces(image, weights, DetectParams.model_validate({}))
        if not faces:
            continue
        points, score = find_landmarks(image, faces[0].box, faces[0].points, weights, 1)
        if score >= LandmarksParams.model_validate({}).min_score:
            found.append((picture.truth, points, len(image)))
    return found


def observe(points: np.ndarray, camera: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One picture: (468, 2, 3) slopes and (468, 2) differences, both in world units at the head's distance.

    Args:
        points: (468, 3) where the landmarks lie on the surface, head frame.
        camera: (25,) label of the picture.
        seen: (468, 2) where they are seen, units of the picture's side.
    """
    pose, intrinsic = (v.numpy() for v in geometry.unpack_label(torch.as_tensor(camera, dtype=torch.float64)))
    in_camera = (np.asarray(points, np.float64) - pose[:3, 3]) @ pose[:3, :3]
    x, y, depth = in_camera.T
    scale = intrinsic[0, 0] / depth
    projected = in_camera[:, :2] * scale[:, None] + intrinsic[:2, 2]
    drop = np.zeros((len(in_camera), 2, 3))
    drop[:, 0, 0] = drop[:, 1, 1] = 1
    drop[:, 0, 2], drop[:, 1, 2] = -x / depth, -y / depth
    return drop @ pose[:3, :3].T, (seen - projected) / scale[:, None]


def estimate(slopes: np.ndarray, rests: np.ndarray) -> np.ndarray:
    """(468, 3) offsets by least squares with a ridge, made symmetric."""
    matrix = np.einsum("npia,npib->pab", slopes, slopes) + RIDGE * np.eye(3)
    moment = np.einsum("npia,npi->pa", slopes, rests)
    found = np.linalg.solve(matrix, moment[..., None])[..., 0]
    return (found + found[mirrored()] * (-1, 1, 1)) / 2


def taught(truths: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(M, 132) identity and expression of pictures, and of their mirror images: heads are symmetric, units are not."""
    from ops.fit.target import target

    names = list(target().model.expression_names)
    swap = {"Left": "Right", "Right": "Left"}

    def other(name: str) -> str:
        side = next((side for side in swap if name.endswith(side)), "")
        return name.removesuffix(side) + swap.get(side, "")

    order = [names.index(other(name)) for name in names]
    identity = np.stack([truth["identity_code"] for truth in truths])
    expression = np.stack([truth["expression"] for truth in truths])
    return np.concatenate([identity, expression], 1), np.concatenate([identity, expression[:, order]], 1)


def main(arguments: list[str]) -> int:
    folder = Path(arguments[1]) if len(arguments) > 1 else OFFSETS.parent
    found = photographs(Path(arguments[0]))
    near = [one for one in found if abs(one[0]["azimuth"]) <= MAX_AZIMUTH]
    slopes, rests = (
        np.stack(some)
        for some in zip(*(observe(t["facemesh"], t["camera"], points[:, :2] / side) for t, points, side in near))
    )
    offset = estimate(slopes, rests)
    rows = ",\n".join(json.dumps([round(float(value), 4) for value in point]) for point in offset)
    (folder / OFFSETS.name).write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    left = rests - np.einsum("npia,pa->npi", slopes, offset)
    before, after = (np.linalg.norm(v, axis=-1).mean() / 2.7 * 1000 for v in (rests, left))
    truths, points, _ = zip(*found)
    codes, mirror_codes = taught(list(truths))
    read = learn(np.stack(points), codes, np.array([truth["identity"] for truth in truths]), mirror_codes)
    read.save(folder / READING.name)
    known = 1 - (read.spread[:10] ** 2).mean()
    print(
        f"{folder}: {len(rests)} pictures; mean distance {before:.2f} mm, {after:.2f} mm without the habit; "
        f"{len(found)} pictures read, {known:.0%} of the variance of the first ten identity codes known",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
