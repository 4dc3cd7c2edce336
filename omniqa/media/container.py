"""Opening media, choosing its streams, and decoding one of them with times on the file's clock.

The clock's zero is the container's start time (a recording cut from a broadcast starts at 1.4 s, at 9 h, or, where the
clock wraps soon after, below 0; a player shows it from 0). Containers that mean what lies before their raw zero to be
left out (encoder priming, an edit list's pre-roll) have their zero there at the earliest.
"""

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from omniqa.errors import MediaError, StorageError
from omniqa.media.access import (
    DEFAULT_ACCESS,
    LONGEST_FRAME,
    PACKETS,
    STALL_SECONDS,
    STREAMS,
    Access,
    decoder_limits,
    decoder_threads,
    is_address,
    refused,
)
from omniqa.media.claims import claims_tags_beyond_end, is_only_claimed
from omniqa.media.clock import STEADY, Clock, believable
from omniqa.media.colour_tags import ColourTags
from omniqa.media.download import place
from omniqa.media.geometry import PixelAspect
from omniqa.media.watchdog import heartbeat
from omniqa.memory import is_out_of_memory, out_of_memory

Kind = Literal["video", "audio"]
Stream: TypeAlias = VideoStream | AudioStream
Frame: TypeAlias = av.VideoFrame | av.AudioFrame

# In these, the index is written by the muxer, and tells before anything is read where keyframes are.
INDEXED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_NOT_A_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails
_LEADS = (Fraction(1), Fraction(20))  # how far before the wanted time a seek aims, one try after the other
_WORTH_SEEKING = Fraction(4)  # less than this is decoded about as fast as sought
_DEMUX_RETRIES = 8
_STREAMS_COUNTED = 10 * STREAMS  # of a file that has too many; beyond that it is refused as taking too much memory
_USUAL_STEP = Fraction(1, 25)  # from frame to frame, where a file does not say
_LONGEST_STEP = Fraction(1)
_TRIMMING = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "ogg"}
_TAG_LENGTH = 30
# Tags that are not UTF-8 must not keep a file from being opened. PyAV up to 18 must be told; 19 never minds them.
_TAG_ERRORS: dict[str, Any] = {"metadata_errors": "ignore"} if hasattr(InputContainer, "metadata_errors") else {}

_STORAGE = {
    errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EBADF, errno.ENODEV, errno.ENXIO,
    errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOTCONN, errno.EREMOTEIO,
}  # fmt: skip
# Demuxers of these say EIO, too, where the file ends within a piece.
_EIO_AT_THE_END = {
    "4xm", "bink", "dxa", "flic", "mm", "mtv", "rl2", "roq", "smk", "thp", "yuv4mpegpipe",
}  # fmt: skip


@dataclass
class Damage:
    """What could not be read of a stream; filled in while it is decoded.

    Attributes:
        packets: how many pieces were left out.
        broken_off: FFmpeg's reason, where reading ended before the file did.
        gaps_closed: seconds of silence that the timestamps claim, and that were not filled in.
    """

    packets: int = 0
    broken_off: str | None = None
    gaps_closed: Fraction = Fraction(0)


class Timed(NamedTuple):
    """A decoded frame and when it is shown or heard.

    Attributes:
        start: seconds on the file's clock.
        end: likewise.
        frame: av.VideoFrame or av.AudioFrame, as was asked for.
        colour: what the file says of a picture's colours.
        pixel_aspect: a picture's pixels' width by their height.
    """

    start: Fraction
    end: Fraction
    frame: Any
    colour: ColourTags = ColourTags()
    pixel_aspect: Fraction = Fraction(1)


@contextmanager
def open_media(path: str | Path, access: Access = DEFAULT_ACCESS) -> Iterator[InputContainer]:
    """Open a file for reading; an error inside the block is told as `reading_errors` does.

    Only formats that hold their media themselves are opened; of those that name other files or addresses, only
    network playlists are, and only where `access` allows it.

    Raises:
        MediaError: the file is not found, no regular file, empty, or not readable as media.
        StorageError: it can't be read from where it is.
        OutOfMemoryError: memory ran out inside FFmpeg.
    """
    with reading_errors(path):
        address = _address(path, access)
        with _opened(address, access) as container:
            heartbeat()
            if container.format.name == "tty":  # FFmpeg draws any .txt file as text on a screen
                raise MediaError(f"{path} is a text file, not a media file.")
            if container.format.name == "webp_pipe" and _is_animated_webp(address):
                raise MediaError(f"{path} is an animated WebP, which FFmpeg can't decode; convert it to GIF or MP4.")
            yield container


