"""Pictures in and out: one decoder that honours EXIF rotation and names what is wrong, and the encoders."""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from ops.runtime.errors import PictureError

MAX_PIXELS = 100_000_000  # unpublished: our choice; a larger picture is taken for a decompression bomb
_ORIENTATION = 0x0112  # EXIF tag
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tiff", "GIF": "gif", "PPM": "ppm"}
KINDS = {*FORMATS.values(), "pgm"}  # what sniff says of a picture that can be decoded
_PORTABLE = ((b"P2", "pgm"), (b"P5", "pgm"), (b"P3", "ppm"), (b"P6", "ppm"))  # Netpbm: as text, as bytes
_SIGNATURES = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    *((magic + space, kind) for magic, kind in _PORTABLE for space in (b" ", b"\n", b"\t", b"\r")),
)
# Of the ISO container, which HEIC and AVIF pictures use too.
_VIDEO_BRANDS = {b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ", b"MSNV", b"qt  "}


def sniff(data: bytes) -> str:
    """The file type by its first bytes: jpg, png, webp, bmp, tiff, gif, pgm, ppm, mp4, or ``bin`` for any other."""
    for signature, extension in _SIGNATURES:
        if data.startswith(signature):
            return extension
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp" and data[8:12] in _VIDEO_BRANDS:
        return "mp4"
    return "bin"


def decode(data: bytes) -> np.ndarray:
    """Decode a picture to upright RGB.

    Animated files give their first frame; palette, grey, CMYK, 16-bit and transparent ones are converted (transparency
    over white). EXIF orientation is applied.

    Returns:
        (H, W, 3) uint8.

    Raises:
        PictureError: with reason ``empty``, ``not_a_picture``, ``truncated``, ``too_large`` or ``undecodable``.
    """
    if not data:
        raise PictureError("empty", "the file has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=tuple(FORMATS))
            if picture.width * picture.height > MAX_PIXELS:
                raise PictureError("too_large", f"{picture.width} x {picture.height} pixels")
            if picture.format == "JPEG" and picture.mode == "RGB" and _upright(picture):
                return _decode_jpeg(data)
            return np.asarray(_to_rgb(ImageOps.exif_transpose(picture)))
    except PictureError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PictureError("too_large", str(error)) from None
    except UnidentifiedImageError:
        raise PictureError("not_a_picture", "no known picture format") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        reason = "truncated" if "truncated" in str(error).lower() or isinstance(error, EOFError) else "undecodable"
        raise PictureError(reason, str(error)) from None


def upright_size(data: bytes) -> tuple[int, int]:
    """(width, height) that decode gives, from the header alone.

    Raises:
        PictureError: with reason ``not_a_picture`` or ``too_large``.
    """
    try:
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)  # on its side
    except Image.DecompressionBombError as error:
        raise PictureError("too_large", str(error)) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise PictureError("not_a_picture", str(error)) from None
    return (height, width) if turned else (width, height)


def picture_problem(data: bytes) -> str | None:
    """Why bytes are no usable picture, by their first bytes and the header alone; None if they are one."""
    if not data:
        return "empty"
    if sniff(data) not in KINDS:
        return "not_a_picture"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = upright_size(data)
    except PictureError as error:
        return error.reason
    return "too_large" if width * height > MAX_PIXELS else None


def _upright(picture: Image.Image) -> bool:
    return picture.getexif().get(_ORIENTATION, 1) in (0, 1)


def _decode_jpeg(data: bytes) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False, strict=True)
    except ValueError as error:
        reason = "truncated" if "premature end" in str(error).lower() else "undecodable"
        raise PictureError(reason, str(error)) from None


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """(H, W, 3) uint8 RGB to JPEG with full colour resolution."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="444"
    )


def encode_png(image: np.ndarray) -> bytes:
    """(H, W, 3) RGB or (H, W) grey uint8 to PNG; the same bytes each time."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    ok, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 4])
    if not ok:
        raise PictureError("undecodable", "the picture could not be written as PNG")
    return data.tobytes()


def decode_grey(data: bytes) -> np.ndarray:
    """A grey PNG, such as a mask, to (H, W) uint8.

    Raises:
        PictureError: it cannot be decoded.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if image is None:
        raise PictureError("undecodable", "the mask cannot be decoded")
    return image


def resize(image: np.ndarray, side: int) -> np.ndarray:
    """A square picture or mask resized to ``side``: by area when it shrinks, bilinear when it grows."""
    if image.shape[0] == side:
        return image
    how = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_LINEAR
    return cv2.resize(image, (side, side), interpolation=how)


def shrink_to_width(image: np.ndarray, width: int) -> np.ndarray:
    """The picture no wider than ``width`` pixels, its shape kept."""
    if image.shape[1] <= width:
        return image
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
