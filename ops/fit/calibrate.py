"""Measures where FaceMesh sees its points, against where they lie: ``ops/fit/facemesh_offset.json``.

    python -m ops.fit.calibrate data/weights/embedded [OUT.json]

The landmark network has habits: it rounds the jaw, narrows noses, and does so on everyone alike. People of the studio
that no source shows (another seed) are photographed from near the front; each landmark's mean distance from its point
of the surface, in the head's frame, is what the fits subtract. It is made symmetric, so that no face is skewed by it.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from models import camera as geometry
from ops.curate.camera import canonical_points
from ops.curate.detect import DetectParams, find_faces
from ops.curate.landmarks import LandmarksParams, find_landmarks
from ops.store import pictures

OFFSETS = Path(__file__).with_name("facemesh_offset.json")
SEED, PEOPLE, VIEWS = 90210, 48, 6  # a seed that no source uses; unpublished: our choice
MAX_AZIMUTH = 40.0  # degrees: beyond, the far side's landmarks are guesses
RIDGE = 5.0  # observations' worth of belief that there is no offset


@lru_cache
def offsets() -> np.ndarray:
    """(468, 3) measured offsets of FaceMesh's points from their points of the surface, world units, read only."""
    found = np.array(json.loads(OFFSETS.read_text(encoding="utf-8")), np.float64)
    found.flags.writeable = False
    return found


def observations(weights: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of N near-front pictures: (N, 468, 2, 3) how landmarks move with an offset, and (N, 468, 2) what is left."""
    from ops.studio.crawl import render_pictures
    from ops.studio.params import RubbishShares, StudioParams

    none = RubbishShares(**dict.fromkeys(RubbishShares.model_fields, 0.0))
    studio = StudioParams(seed=SEED, people=PEOPLE, views=VIEWS, azimuth_front_share=1.0, rubbish=none)
    found = []
    for picture in render_pictures(studio, range(PEOPLE * VIEWS)):
        if abs(picture.truth["azimuth"]) > MAX_AZIMUTH:
            continue
        image = pictures.decode(picture.data)
        faces = find_faces(image, weights, DetectParams.model_validate({}))
        if not faces:
            continue
        points, score = find_landmarks(image, faces[0].box, faces[0].points, weights, 1)
        if score >= LandmarksParams.model_validate({}).min_score:
            found.append(observe(picture.truth["facemesh"], picture.truth["camera"], points[:, :2] / len(image)))
    slopes, rests = (np.stack(some) for some in zip(*found))
    return slopes, rests


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
    return (found + found[mirror_pairs()] * (-1, 1, 1)) / 2


def mirror_pairs() -> np.ndarray:
    """(468,) index of each landmark's mirror image."""
    from ops.studio.measure_facemesh import mirror_pairs as pairs

    return pairs(canonical_points())


def main(arguments: list[str]) -> int:
    out = Path(arguments[1]) if len(arguments) > 1 else OFFSETS
    slopes, rests = observations(Path(arguments[0]))
    found = estimate(slopes, rests)
    rows = ",\n".join(json.dumps([round(float(value), 4) for value in point]) for point in found)
    out.write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    left = rests - np.einsum("npia,pa->npi", slopes, found)
    before, after = (np.linalg.norm(v, axis=-1).mean() / 2.7 * 1000 for v in (rests, left))
    print(
        f"{out}: {len(rests)} pictures; mean distance {before:.2f} mm, {after:.2f} mm without the habit",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
