"""What makes a crawl of the web unlike a data set: encodings, and pictures that are of no use.

The kinds of :data:`ops.studio.params.RUBBISH`. Truth is that of the picture before it was spoilt: a rotated or grey
picture has the truth of the upright one in colour, a truncated file that of the whole picture; a tiny one has its truth
scaled.
"""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from ops.studio.params import StudioParams
from ops.studio.render import Shot
from ops.studio.scene import draw_background
from ops.studio.truth import PLACES

_EXIF_ORIENTATION = 0x0112


def develop(linear: np.ndarray) -> np.ndarray:
    """(H, W, 3) linear light in [0, 1] to uint8 sRGB."""
    v = np.clip(linear, 0, 1)
    curve = np.where(v <= 0.0031308, 12.92 * v, 1.055 * np.power(v, 1 / 2.4) - 0.055)
    return (curve * 255 + 0.5).astype(np.uint8)


def sensor_noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A faint grain, the same share of which every camera has."""
    strength = rng.uniform(0.5, 2.2)
    tile = rng.integers(-128, 128, (96, 128, 3), dtype=np.int8).astype(np.float32) * (strength / 74)
    height, width = picture.shape[:2]
    grain = np.tile(tile, (height // 96 + 1, width // 128 + 1, 1))[:height, :width]
    return np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8)


def encode(picture: np.ndarray, rng: np.random.Generator, params: StudioParams) -> tuple[bytes, str]:
    """Bytes and extension of a picture: JPEG of varied quality mostly, at times PNG or WebP."""
    kind = rng.random()
    if kind < params.png_share:
        return _opencv(picture, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]), "png"
    if kind < params.png_share + params.webp_share:
        return _opencv(picture, ".webp", [cv2.IMWRITE_WEBP_QUALITY, 88]), "webp"
    return jpeg(picture, int(rng.integers(84, 97))), "jpg"


def again(picture: np.ndarray, rng: np.random.Generator) -> tuple[bytes, str]:
    """The picture as another site serves it: scaled down a little and compressed more."""
    side = int(picture.shape[0] * rng.uniform(0.8, 0.95))
    smaller = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return jpeg(smaller, int(rng.integers(62, 82))), "jpg"


def jpeg(picture: np.ndarray, quality: int) -> bytes:
    """JPEG bytes of an RGB picture."""
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=quality, colorspace="RGB")
    return data


def spoil(
    picture: np.ndarray, rng: np.random.Generator, kind: str, truth: dict[str, Any]
) -> tuple[bytes, str, dict[str, Any]]:
    """Bytes, extension and the truth that still holds, of a kind of rubbish."""
    if kind == "blurred":
        picture = _blur(picture, rng)
    elif kind == "tiny":
        side = int(rng.integers(40, 120))
        truth = _scaled(truth, side / picture.shape[0], side)
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    elif kind == "grey":
        picture = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    elif kind == "exif_rotated":
        return _rotated(picture, rng), "jpg", truth
    data = jpeg(picture, int(rng.integers(84, 97)))
    if kind == "truncated":
        return data[: int(len(data) * rng.uniform(0.2, 0.8))], "jpg", truth
    if kind == "wrong_extension":
        return data, str(rng.choice(["png", "webp", "gif"])), truth
    return data, "jpg", truth


def scenery(rng: np.random.Generator, size: int) -> np.ndarray:
    """A picture without a person: backgrounds, some of them with sharp things in them."""
    scene = draw_background(rng, size)
    for _ in range(int(rng.integers(0, 14))):
        colour = rng.uniform(0.01, 0.8, 3).tolist()
        points = rng.integers(0, size, (int(rng.integers(3, 7)), 2)).astype(np.int32)
        hull = cv2.convexHull(points)
        cv2.fillConvexPoly(scene, hull, colour, cv2.LINE_AA)
    return sensor_noise(develop(scene), rng)


def paste(picture: np.ndarray, shot: Shot, shift: float) -> np.ndarray:
    """The person of a shot laid over a picture, moved sideways by a share of its width."""
    move = np.array([[1, 0, shift * picture.shape[1]], [0, 1, 0]])
    side = picture.shape[1], picture.shape[0]
    person = cv2.warpAffine(shot.picture, move, side, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(shot.mask, move, side, flags=cv2.INTER_LINEAR).astype(np.float32)[..., None] / 255
    return np.rint(person * mask + picture * (1 - mask)).astype(np.uint8)


def _blur(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, or smeared by a moving camera."""
    size = picture.shape[0]
    if rng.random() < 0.5:
        return cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.012, 0.03) * size))
    length = int(rng.uniform(0.05, 0.12) * size) | 1
    kernel = np.zeros((length, length), np.float32)
    slope = np.deg2rad(rng.uniform(0, 180))
    reach = length // 2
    end = (round(reach + reach * np.cos(slope)), round(reach + reach * np.sin(slope)))
    cv2.line(kernel, (length - 1 - end[0], length - 1 - end[1]), end, 1.0, 1)
    return cv2.filter2D(picture, -1, kernel / kernel.sum())


def _rotated(picture: np.ndarray, rng: np.random.Generator) -> bytes:
    """JPEG whose pixels lie on their side or head and whose EXIF tag says so."""
    orientation, turns = [(3, 2), (6, 1), (8, 3)][int(rng.integers(3))]
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    stored = np.ascontiguousarray(np.rot90(picture, turns))
    out = io.BytesIO()
    Image.fromarray(stored).save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


def _scaled(truth: dict[str, Any], scale: float, side: int) -> dict[str, Any]:
    """Truth of the picture scaled down: the camera is normalised by the side and stays."""
    smaller = dict(truth)
    for name in PLACES:
        smaller[name] = truth[name] * np.float32(scale)
    smaller["mask"] = cv2.resize(truth["mask"], (side, side), interpolation=cv2.INTER_AREA)
    for name in ("parsing", "depth", "uv"):
        if truth[name] is not None:
            smaller[name] = cv2.resize(truth[name], (side, side), interpolation=cv2.INTER_NEAREST)
    return smaller


def _opencv(picture: np.ndarray, extension: str, options: list[int]) -> bytes:
    done, data = cv2.imencode(extension, picture[..., ::-1], options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a picture as {extension}")
    return bytes(data.tobytes())
