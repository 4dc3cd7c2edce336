"""The frames around wanted times, without decoding what none of them needs.

Three things are left out, and the frames that are wanted come out as if everything had been decoded:

- groups of pictures. A keyframe at or before the next wanted time starts the decoder anew; what was read since the last
  wanted time is dropped. Packets are held until it is known whether a wanted time falls among them.
- the reading of them, too, where the container's own index names a keyframe far enough ahead.
- of what has to be decoded, frames that no other frame refers to and at which no time looks.

All this believes what the container says of its packets. What the decoder then gives must bear it out; where it does
not, the file is decoded from its beginning, whole, and nothing is left out of it again.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from omniqa.errors import MediaError
from omniqa.media.access import Access
from omniqa.media.clock import STEADY, Clock
from omniqa.media.container import (
    INDEXED,
    Damage,
    Timed,
    decode,
    is_damage,
    main_stream,
    on_clock,
    open_media,
    packets,
    prepare,
    seek,
    seek_targets,
    spacing,
    time_base,
    zero_of,
)
from omniqa.media.segments import Segment, UnexpectedFrame, decode_runs

_MATROSKA = "matroska,webm"
_FEW_PACKETS = 8  # are decoded as fast as the decoder is emptied and started anew
_NEAR_BYTES = 2**20  # are read as fast as the file is sought in
_FAR_SECONDS = Fraction(4)  # where the index is not known yet, from here on it is asked for
_HELD_PACKETS, _HELD_BYTES = 4096, 2**24
_INTERLACED = range(2, 6)  # FFmpeg's AVFieldOrder: 0 unknown, 1 progressive
_KEPT = 3  # packets up to a wanted time that are decoded in any case: a frame's two fields may come in two


class SeekOvershoot(Exception):
    """A seek led beyond the wanted time."""


class Interlaced(Exception):
    """A frame holds two fields: its neighbours are needed, too, which was not known."""


def frames_for(
    path: str | Path, times: Sequence[Fraction], damage: Damage, access: Access, clock: Clock = STEADY
) -> Generator[Timed, None, None]:
    """Frames of the main video stream, in order of presentation: those shown at the times, one after each, and others.

    Where the file turns out to be other than it said, frames come again, from its beginning on. Of interlaced video,
    the frames before and after those at the times come, too.

    Args:
        path: the media file.
        times: seconds on the file's clock, rising; at least one.
        damage: takes down what could not be read.
        access: how the file is opened.
        clock: the file's; unless it is steady, the file is not sought in.

    Raises:
        MediaError: the file can't be opened, or has no video stream.
    """
    targets, leaps = deque([*(seek_targets(times[0]) if clock.steady else ()), None, None]), clock.steady
    fields = whole = False
    while True:
        whole = whole or not targets
        target = None if whole else targets.popleft()
        damage.packets, damage.broken_off = 0, None
        with open_media(path, access) as container:
            stream: Any = main_stream(container, "video")
            if stream is None:
                raise MediaError(f"{path} has no video stream.")
            prepare(stream)
            fields = fields or getattr(stream.codec_context, "field_order", 0) in _INTERLACED
            try:
                if whole:
                    frames: Iterator[Any] = decode(container, stream, damage, clock)
                else:
                    about = times_around(times, spacing(stream)) if fields else times
                    needs = _Needs(about, target, fields, leaps)
                    frames = _frames_needed(container, stream, needs, damage, clock)
                yield from on_clock(frames, stream, zero_of(container, clock))
            except SeekOvershoot:
                leaps = False
            except Interlaced:
                fields = True
                targets.appendleft(target)
            except UnexpectedFrame:
                whole = True
            else:
                return


def times_around(times: Sequence[Fraction], step: Fraction) -> list[Fraction]:
    """The times, and those at which the frames before and after are shown, if frames are one or two steps apart."""
    return sorted({time + k * step for time in times for k in range(-2, 3)})


class _Needs(NamedTuple):
    """What an attempt at decoding is to give.

    Attributes:
        times: at which frames are wanted.
        target: where to seek to before; None begins where the file does.
        fields: interlaced frames are expected: their neighbours are among the times.
        leaps: seeks are allowed on the way.
    """

    times: Sequence[Fraction]
    target: Fraction | None
    fields: bool
    leaps: bool


def _frames_needed(
    container: InputContainer, stream: VideoStream, needs: _Needs, damage: Damage, clock: Clock
) -> Iterator[av.VideoFrame]:
    """Decode what the times need. Raises Late, Interlaced, and UnexpectedFrame."""
    if needs.target is not None and not seek(container, stream, needs.target):
        raise SeekOvershoot
    zero, tick = zero_of(container, clock), time_base(stream)
    wanted = [floor((time + zero) / tick) for time in needs.times]
    read = packets(container, stream, damage, clock)
    leap = _Leap(container, stream) if needs.leaps else None
    for frame in decode_runs(required_packets(read, wanted, leap, landed=needs.target is not None), stream, damage):
        if frame.interlaced_frame and not needs.fields:
            raise Interlaced
        yield frame


class _Leap:
    """Seeks ahead, where the container's own index makes that worth while."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container, self._stream = container, stream
        self._entries: Any = getattr(stream, "index_entries", None)  # older PyAV does not show them
        self._possible = container.format.name in INDEXED and self._entries is not None
        # Matroska's index stands at the end of the file; it is read with the first seek, wherever that leads.
        self._unread = container.format.name == _MATROSKA
        self._far = floor(_FAR_SECONDS / time_base(stream))

    def worth(self, here: Packet, timestamp: int) -> bool:
        """Whether a keyframe at or before a timestamp is far from the packet read last."""
        if not self._possible:
            return False
        if self._unread and timestamp - (here.pts or 0) > self._far:
            self._unread = False
            return True
        k = self._entries.search_timestamp(timestamp)
        return k >= 0 and self._entries[k].pos - (here.pos or 0) > _NEAR_BYTES

    def go(self, timestamp: int) -> None:
        try:
            self._container.seek(timestamp, stream=self._stream)
        except av.error.FFmpegError as error:
            if not is_damage(error):
                raise
            raise SeekOvershoot from error


