"""Opening media, choosing its streams, and decoding one of them with times on the file's clock.

The clock's zero is the container's start time where that is positive (a recording cut from a broadcast starts at
1.4 s or at 9 h; a player shows it from 0), and the raw zero otherwise: what lies before it (encoder priming,
pre-roll) is not shown.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from omniqa.errors import MediaError

Kind = Literal["video", "audio"]
Stream: TypeAlias = VideoStream | AudioStream
Frame: TypeAlias = av.VideoFrame | av.AudioFrame

_NOT_A_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails
_LEADS = (Fraction(1), Fraction(20))  # how far before the wanted time a seek aims, one try after the other
_WORTH_SEEKING = Fraction(4)  # less than this is decoded about as fast as sought
_DEMUX_RETRIES = 8


@dataclass
class Damage:
    """What could not be read of a stream; filled in while it is decoded.

    Attributes:
        packets: how many pieces were left out.
        broken_off: FFmpeg's reason, where reading ended before the file did.
    """

    packets: int = 0
    broken_off: str | None = None


class Timed(NamedTuple):
    """A decoded frame and when it is shown or heard, in seconds on the file's clock."""

    start: Fraction
    end: Fraction
    frame: Any  # av.VideoFrame or av.AudioFrame, as was asked for


@contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """Open a file for reading; any FFmpeg error inside the block becomes a MediaError that names the file.

    Raises:
        MediaError: the file is not found, a folder, empty, or not readable as media.
    """
    if not os.path.exists(path):
        raise MediaError(f"{path} was not found.")
    if os.path.isdir(path):
        raise MediaError(f"{path} is a folder, not a media file.")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise MediaError(f"{path} is empty.")
    try:
        # "file:" keeps FFmpeg from taking "a:b.mp4" or "concat:x" for a protocol.
        with av.open(f"file:{path}", metadata_errors="ignore") as container:
            if container.format.name == "tty":  # FFmpeg draws any .txt file as text on a screen
                raise MediaError(f"{path} is a text file, not a media file.")
            yield container
    except av.error.InvalidDataError as error:
        raise MediaError(f"{path} is not a media file, or too damaged to be read.") from error
    except av.error.FFmpegError as error:
        raise MediaError(f"{path} can't be read: {error.strerror}.") from error


def main_stream(container: InputContainer, kind: Kind) -> Stream | None:
    """The stream a player would choose, or None. Cover art, and codecs FFmpeg does not know, do not count."""
    streams = container.streams.video if kind == "video" else container.streams.audio
    usable = [s for s in streams if s.codec_context is not None and not s.disposition & _NOT_A_VIDEO]
    best = container.streams.best(kind)
    return best if best in usable else next(iter(usable), None)


def clock_zero(container: InputContainer) -> Fraction:
    """Where the file's clock starts, in seconds on the raw axis of the timestamps."""
    return max(Fraction(container.start_time or 0, av.time_base), Fraction(0))


def time_base(stream: Stream) -> Fraction:
    """Seconds per unit of the stream's timestamps."""
    return stream.time_base or Fraction(1, av.time_base)


def spacing(stream: Stream) -> Fraction:
    """Seconds from one frame of the stream to the next, as far as its header tells (0 for sound)."""
    if not isinstance(stream, VideoStream):
        return Fraction(0)
    rate = stream.average_rate or stream.guessed_rate
    return 1 / Fraction(rate) if rate else Fraction(1, 25)


def seek(container: InputContainer, stream: Stream, target: Fraction) -> bool:
    """Go to the stream's keyframe before `target` (on the file's clock); False where the file can't be sought in."""
    try:
        container.seek(int((target + clock_zero(container)) / time_base(stream)), stream=stream)
    except av.error.FFmpegError:
        return False
    return True


def packets(container: InputContainer, stream: Stream, damage: Damage) -> Iterator[Packet]:
    """The stream's packets; reading goes on after an error in the container, but not after many on end."""
    failures, reason = 0, None
    while failures <= _DEMUX_RETRIES:
        try:
            for packet in container.demux(stream):
                damage.packets += failures > 0
                failures = 0
                yield packet
            return
        except IndexError:  # PyAV, at the end, trips over streams that appeared on the way
            return
        except av.error.FFmpegError as error:
            failures, reason = failures + 1, error.strerror
    damage.broken_off = reason


def decode(container: InputContainer, stream: Stream, damage: Damage) -> Iterator[Frame]:
    """Decode one stream from where the container stands; packets that can't be decoded are counted, and left out."""
    for packet in packets(container, stream, damage):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            damage.packets += 1
            continue
        yield from frames


def timed_frames(path: str | Path, kind: Kind, since: Fraction, damage: Damage) -> Generator[Timed, None, None]:
    """Decode the main stream of a kind, frame by frame in order of presentation, holding one frame at a time.

    Args:
        path: the media file.
        kind: "video" or "audio".
        since: what comes before this time may be left out (seconds on the file's clock); the frame shown at it is not.
        damage: takes down what could not be read.

    Raises:
        MediaError: the file can't be opened, or has no stream of that kind.
    """
    for target in (*(since - lead for lead in _LEADS if since - lead > _WORTH_SEEKING), None):
        damage.packets, damage.broken_off = 0, None
        with open_media(path) as container:
            stream = main_stream(container, kind)
            if stream is None:
                raise MediaError(f"{path} has no {kind} stream.")
            stream.codec_context.thread_type = "AUTO"
            if target is not None and not seek(container, stream, target):
                continue
            frames = _on_clock(decode(container, stream, damage), stream, clock_zero(container))
            first = next(frames, None)
            # A seek may land anywhere (in a transport stream, between two keyframes): only the timestamps tell.
            if target is not None and (first is None or first.frame.pts is None or first.start > since):
                continue
            if first is not None:
                yield first
                yield from frames
            return


def _on_clock(frames: Iterator[Frame], stream: Stream, zero: Fraction) -> Iterator[Timed]:
    end = Fraction(0)
    tick, step = time_base(stream), spacing(stream)
    for frame in frames:
        # Raw streams carry no timestamps: there, each frame follows the one before.
        start = end if frame.pts is None else frame.pts * tick - zero
        if isinstance(frame, av.AudioFrame):
            end = start + Fraction(frame.samples, frame.sample_rate)
        else:
            end = start + max((frame.duration or 0) * tick, step)
        yield Timed(start, end, frame)
