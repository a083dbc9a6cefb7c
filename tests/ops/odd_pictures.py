"""The odd files of a real folder, each with what must become of it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bomb() -> bytes:
    """A PNG that declares 60000 x 60000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


def odd_pictures(portrait: np.ndarray) -> dict[str, tuple[bytes, str]]:
    """File name to its bytes and the outcome: ``kept`` or the reason of its rejection, up to the last step."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(portrait)
    jpeg = encode(picture, "JPEG", quality=95)
    shifted = [Image.fromarray(np.ascontiguousarray(portrait[y : y + 460, x : x + 460])) for x, y in _shifts()]
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = Image.fromarray(rng.integers(0, 255, (512, 512, 3), dtype=np.uint8))
    two = np.concatenate([portrait[:420, 60:420], portrait[:420, 60:420, ::-1]], axis=1)
    palette = shifted[1].convert("P", palette=Image.Palette.ADAPTIVE)
    grey16 = Image.fromarray(np.asarray(shifted[2].convert("L")).astype(np.uint16) * 257)
    return {
        "plain.jpg": (jpeg, "kept"),
        "deep/again.jpg": (jpeg, "exact_duplicate"),
        "deep/near.jpg": (encode(picture, "JPEG", quality=60), "near_duplicate"),
        "exif.jpg": (encode(shifted[0].rotate(90, expand=True), "JPEG", quality=95, exif=exif), "kept"),
        "palette.png": (encode(palette, "PNG"), "kept"),
        "sixteen.png": (encode(grey16, "PNG"), "kept"),
        "cmyk.jpg": (encode(shifted[3].convert("CMYK"), "JPEG", quality=95), "kept"),
        "animated.gif": (encode(shifted[4], "GIF", save_all=True, append_images=[noise.resize((460, 460))]), "kept"),
        "really_a_png.jpg": (encode(shifted[5], "PNG"), "kept"),
        "no_extension": (encode(shifted[6], "WEBP", lossless=True), "kept"),
        "tiny.jpg": (encode(picture.resize((40, 40)), "JPEG"), "too_small"),
        "blurred.jpg": (encode(Image.fromarray(cv2.GaussianBlur(portrait, (0, 0), 9)), "JPEG"), "blurred"),
        "noise.jpg": (encode(noise, "JPEG", quality=95), "no_face"),
        "two.jpg": (encode(Image.fromarray(two), "JPEG", quality=95), "several_faces"),
        "cut.jpg": (encode(shifted[7], "JPEG", quality=95)[:-9000], "truncated"),
        "zero.png": (b"", "empty"),
        "bomb.png": (bomb(), "too_large"),
        "words.jpg": (b"this is no picture at all, whatever its name says", "not_a_picture"),
    }


def _shifts() -> list[tuple[int, int]]:
    return [(0, 0), (50, 0), (0, 40), (50, 40), (25, 0), (0, 20), (50, 20), (25, 40)]


def write_folder(folder: Path, portrait: np.ndarray) -> dict[str, str]:
    """Write all odd pictures; return file name to outcome."""
    outcomes = {}
    for name, (data, outcome) in odd_pictures(portrait).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        outcomes[name] = outcome
    return outcomes