def required_packets(
    read: Iterator[Packet], wanted: Sequence[int], leap: _Leap | None = None, landed: bool = False
) -> Iterator[Segment]:
    """Of the packets that are read, those that the frames at the wanted times need.

    A time is passed once a packet's decoding time is beyond it: whatever follows is shown later. From the first packet
    on whose timestamps don't tell, nothing is left out.

    Args:
        read: packets in the order of the file.
        wanted: the times, in units of the timestamps, rising.
        leap: seeks ahead in what is read.
        landed: reading begins after a seek.

    Raises:
        Late: a seek led beyond the wanted time, or where timestamps don't tell.
    """
    waiting, held, held_bytes = deque(wanted), list[Packet](), 0
    fresh, last, delay = landed, None, 0
    for packet in read:
        if not packet.size:
            continue
        if not _tells(packet, last):
            if fresh and not held:
                raise SeekOvershoot
            yield Segment([*held, packet], fresh)
            yield from (Segment([later]) for later in read if later.size)
            return
        pts, dts = packet.pts or 0, packet.dts
        last, delay = dts if dts is not None else last, max(delay, pts - (pts if dts is None else dts))
        starts = packet.is_keyframe and not packet.is_corrupt and not packet.is_discard and pts <= waiting[0]
        if starts and (fresh or len(held) >= _FEW_PACKETS):
            held, held_bytes, fresh = [], 0, True
        if fresh and not (held or starts):
            if dts is not None and dts > waiting[0]:
                raise SeekOvershoot
            continue
        held.append(packet)
        held_bytes += packet.size
        passed = _passed(waiting, dts)
        if not passed and len(held) < _HELD_PACKETS and held_bytes < _HELD_BYTES:
            continue
        yield Segment(held, fresh, _skippable(held, passed or [waiting[0]]))
        held, held_bytes, fresh = [], 0, False
        if not waiting:
            return
        if leap is not None and leap.worth(packet, waiting[0] - delay):
            yield Segment([], fresh=True)  # gets out what the decoder holds; the seek would drop it
            leap.go(waiting[0] - delay)
            fresh, last = True, None
    if fresh and not held:
        raise SeekOvershoot
    yield Segment(held, fresh, _skippable(held, list(waiting)))


def _tells(packet: Packet, last: int | None) -> bool:
    """Whether the packet's timestamps are there, and fit each other and the decoding time of the packet before."""
    pts, dts = packet.pts, packet.dts
    return pts is not None and (dts is None or (pts >= dts and (last is None or dts >= last)))


def _passed(waiting: deque[int], dts: int | None) -> list[int]:
    passed = []
    while dts is not None and waiting and waiting[0] < dts:
        passed.append(waiting.popleft())
    return passed


def _skippable(held: Sequence[Packet], times: Sequence[int]) -> frozenset[int]:
    """The timestamps, up to the last of the times, of packets that are not the last ones at or before any time."""
    stamps = sorted({packet.pts or 0 for packet in held if not packet.is_discard})
    kept = set[int]()
    for time in times:
        k = bisect_right(stamps, time)
        kept.update(stamps[max(0, k - _KEPT) : k])
    return frozenset(stamps[: bisect_right(stamps, times[-1])]) - kept
