"""What a media file holds, without reading it whole: its streams, their sizes, and when they start and end."""

from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from omniqa.errors import MediaError
from omniqa.media.access import DEFAULT_ACCESS, Access
from omniqa.media.container import (
    Damage,
    Kind,
    Stream,
    clock_zero,
    main_stream,
    open_media,
    packets,
    seek,
    spacing,
    time_base,
    timed_frames,
)
from omniqa.media.watch import watched

# Raw streams have no table of contents: FFmpeg guesses their length from the bit rate, often wrongly.
_RAW_FORMATS = {"aac", "ac3", "eac3", "amr", "dts", "h264", "hevc", "loas", "m4v", "mp3", "mpegvideo", "truehd"}
# Matroska keeps a length for the whole file only, which FFmpeg passes on as that of some of its streams.
_NO_STREAM_DURATION = _RAW_FORMATS | {"matroska,webm"}
_TAIL = Fraction(10)  # seconds before the container's end from where the last packets are looked for


@dataclass(frozen=True)
class VideoStream:
    """The picture. Times are seconds on the file's clock.

    Attributes:
        start: when the first frame is shown.
        end: when the last frame stops being shown.
        width: as displayed, after rotation; pixels are taken as square.
        height: likewise.
        rotation: degrees clockwise, 0, 90, 180 or 270, by which the stored picture is turned to be shown (mirroring
            is applied to frames, too, and reads as 180 here).
        frame_rate: mean frames per second, None where the file does not tell.
        codec: FFmpeg's name of the decoder.
    """

    start: Fraction
    end: Fraction
    width: int
    height: int
    rotation: int
    frame_rate: Fraction | None
    codec: str


@dataclass(frozen=True)
class AudioStream:
    """The sound. Times are seconds on the file's clock, `start` slightly negative where an encoder primed.

    Attributes:
        start: when the first sample is heard.
        end: when the last has been heard.
        sample_rate: stored samples per second and channel.
        channels: their number.
        codec: FFmpeg's name of the decoder.
    """

    start: Fraction
    end: Fraction
    sample_rate: int
    channels: int
    codec: str


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds: of each kind the stream a player would choose.

    Attributes:
        path: as it was given.
        format: FFmpeg's name of the container.
        duration: end of the longer stream, in seconds on the file's clock.
        video: None where there is no picture (cover art is none).
        audio: None where there is no sound.
        access: how it was opened, and is opened again.
    """

    path: str
    format: str
    duration: Fraction
    video: VideoStream | None
    audio: AudioStream | None
    access: Access = DEFAULT_ACCESS


def probe(path: str | Path, access: Access = DEFAULT_ACCESS) -> MediaInfo:
    """Read what a file holds. One frame of each stream is decoded, as headers may lack its size, rotation or rate.

    Raises:
        MediaError: the file is not found, no regular file, empty, not media, has neither picture nor sound or no such
            audio track, or can't be read on for a minute.
    """
    return watched(lambda progress: read_info(path, access), path, lambda done: None)


def read_info(path: str | Path, access: Access) -> MediaInfo:
    """Like `probe`, without the watch over it."""
    with open_media(path, access) as container:
        name = container.format.name
    video, audio = _probe_video(path, access), _probe_audio(path, access)
    ends = [stream.end for stream in (video, audio) if stream is not None]
    if not ends:
        raise MediaError(f"{path} holds neither a picture nor sound that can be read.")
    return MediaInfo(str(path), name, max(ends), video, audio, access)


def _probe_video(path: str | Path, access: Access) -> VideoStream | None:
    with open_media(path, access) as container:
        stream = main_stream(container, "video")
        span = _span(container, stream) if stream else None
        if not isinstance(stream, av.VideoStream) or span is None:
            return None
        rate = stream.average_rate or stream.guessed_rate or None
        codec, width, height = stream.codec_context.name, stream.width, stream.height
    frame, turns = _first_frame(path, "video", access), 0
    if frame is not None:
        width, height, turns = frame.width, frame.height, round(-frame.rotation / 90) % 4
    if turns % 2:
        width, height = height, width
    return VideoStream(*span, width, height, 90 * turns, rate, codec) if width and height else None


def _probe_audio(path: str | Path, access: Access) -> AudioStream | None:
    with open_media(path, access) as container:
        stream = main_stream(container, "audio", access.audio_track)
        span = _span(container, stream) if stream else None
        if not isinstance(stream, av.AudioStream) or span is None:
            return None
        codec, rate, channels = stream.codec_context.name, stream.sample_rate, stream.channels
    frame = _first_frame(path, "audio", access)
    if frame is not None:  # headers may lack the rate (transport streams) or give half of it (HE-AAC)
        rate, channels = frame.sample_rate, frame.layout.nb_channels
    return AudioStream(*span, rate, channels, codec)


def _first_frame(path: str | Path, kind: Kind, access: Access) -> Any:
    """The first frame that can be decoded, None where none can."""
    with closing(timed_frames(path, kind, Fraction(0), Damage(), access)) as frames:
        return next((timed.frame for timed in frames), None)


def _span(container: InputContainer, stream: Stream) -> tuple[Fraction, Fraction] | None:
    """Start and end of a stream on the file's clock; None where it holds nothing."""
    name = container.format.name
    known_start = stream.start_time is not None and name not in _RAW_FORMATS
    known_length = known_start and name not in _NO_STREAM_DURATION
    start = (stream.start_time or 0) * time_base(stream) - clock_zero(container)
    said = start + stream.duration * time_base(stream) if known_length and stream.duration else None
    if said is not None and isinstance(stream, av.AudioStream):
        return start, said
    # MP4 files count a picture's time as it is stored, too short where the frame rate varies. The last packets tell,
    # and only those are read where a seek finds them.
    tail = Fraction(container.duration or 0, av.time_base) - _TAIL
    sought = known_start and tail > 0 and seek(container, stream, tail)
    span = _packet_span(container, stream)
    if span is None and said is None and sought:
        container.seek(container.start_time)
        span = _packet_span(container, stream)
    if span is None:
        return None if said is None else (start, said)
    return start if known_start else span[0], max(span[1], said or span[1])


def _packet_span(container: InputContainer, stream: Stream) -> tuple[Fraction, Fraction] | None:
    """Start of the first packet and end of the last, from where the container stands; None where there is none."""
    zero, tick, step = clock_zero(container), time_base(stream), spacing(stream)
    first, last, end = None, Fraction(0), Fraction(0)
    # Damage met here is met again, and reported, by whoever decodes the stream.
    for packet in packets(container, stream, Damage()):
        if not packet.size or packet.is_discard:  # the end of the stream, or cut off by the edit list
            continue
        start = end if packet.pts is None else packet.pts * tick - zero
        end = start + max((packet.duration or 0) * tick, step)
        first = start if first is None else min(first, start)
        last = max(last, end)
    return None if first is None else (first, last)
