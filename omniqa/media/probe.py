"""What a media file holds, without reading it whole: its streams, their sizes, and when they start and end."""

from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from omniqa.errors import MediaError
from omniqa.media.access import CLIP_SECONDS, DEFAULT_ACCESS, GAP_SECONDS, Access
from omniqa.media.clock import STEADY, Clock, ClockScan
from omniqa.media.container import (
    INDEXED,
    Damage,
    Kind,
    Stream,
    Timed,
    clock_zero,
    demuxed,
    lasting,
    main_stream,
    open_media,
    packets,
    seek,
    spacing,
    time_base,
    timed_frames,
    trims_negative,
    zero_of,
)
from omniqa.media.download import held
from omniqa.media.geometry import believed, display_size, shown_size
from omniqa.media.watchdog import run_watched

# Raw streams have no table of contents: FFmpeg guesses their length from the bit rate, often wrongly.
_RAW_FORMATS = {"aac", "ac3", "eac3", "amr", "dts", "h264", "hevc", "loas", "m4v", "mp3", "mpegvideo", "truehd"}
# Matroska keeps a length for the whole file only, which FFmpeg passes on as that of some of its streams.
_NO_STREAM_DURATION = _RAW_FORMATS | {"matroska,webm"}
_TAIL = Fraction(10)  # seconds before the container's end from where the last packets are looked for
# These store timestamps that may jump, and no table from which that could be seen: they are read through.
_STAMPED = {"asf", "flv", "ivf", "live_flv", "nsv", "nut", "pva", "rm", "wtv"}
_MAY_JUMP: int = av.format.Flags.ts_discont.value  # type: ignore[assignment]  # FFmpeg's mark of formats whose clock may restart or leap
# Fewer bytes a second than any sound takes: such a file is small, or holds nothing for most of its time.
_SPARSE = 2000

