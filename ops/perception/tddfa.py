"""How a face is turned, by a 3DDFA_V2 network that the user supplies as ONNX (SphereHead App. 0.B: front views).

Facts of the network (Guo et al., 2020): 120 x 120 pixels, BGR, (x - 127.5) / 128; 62 numbers out, in units of a
published deviation about a mean: 12 of a 3 x 4 matrix (scaled rotation, shift), 40 of the shape, 10 of the expression.
Rotated are points with x to the picture's right, y up and z towards the camera. The square is centred on the landmarks'
box, its side the diagonal of the square box around them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from ops.curate.crop import crop_quad, square_quad
from ops.parametric.files import read_arrays
from ops.perception.onnx import onnx_network
from ops.runtime.errors import LineamentError

SIDE, COUNT = 120, 62


def face_rotation(image: np.ndarray, points: np.ndarray, path: Path, statistics: Path) -> np.ndarray:
    """(3, 3) camera-to-world rotation of a face, in OpenCV's axes (x right, y down, z forward).

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (N, 2) landmarks of the face from the brows to the chin, pixels.
        path: the ONNX file.
        statistics: the published mean and deviation of its outputs, a pickle of two arrays or npz.

    Raises:
        LineamentError: a file is missing or of another interface, or what it says is no rotation.
    """
    low, high = points.min(0), points.max(0)
    quad = square_quad((low + high) / 2, float((high - low).max()) * np.sqrt(2))
    crop = crop_quad(image, quad, SIDE)[..., ::-1].astype(np.float32)
    (numbers, *_) = onnx_network(path)(((crop - 127.5) / 128).transpose(2, 0, 1)[None])
    if numbers.size != COUNT:
        raise LineamentError(
            f"{path}: gives {numbers.size} numbers, where 3DDFA_V2 gives {COUNT} (12 of the pose, 40, 10)."
        )
    mean, deviation = _statistics(statistics)
    return _camera_to_world((numbers.ravel() * deviation + mean)[:12].reshape(3, 4), path)


def _camera_to_world(affine: np.ndarray, path: Path) -> np.ndarray:
    """The nearest turn of the first two rows; what scale they have says nothing of it."""
    lengths = np.linalg.norm(affine[:2, :3], axis=1)
    if not np.isfinite(affine).all() or lengths.min() <= 0:
        raise LineamentError(f"{path}: what it says of a face is no rotation. Do its statistics belong to it?")
    x, y = affine[:2, :3] / lengths[:, None]
    u, _, v = np.linalg.svd(np.stack([x, y, np.cross(x, y)]))
    return (u @ v).T @ np.diag([1.0, -1.0, -1.0])


@lru_cache(maxsize=2)
def _statistics(path: Path) -> tuple[np.ndarray, np.ndarray]:
    found = read_arrays(path)
    try:
        mean, deviation = (np.asarray(found[name], np.float64).ravel() for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        raise LineamentError(f"{path}: has no arrays 'mean' and 'std'.") from None
    if len(mean) != COUNT or len(deviation) != COUNT:
        raise LineamentError(
            f"{path}: has {len(mean)} means and {len(deviation)} deviations, where {COUNT} are needed."
        )
    return mean, deviation
