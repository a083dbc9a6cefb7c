"""Sound of a clip under the video that was made from it. Packets are copied, not coded anew: nothing is lost."""

from __future__ import annotations

from pathlib import Path

import av
import av.error

from ops.runtime.publish import publish


def lay_sound(clip: Path, video: Path, start: float = 0.0) -> str | None:
    """Put a clip's sound under an mp4.

    Args:
        clip: where the sound is.
        video: the .mp4 that gets it; left as it is where there is none.
        start: second of the clip at which the video begins.

    Returns:
        None where it was done, else why not, in a few words.
    """
    try:
        with av.open(str(clip)) as source, av.open(str(video)) as pictures:
            if not source.streams.audio:
                return "the clip has no sound"
            heard, seen = source.streams.audio[0], pictures.streams.video[0]
            with publish(video) as temporary:
                part = temporary.with_name(temporary.name + ".mp4")  # the format goes by the name
                try:
                    _mux(source, pictures, heard, seen, part, start)
                    part.replace(temporary)
                finally:
                    part.unlink(missing_ok=True)
    except (av.error.FFmpegError, ValueError) as error:
        return f"its sound cannot be put into an mp4: {error}"
    return None


def _mux(source, pictures, heard, seen, part: Path, start: float) -> None:
    with av.open(str(part), "w") as whole:
        picture_track, sound_track = whole.add_stream_from_template(seen), whole.add_stream_from_template(heard)
        end = 0.0
        for packet in pictures.demux(seen):
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                packet.stream = picture_track
                whole.mux(packet)
        for packet in source.demux(heard):
            if packet.pts is None:
                continue
            time = float(packet.pts * packet.time_base)
            if start <= time < start + end:
                shift = round(start / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = sound_track
                whole.mux(packet)
