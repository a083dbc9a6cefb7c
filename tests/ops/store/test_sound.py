"""A clip's sound under another video: the same packets, from the right second on; without any, nothing changes."""

import av
import numpy as np
import pytest

from ops.store.clips import decode_clip, encode_clip
from ops.store.sound import lay_sound


def silent(path, seconds=1.0, rate=10.0):
    path.write_bytes(encode_clip([np.full((32, 32, 3), 9 * n, np.uint8) for n in range(round(seconds * rate))], rate))
    return path


def tone(path, seconds=3.0, rate=16000):
    """An mp4 with a tone that starts at one second and a half."""
    with av.open(str(path), "w") as file:
        track = file.add_stream("aac", rate=rate, layout="mono")
        time = np.arange(round(seconds * rate)) / rate
        wave = (0.5 * np.sin(2 * np.pi * 440 * time) * (time > 1.5)).astype(np.float32)[None]
        for begin in range(0, wave.shape[1], 1024):
            part = np.ascontiguousarray(wave[:, begin : begin + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, begin
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path


def heard(path):
    """Seconds of sound, and when it first is loud."""
    with av.open(str(path)) as file:
        frames = [(float(f.pts * f.time_base), np.abs(f.to_ndarray()).max()) for f in file.decode(audio=0)]
    return frames[-1][0] - frames[0][0], next((time for time, loud in frames if loud > 0.2), None)


@pytest.mark.parametrize(("start", "loud"), [(0.0, 1.5), (1.0, 0.5)])
def test_the_sound_begins_where_the_video_does_and_ends_with_it(tmp_path, start, loud):
    video, clip = silent(tmp_path / "video.mp4", 2.0), tone(tmp_path / "clip.mp4")
    before = [frame.tobytes() for frame in decode_clip(video.read_bytes())]
    assert lay_sound(clip, video, start) is None
    assert [frame.tobytes() for frame in decode_clip(video.read_bytes())] == before
    seconds, first = heard(video)
    assert seconds == pytest.approx(2.0, abs=0.15)
    assert first == pytest.approx(loud, abs=0.15)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "video.mp4"]


def test_without_sound_the_video_stays_as_it_is(tmp_path):
    video = silent(tmp_path / "video.mp4")
    before = video.read_bytes()
    assert lay_sound(silent(tmp_path / "clip.mp4"), video) == "the clip has no sound"
    (tmp_path / "text.mp4").write_text("no clip")
    assert "cannot be put into an mp4" in lay_sound(tmp_path / "text.mp4", video)
    assert video.read_bytes() == before
