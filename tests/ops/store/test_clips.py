"""Video bytes: there and back, and what is wrong with them."""

import numpy as np
import pytest

from ops.runtime.errors import PictureError
from ops.store.clips import decode_clip, encode_clip, frame_rate


def frames(count=6):
    y, x = np.mgrid[:48, :64]
    return [np.stack([x * 3, y * 4, 0 * x + 25 * k], axis=-1).astype(np.uint8) for k in range(count)]


def test_there_and_back():
    data = encode_clip(frames(), 12.5)
    assert data == encode_clip(frames(), 12.5)
    assert frame_rate(data) == pytest.approx(12.5)
    back = list(decode_clip(data))
    assert len(back) == 6
    for a, b in zip(back, frames(), strict=True):
        assert a.shape == b.shape
        assert np.abs(a.astype(int) - b).mean() < 6  # red stays red


def test_one_frame_is_a_clip_and_none_is_not():
    assert len(list(decode_clip(encode_clip(frames(1), 25)))) == 1
    with pytest.raises(ValueError, match="at least one"):
        encode_clip([], 25)


def test_frames_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        encode_clip([frames(1)[0], frames(1)[0][:32]], 25)


@pytest.mark.parametrize("data", [b"", b"no video", encode_clip(frames(), 25)[:200]])
def test_what_is_no_clip_is_named(data):
    for read in (lambda: list(decode_clip(data)), lambda: frame_rate(data)):
        with pytest.raises(PictureError) as caught:
            read()
        assert caught.value.reason == "not_a_clip"
