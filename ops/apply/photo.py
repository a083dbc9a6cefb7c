"""From a photo to what a generator was trained on: the aligned crop of the largest face, its camera, its mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ops.curate.align import ffhq_quad
from ops.curate.camera import CameraParams, label_of, solve_camera
from ops.curate.crop import crop_quad, to_crop
from ops.curate.detect import DetectParams, find_faces
from ops.curate.landmarks import LandmarksParams, find_landmarks
from ops.perception.selfie import person_mask
from ops.runtime.errors import LineamentError, PictureError
from ops.store.pictures import decode


@dataclass(frozen=True)
class Portrait:
    """An aligned face.

    Attributes:
        crop: (S, S, 3) uint8; camera: (25,) float64 label; mask: (S, S) uint8, 255 for the person.
        quad: (4, 2) corners of the crop in the photo.
    """

    crop: np.ndarray
    camera: np.ndarray
    mask: np.ndarray
    quad: np.ndarray


def read_portrait(path: Path, side: int, weights: Path) -> Portrait:
    """Read and align a photo by the pipeline's own functions.

    Args:
        path: the photo.
        side: of the crop, in pixels.
        weights: folder of the stage ``weights``.

    Raises:
        LineamentError: no such file, no picture, no face in it, or one seen too far from the side.
    """
    try:
        image = decode(path.read_bytes())
    except FileNotFoundError:
        raise LineamentError(f"{path}: no such file.") from None
    except PictureError as error:
        raise LineamentError(f"{path}: cannot be read as a picture ({error}).") from None
    return align_portrait(image, side, weights, str(path))


def align_portrait(image: np.ndarray, side: int, weights: Path, where: str = "the picture") -> Portrait:
    """Align the largest face of (H, W, 3) uint8; see :func:`read_portrait`."""
    faces = find_faces(image, weights, DetectParams.model_validate({}))
    if not faces:
        raise LineamentError(
            f"{where}: no face was found. Inversion needs a photo of one person whose face is well visible; a face "
            "below about 60 pixels, turned away, or covered is not found."
        )
    looks = LandmarksParams.model_validate({})
    points, score = find_landmarks(image, faces[0].box, faces[0].points, weights, looks.refinements)
    if score < looks.min_score:
        raise LineamentError(
            f"{where}: a face was found, but its features are not clear enough to align it (score {score:.2f}, "
            f"{looks.min_score:.2f} is needed). Take a photo that is nearer the front, larger or sharper."
        )
    quad = ffhq_quad(points)
    pose, residual = solve_camera(to_crop(points[:, :2].astype(np.float64), quad))
    most = CameraParams.model_validate({}).max_residual
    if not residual <= most or pose[:3, 3] @ pose[:3, 2] > 0:
        raise LineamentError(f"{where}: no camera fits the face's landmarks; {residual:.0f} % off, {most:.0f} allowed.")
    crop = crop_quad(image, quad, side)
    return Portrait(crop, label_of(pose, "fixed"), person_mask(crop, weights, side), quad)