Span = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class VideoStream:
    """The picture. Times are seconds on the file's clock.

    Attributes:
        start: when the first frame is shown.
        end: when the last frame stops being shown.
        width: as displayed, with square pixels, after rotation.
        height: likewise.
        rotation: degrees clockwise, 0, 90, 180 or 270, by which the stored picture is turned to be shown (mirroring
            is applied to frames, too, and reads as 180 here).
        frame_rate: mean frames per second, None where the file does not tell.
        codec: FFmpeg's name of the decoder.
        pixel_aspect: the stored pixels' width by their height.
        hdr: "pq", "hlg" or "bt2020", if its colours are converted to ordinary ones (`omniqa.media.colour`).
    """

    start: Fraction
    end: Fraction
    width: int
    height: int
    rotation: int
    frame_rate: Fraction | None
    codec: str
    pixel_aspect: Fraction = Fraction(1)
    hdr: str | None = None


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
        clock: what makes the file's timestamps continuous.
    """

    path: str
    format: str
    duration: Fraction
    video: VideoStream | None
    audio: AudioStream | None
    access: Access = DEFAULT_ACCESS
    clock: Clock = STEADY


def opening(source: MediaInfo | str | Path) -> tuple[str | Path, Access, Clock]:
    """How a file is opened, and its clock; of a file that was not probed, the timestamps are taken as they are."""
    return (
        (source.path, source.access, source.clock)
        if isinstance(source, MediaInfo)
        else (source, DEFAULT_ACCESS, STEADY)
    )


def probe(path: str | Path, access: Access = DEFAULT_ACCESS) -> MediaInfo:
    """Read what a file holds. One frame of each stream is decoded, as headers may lack its size, rotation or rate.

    Raises:
        MediaError: the file is not found, no regular file, empty, not media, has neither picture nor sound or no such
            audio track, or can't be read on for a minute.
    """
    with held(path, access):
        return run_watched(lambda progress: _read_info(path, access), path, lambda done: None)


def _read_info(path: str | Path, access: Access) -> MediaInfo:
    with open_media(path, access) as container:
        name = container.format.name
        clock, spans = _scan(container, access)
    video, audio = _probe_video(path, access, spans), _probe_audio(path, access, spans)
    ends = [stream.end for stream in (video, audio) if stream is not None]
    if not ends:
        raise MediaError(f"{path} holds neither a picture nor sound that can be read.")
    if max(ends) > CLIP_SECONDS:
        raise MediaError(f"{path} claims to last {float(max(ends)) / 86400:.4g} days: its timestamps make no sense.")
    return MediaInfo(str(path), name, max(ends), video, audio, access, clock)


def _scan(container: InputContainer, access: Access) -> tuple[Clock, dict[int, Span]]:
    """The file's clock and, where all packets had to be read to know it, the streams' spans by their index."""
    streams = [main_stream(container, "video"), main_stream(container, "audio", access.audio_track)]
    used = tuple(stream for stream in streams if stream is not None)
    if not used or not _may_jump(container, used):
        return STEADY, {}
    about = [(s.index, isinstance(s, av.VideoStream), time_base(s), spacing(s)) for s in used]
    scan = ClockScan(about, bool(container.format.flags & _MAY_JUMP))
    # Damage met here is met again, and reported, by whoever decodes the stream.
    for packet in demuxed(container, used, Damage()):
        counts = packet.size > 0 and not packet.is_discard
        # An empty packet, which ends a stream, does not carry its index.
        scan.add(packet.stream.index, packet.pts, packet.dts, packet.duration, counts)
    clock = scan.clock(trims_negative(container))
    if clock.steady and container.format.name in INDEXED:
        return clock, {}
    zero = zero_of(container, clock)
    spans = {stream.index: scan.span(stream.index) for stream in used}
    return clock, {index: (span[0] - zero, span[1] - zero) for index, span in spans.items() if span is not None}


def _may_jump(container: InputContainer, streams: tuple[Stream, ...]) -> bool:
    """Whether the timestamps may jump, as far as can be told without reading the file."""
    name = container.format.name
    if name in _STAMPED or container.format.flags & _MAY_JUMP:
        return name not in _RAW_FORMATS
    seconds = Fraction(container.duration or 0, av.time_base)
    if name not in INDEXED or 0 < seconds <= GAP_SECONDS:
        return False
    return not seconds or container.size < seconds * _SPARSE or any(_has_hole(container, s, seconds) for s in streams)


def _has_hole(container: InputContainer, stream: Stream, seconds: Fraction) -> bool:
    """Whether the index of a stream names nothing for longer than a gap may last."""
    entries: Any = getattr(stream, "index_entries", None)  # older PyAV does not show them
    if entries is None:
        return False
    tick, last = time_base(stream), -1
    for k in range(1, int(seconds / GAP_SECONDS)):
        found = entries.search_timestamp(int(k * GAP_SECONDS / tick), backward=True, any_frame=True)
        if found >= 0 and found == last:
            return True
        last = found
    return False


def _probe_video(path: str | Path, access: Access, spans: dict[int, Span]) -> VideoStream | None:
    with open_media(path, access) as container:
        stream = main_stream(container, "video")
        span = spans.get(stream.index) or _span(container, stream) if stream else None
        if not isinstance(stream, av.VideoStream) or span is None:
            return None
        rate = stream.average_rate or stream.guessed_rate
        codec, aspect = stream.codec_context.name, believed(stream.sample_aspect_ratio)
        height, width = display_size(stream.height, stream.width, aspect)
    first, turns, hdr = _first_frame(path, "video", access), 0, None
    if first is not None:
        aspect, hdr, turns = first.pixel_aspect, first.colour.hdr, round(-first.frame.rotation / 90) % 4
        height, width = shown_size(first.frame, aspect)
    return VideoStream(*span, width, height, 90 * turns, rate, codec, aspect, hdr) if width and height else None


def _probe_audio(path: str | Path, access: Access, spans: dict[int, Span]) -> AudioStream | None:
    with open_media(path, access) as container:
        stream = main_stream(container, "audio", access.audio_track)
        span = spans.get(stream.index) or _span(container, stream) if stream else None
        if not isinstance(stream, av.AudioStream) or span is None:
            return None
        codec, rate, channels = stream.codec_context.name, stream.sample_rate, stream.channels
    first = _first_frame(path, "audio", access)
    if first is not None:  # headers may lack the rate (transport streams) or give half of it (HE-AAC)
        rate, channels = first.frame.sample_rate, first.frame.layout.nb_channels
    return AudioStream(*span, rate, channels, codec)


def _first_frame(path: str | Path, kind: Kind, access: Access) -> Timed | None:
    """The first frame that can be decoded, None where none can."""
    with closing(timed_frames(path, kind, Fraction(0), Damage(), access)) as frames:
        return next(frames, None)


def _span(container: InputContainer, stream: Stream) -> Span | None:
    """Start and end of a stream on the file's clock; None where it holds nothing."""
    name = container.format.name
    known_length = stream.duration is not None and name not in _NO_STREAM_DURATION
    # Formats that only count samples (WAV, W64, SoX) have a length, and say no start.
    counted = known_length and isinstance(stream, av.AudioStream)
    known_start = name not in _RAW_FORMATS and (stream.start_time is not None or counted)
    start = (stream.start_time or 0) * time_base(stream) - clock_zero(container)
    said = start + stream.duration * time_base(stream) if known_start and known_length and stream.duration else None
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


def _packet_span(container: InputContainer, stream: Stream) -> Span | None:
    """Start of the first packet and end of the last, from where the container stands; None where there is none."""
    zero, tick, step = clock_zero(container), time_base(stream), spacing(stream)
    first, last, end = None, Fraction(0), Fraction(0)
    # Damage met here is met again, and reported, by whoever decodes the stream.
    for packet in packets(container, stream, Damage()):
        if not packet.size or packet.is_discard:  # the end of the stream, or cut off by the edit list
            continue
        start = end if packet.pts is None else packet.pts * tick - zero
        end = start + lasting(packet.duration, tick, step)
        first = start if first is None else min(first, start)
        last = max(last, end)
    return None if first is None else (first, last)
