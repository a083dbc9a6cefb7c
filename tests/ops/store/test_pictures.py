"""Decoding: each odd kind of picture against what went in, and sizes without decoding."""

import contextlib

import numpy as np
import pytest
from PIL import Image

from ops.runtime.errors import PictureError
from ops.store.pictures import (
    decode,
    decode_grey,
    encode_jpeg,
    encode_png,
    picture_problem,
    resize,
    sniff,
    upright_size,
)
from tests.ops.odd_pictures import encode, odd_pictures


def gradient(height=40, width=60):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, 255 - x * 4], axis=-1).astype(np.uint8)


def test_png_round_trip_is_exact_and_repeatable():
    image = gradient()
    assert encode_png(image) == encode_png(image.copy())
    np.testing.assert_array_equal(decode(encode_png(image)), image)
    np.testing.assert_array_equal(decode_grey(encode_png(image[..., 0])), image[..., 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation):
    """Pillow's own transposition undone by the tag: whatever the tag, the upright picture is the same."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = gradient()
    stored = Image.fromarray(image)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, "JPEG", quality=95, subsampling=0, exif=exif)
    found = decode(data)
    assert found.shape == image.shape
    assert np.abs(found.astype(int) - image).mean() < 3
    assert upright_size(data) == (60, 40)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16", "I", "F", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    grey = gradient()[..., 0]
    if mode == "I;16":
        picture, kind = Image.fromarray(grey.astype(np.uint16) * 257), "PNG"
    elif mode in ("I", "F"):
        picture, kind = Image.fromarray(grey.astype(np.int32 if mode == "I" else np.float32)), "TIFF"
    elif mode == "P":
        picture, kind = Image.fromarray(grey).quantize(256), "PNG"
    else:
        picture = Image.fromarray(np.stack([grey] * 3, axis=-1)).convert(mode)
        kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    found = decode(encode(picture, kind))
    assert found.shape == (40, 60, 3)
    assert found.dtype == np.uint8
    if mode != "1":
        assert np.abs(found.astype(int) - grey[..., None]).max() <= 4


def test_transparency_lies_over_white():
    image = np.zeros((4, 4, 4), np.uint8)
    image[:, 2:, 3] = 255
    found = decode(encode(Image.fromarray(image), "PNG"))
    assert (found[:, :2] == 255).all()
    assert (found[:, 2:] == 0).all()


def test_an_animation_gives_its_first_frame():
    first, second = (Image.new("RGB", (9, 9), colour) for colour in ((250, 0, 0), (0, 250, 0)))
    found = decode(encode(first, "GIF", save_all=True, append_images=[second]))
    assert found[4, 4].tolist() == [250, 0, 0]


def test_the_header_tells_the_size_that_decoding_gives(astronaut):
    """Of each odd file: either both agree, or the file is rejected as undecodable."""
    agreed = 0
    for name, (data, _) in odd_pictures(astronaut).items():
        try:
            image = decode(data)
        except PictureError:
            continue
        assert upright_size(data) == image.shape[1::-1], name
        agreed += 1
    assert agreed > 10
    with pytest.raises(PictureError, match="not_a_picture|cannot identify"):
        upright_size(b"words")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_a_file_cut_anywhere_is_rejected_or_whole(kind):
    """Never a crash, never a half-grey picture taken for a whole one."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(image), kind)
    whole = decode(data)
    assert sniff(data) == {"JPEG": "jpg"}.get(kind, kind.lower())
    for length in np.linspace(0, len(data) - 1, 25).astype(int):
        with contextlib.suppress(PictureError):
            np.testing.assert_array_equal(decode(data[:length]), whole)


@pytest.mark.parametrize(("magic", "extension"), [("P2", "pgm"), ("P3", "ppm"), ("P5", "pgm"), ("P6", "ppm")])
def test_portable_maps_are_read_as_text_and_as_bytes(magic, extension):
    image = gradient(3, 5)
    values = image if extension == "ppm" else image[..., 0]
    body = values.tobytes() if magic in ("P5", "P6") else " ".join(map(str, values.ravel().tolist())).encode()
    data = f"{magic}\n# a comment\n5 3\n255\n".encode() + body
    assert sniff(data) == extension
    assert picture_problem(data) is None
    assert upright_size(data) == (5, 3)
    expected = image if extension == "ppm" else np.repeat(image[..., :1], 3, axis=2)
    np.testing.assert_array_equal(decode(data), expected)


def test_jpeg_keeps_colours_and_resize_keeps_means():
    image = gradient(64, 64)
    assert np.abs(decode(encode_jpeg(image)).astype(int) - image).mean() < 2
    for side in (16, 64, 100):
        assert resize(image, side).shape == (side, side, 3)
        assert np.abs(resize(image, side).mean((0, 1)) - image.mean((0, 1))).max() < 2


def test_a_mask_needs_a_picture():
    for data in (b"", b"no mask"):
        with pytest.raises(PictureError, match="mask"):
            decode_grey(data)