@contextmanager
def reading_errors(path: str | Path) -> Iterator[None]:
    """Turn errors of FFmpeg and of the file system into omniqa's, which name the file.

    Raises:
        MediaError: the file is not readable as media.
        StorageError: it can't be read from where it is.
        OutOfMemoryError: memory ran out.
    """
    try:
        yield
    except av.error.ArgumentError as error:
        raise MediaError(
            f"{path} is too damaged to be read, or a playlist or other format that omniqa does not open."
        ) from error
    except av.error.ExitError as error:
        raise MediaError(f"{path} was given up: nothing of it could be read for {STALL_SECONDS:g} s.") from error
    except av.error.InvalidDataError as error:
        raise MediaError(f"{path} is not a media file, or too damaged to be read.") from error
    except (av.error.FFmpegError, OSError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(error, f" while {path} was read") from error
        of_ffmpeg = isinstance(error, av.error.FFmpegError)
        kind = MediaError if of_ffmpeg and error.errno not in _STORAGE else StorageError
        raise kind(f"{path} can't be read: {error.strerror}.") from error


def is_damage(error: Exception) -> bool:
    """Whether what FFmpeg complains of is in the data, to be left out and counted.

    Not so if memory ran out, or if the file can't be read from where it is: what was not read for that is not damaged.
    """
    of_storage = isinstance(error, OSError | av.error.FFmpegError) and error.errno in _STORAGE
    return not (of_storage or is_out_of_memory(error))


def _address(path: str | Path, access: Access) -> str:
    """What FFmpeg is told to open."""
    if is_address(str(path)) and not os.path.exists(path):
        if not access.allow_network:
            raise refused(path)
        return place(str(path))
    if not os.path.exists(path):
        raise MediaError(f"{path} was not found.")
    if os.path.isdir(path):
        raise MediaError(f"{path} is a folder, not a media file.")
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise MediaError(f"{path} is not a regular file; media must be one, to be sought in.")
    if about.st_size == 0:
        raise MediaError(f"{path} is empty.")
    return f"file:{path}"  # "file:" keeps FFmpeg from taking "a:b.mp4" or "concat:x" for a protocol


def _opened(address: str, access: Access) -> InputContainer:
    heartbeat()
    name = address.removeprefix("file:")
    too_much = f"{name} is too damaged to be read: its header claims sizes that it does not hold."
    if name != address and claims_tags_beyond_end(name):
        raise MediaError(too_much)
    try:
        return _open(address, access.options())
    except av.error.MemoryError as error:  # FFmpeg's error for too many streams, too
        if is_only_claimed(error, partial(_holds_many_streams, address, access)):
            raise MediaError(too_much) from None
        if _holds_many_streams(address, access):
            raise MediaError(f"{name} holds more than {STREAMS} streams; omniqa reads no such file.") from None
        raise


def _open(address: str, options: dict[str, str]) -> InputContainer:
    return av.open(address, options=options, timeout=STALL_SECONDS, **_TAG_ERRORS)


def _holds_many_streams(address: str, access: Access) -> bool:
    """Whether a file can be opened, and has more streams than are allowed."""
    with _open(address, access.options() | {"max_streams": str(_STREAMS_COUNTED)}) as container:
        return len(container.streams) > STREAMS


def _is_animated_webp(address: str) -> bool:
    """Whether the extended header of a WebP file has its animation flag set."""
    if not address.startswith("file:"):
        return False
    with open(address.removeprefix("file:"), "rb") as file:
        head = file.read(21)
    return head[12:16] == b"VP8X" and bool(head[20] & 2)


def main_stream(container: InputContainer, kind: Kind, audio_track: int | None = None) -> Stream | None:
    """The stream a player would choose, or None. Cover art, and codecs FFmpeg does not know, do not count.

    Raises:
        MediaError: there is sound, but no such track.
    """
    streams = container.streams.video if kind == "video" else container.streams.audio
    usable: list[Any] = [s for s in streams if s.codec_context is not None and not s.disposition & _NOT_A_VIDEO]
    if kind == "audio" and audio_track is not None and usable:
        return _track(container, usable, audio_track)
    # In a broadcast of several programmes, the sound is the one of the picture's own programme.
    related = main_stream(container, "video") if kind == "audio" else None
    best: Any = container.streams.best(kind, related)
    return best if best in usable else next(iter(usable), None)


def _track(container: InputContainer, tracks: list[AudioStream], number: int) -> AudioStream:
    if number <= len(tracks):
        return tracks[number - 1]
    path = container.name.removeprefix("file:")
    listed = "; ".join(f"{k} ({_description(track)})" for k, track in enumerate(tracks, 1))
    raise MediaError(f"{path} has no audio track {number}. It has {listed}.")


def _description(track: AudioStream) -> str:
    facts = [track.codec_context.name, f"{track.channels} ch", f"{track.sample_rate} Hz"]
    tags = (track.metadata.get(tag, "") for tag in ("language", "title"))
    # Tags are written by others: nothing in them may reach a terminal's controls.
    facts += ["".join(filter(str.isprintable, tag))[:_TAG_LENGTH] for tag in tags if tag]
    return ", ".join(facts)


def trims_negative(container: InputContainer) -> bool:
    """Whether the container means what lies before its raw zero to be left out: priming, or what an edit list cuts."""
    return container.format.name in _TRIMMING


def clock_zero(container: InputContainer) -> Fraction:
    """Where the file's clock starts, in seconds on the raw axis of the timestamps."""
    start = Fraction(container.start_time or 0, av.time_base)
    return max(start, Fraction(0)) if trims_negative(container) else start


def zero_of(container: InputContainer, clock: Clock) -> Fraction:
    """Where the clock's 0 is, in seconds of continuous timestamps."""
    return clock_zero(container) if clock.zero is None else clock.zero


def time_base(stream: Stream) -> Fraction:
    """Seconds per unit of the stream's timestamps."""
    return Fraction(stream.time_base) if stream.time_base else Fraction(1, av.time_base)  # PyAV 19 has its own type


def spacing(stream: Stream) -> Fraction:
    """Seconds from one frame of the stream to the next, as far as its header tells (0 for sound); 1 s at most.

    Of a rate that varies, the header tells a mean, which is no frame's own.
    """
    if not isinstance(stream, VideoStream):
        return Fraction(0)
    rate = stream.average_rate or stream.guessed_rate
    return min(1 / Fraction(rate), _LONGEST_STEP) if rate else _USUAL_STEP


def lasting(duration: int | None, tick: Fraction, step: Fraction) -> Fraction:
    """Seconds for which a frame is shown: what the file says, if that can be, else one step."""
    said = (duration or 0) * tick
    return said if 0 < said <= LONGEST_FRAME else step


def seek_targets(since: Fraction) -> tuple[Fraction, ...]:
    """Where to seek to, one try after the other, to begin at a time; none where it is near the start anyway."""
    return tuple(since - lead for lead in _LEADS if since - lead > _WORTH_SEEKING)


def seek(container: InputContainer, stream: Stream, target: Fraction) -> bool:
    """Go to the stream's keyframe before `target` (on the file's clock); False where the file can't be sought in."""
    try:
        container.seek(int((target + clock_zero(container)) / time_base(stream)), stream=stream)
    except (av.error.FFmpegError, OverflowError) as error:  # a time beyond 64 bits
        if not is_damage(error):
            raise
        return False
    return True


def packets(
    container: InputContainer, stream: Stream, damage: Damage, clock: Clock = STEADY, since: Fraction | None = None
) -> Iterator[Packet]:
    """The stream's packets, their timestamps made continuous by the clock.

    Args:
        container: stands at its start, unless the clock is steady.
        stream: the one that is wanted.
        damage: takes down what could not be read.
        clock: the file's.
        since: where given, packets well before this time (seconds of continuous timestamps) are left out.
    """
    tick = time_base(stream)
    shifts, shift = clock.shifts_of(stream.index, tick), 0
    early = None if since is None else int((since - _LEADS[0]) / tick)
    for number, packet in enumerate(demuxed(container, (stream,), damage)):
        if shifts and number >= shifts[0][0]:
            shift = shifts.popleft()[1]
        if not (clock.steady or believable(packet.pts, packet.dts, tick)):
            packet.pts = packet.dts
        if shift:
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift
        if early is None or packet.pts is None or packet.pts >= early:
            yield packet


def picture_seconds(container: InputContainer, enough: Fraction) -> Fraction:
    """How long the main picture is shown: each stored frame as long as it says, up to a second. No more than `enough`.

    Unlike a duration, a header can't claim this: it takes frames.
    """
    stream, total = main_stream(container, "video"), Fraction(0)
    if stream is None:
        return total
    tick, step = time_base(stream), spacing(stream)
    for packet in demuxed(container, (stream,), Damage()):
        total += min(lasting(packet.duration, tick, step), _LONGEST_STEP) if packet.size else 0
        if total >= enough:
            return enough
    return total


def demuxed(container: InputContainer, streams: tuple[Stream, ...], damage: Damage) -> Iterator[Packet]:
    """The streams' packets as they lie in the file; reading goes on after an error, but not after many on end."""
    failures, reason, left, claims = 0, None, PACKETS * len(streams), False
    while failures <= _DEMUX_RETRIES:
        heartbeat()
        try:
            for packet in container.demux(*streams):
                heartbeat()
                damage.packets += failures > 0
                failures = 0
                if left == 0:
                    damage.broken_off = f"more than {PACKETS} packets"
                    return
                left -= 1
                yield packet
            return
        except IndexError:  # PyAV, at the end, trips over streams that appeared on the way
            return
        except av.error.FFmpegError as error:
            claims = claims or is_only_claimed(error, partial(_read_through, container))
            if not (is_damage(error) or _reads_on(container, error) or claims):
                raise
            failures, reason = failures + 1, error.strerror
    damage.broken_off = reason


def _read_through(container: InputContainer) -> None:
    """Read the packets of a file once more."""
    with _open(container.name, container.options) as again:
        for _ in again.demux():
            heartbeat()


def _reads_on(container: InputContainer, error: av.error.FFmpegError) -> bool:
    """Whether an error means less than it says: nothing there yet, or, of some demuxers, a file that is cut off."""
    cut_off = error.errno == errno.EIO and container.format.name in _EIO_AT_THE_END
    return cut_off or error.errno == errno.EAGAIN


def decode(
    container: InputContainer, stream: Stream, damage: Damage, clock: Clock = STEADY, since: Fraction | None = None
) -> Iterator[Frame]:
    """Decode one stream from where the container stands; packets that can't be decoded are counted, and left out."""
    for packet in packets(container, stream, damage, clock, since):
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            if not (is_damage(error) or is_only_claimed(error, packet.decode)):
                raise
            damage.packets += 1
            continue
        heartbeat()
        yield from frames


def timed_frames(
    path: str | Path,
    kind: Kind,
    since: Fraction,
    damage: Damage,
    access: Access = DEFAULT_ACCESS,
    clock: Clock = STEADY,
) -> Generator[Timed, None, None]:
    """Decode the main stream of a kind, frame by frame in order of presentation, holding one frame at a time.

    Args:
        path: the media file.
        kind: "video" or "audio".
        since: what comes before this time may be left out (seconds on the file's clock); the frame shown at it is not.
        damage: takes down what could not be read.
        access: how the file is opened.
        clock: the file's; unless it is steady, the file is read from its start.

    Raises:
        MediaError: the file can't be opened, or has no stream of that kind.
    """
    for target in (*seek_targets(since), None) if clock.steady else (None,):
        damage.packets, damage.broken_off = 0, None
        with open_media(path, access) as container:
            stream = main_stream(container, kind, access.audio_track)
            if stream is None:
                raise MediaError(f"{path} has no {kind} stream.")
            prepare(stream)
            if target is not None and not seek(container, stream, target):
                continue
            zero = zero_of(container, clock)
            skipping = None if clock.steady or kind == "video" else since + zero
            frames = on_clock(decode(container, stream, damage, clock, skipping), stream, zero)
            first = next(frames, None)
            # A seek may land anywhere (in a transport stream, between two keyframes): only the timestamps tell.
            if target is not None and (first is None or first.frame.pts is None or first.start > since):
                continue
            if first is not None:
                yield first
                yield from frames
            return


def prepare(stream: Stream) -> None:
    """Set up the decoder: as many threads, and as much memory, as are allowed."""
    context = stream.codec_context
    context.thread_type = "AUTO"
    context.options = decoder_limits()
    if isinstance(stream, VideoStream):
        context.thread_count = decoder_threads(stream.width * stream.height)


def on_clock(frames: Iterator[Frame], stream: Stream, zero: Fraction) -> Iterator[Timed]:
    """Frames with their times, in seconds from `zero` on."""
    end, tick, step = Fraction(0), time_base(stream), spacing(stream)
    pictures = _Pictures(stream) if isinstance(stream, VideoStream) else None
    for frame in frames:
        # Raw streams carry no timestamps: there, each frame follows the one before.
        start = end if frame.pts is None else frame.pts * tick - zero
        if isinstance(frame, av.AudioFrame):
            end = start + Fraction(frame.samples, frame.sample_rate)
            yield Timed(start, end, frame)
        elif pictures is not None:
            end = start + lasting(frame.duration, tick, step)
            yield pictures.timed(start, end, frame)


class _Pictures:
    """What a stream says of its pictures. Made before its decoder starts, which may forget the container's word."""

    def __init__(self, stream: VideoStream) -> None:
        self._colour, self._aspect = ColourTags.of(stream.codec_context), PixelAspect(stream)

    def timed(self, start: Fraction, end: Fraction, frame: av.VideoFrame) -> Timed:
        return Timed(start, end, frame, ColourTags.of(frame).within(self._colour), self._aspect.of(frame))
