"""One continuous clock for a file whose timestamps restart, leap or wrap.

A recording that is joined from parts carries a clock for each. `ClockScan` looks at every packet once, in the order of
the file, and finds where the clock jumps; `Clock` says what has to be added to which packet. Both streams of a part are
moved by the same offset, so that picture and sound stay together.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm

from omniqa.errors import MediaError
from omniqa.media.access import CLOCK_JUMPS, GAP_SECONDS, LONGEST_FRAME, STILL_SECONDS

_BACK = Fraction(1, 10)  # seconds by which a decoding time may lie before the one that was due
_NEAR = Fraction(1)  # seconds within which a packet continues its stream beyond doubt
_REORDERED = Fraction(2)  # seconds by which presentation times may go back and forth, where decoding times lack
_LEAP = Fraction(10)  # FFmpeg's own limit (-dts_delta_threshold) for formats whose clock may jump
_RECENT = 8  # parts of the clock to which a packet may belong
_WRAP_TICK, _WRAP = Fraction(1, 90_000), 2**33  # of MPEG's clock
_OVERLAP = Fraction(1, 10)  # seconds of sound that may be dropped where two parts meet


def believable(pts: int | None, dts: int | None, tick: Fraction) -> bool:
    """Whether a packet is presented near its decoding: next to a jump, FFmpeg may give it its successor's time."""
    return pts is None or dts is None or abs(pts - dts) * tick <= _LEAP


@dataclass(frozen=True)
class Jump:
    """A place where a file's timestamps jump.

    Attributes:
        at: seconds on the file's clock, which goes on continuously there.
        by: seconds by which the timestamps leap; negative where they go back.
    """

    at: Fraction
    by: Fraction


@dataclass(frozen=True)
class Clock:
    """What is added to a file's timestamps to make them continuous.

    Attributes:
        jumps: where the timestamps jump; wraps of MPEG's 33-bit clock are none.
        zero: the continuous timestamp, in seconds, that is shown as 0; None is the container's own start.
        shifts: for each stream that is moved, its index and pairs of (number of the packet in its stream, seconds to
            add from that packet on).
    """

    jumps: tuple[Jump, ...] = ()
    zero: Fraction | None = None
    shifts: tuple[tuple[int, tuple[tuple[int, Fraction], ...]], ...] = ()

    @property
    def steady(self) -> bool:
        """Whether the timestamps can be taken as they are, and the file be sought in by them."""
        return not self.shifts

    def shifts_of(self, stream: int, tick: Fraction) -> deque[tuple[int, int]]:
        """For a stream, (number of the packet, timestamp units to add from there on), rising."""
        mine = next((shifts for index, shifts in self.shifts if index == stream), ())
        return deque((number, round(seconds / tick)) for number, seconds in mine)


STEADY = Clock()


@dataclass
class _Visit:
    """Consecutive packets of a stream in one part. Times are in the scan's units, as the packets give them."""

    number: int
    part: int
    low: int
    high: int


@dataclass
class _Track:
    """A stream while it is scanned. `due` is when its next packet should be decoded, on the continuous clock."""

    index: int
    video: bool
    tick: Fraction
    scale: int
    step: int
    count: int = 0
    due: int | None = None
    visits: list[_Visit] = field(default_factory=list)


@dataclass
class _Part:
    """A stretch of the file with one clock.

    Attributes:
        offset: what is added to its timestamps, in the scan's units.
        before: the part that its first packet left.
        wrap: it differs from that part by one turn of MPEG's clock alone.
    """

    offset: int
    before: int
    wrap: bool = False


class ClockScan:
    """Finds the jumps in a file's timestamps. Feed it every packet of the streams that are used, in file order.

    A stream's timestamps jump back where a packet is decoded more than 0.1 s before it is due. They leap ahead where no
    stream has had a packet for longer than the container allows for (10 s if its clock may jump, else minutes).

    Args:
        streams: (index, whether it is a picture, seconds per timestamp unit, seconds from frame to frame) of each.
        may_jump: the container is one whose clock may jump (MPEG-TS, MPEG-PS, Ogg, HLS).

    Raises:
        MediaError: a stream counts time in units longer than any frame may last.
    """

    def __init__(self, streams: Iterable[tuple[int, bool, Fraction, Fraction]], may_jump: bool) -> None:
        given = list(streams)
        if any(tick > LONGEST_FRAME for *_, tick, _ in given):
            raise MediaError("The file's timestamps make no sense: their unit is longer than a day.")
        self.unit = lcm(*(tick.denominator for *_, tick, _ in given))
        self._tracks = {
            index: _Track(index, video, tick, int(tick * self.unit), int(step * self.unit))
            for index, video, tick, step in given
        }
        patience = GAP_SECONDS if any(not video for _, video, *_ in given) else STILL_SECONDS
        self._leap = int((_LEAP if may_jump else patience) * self.unit)
        self._back, self._near, self._reordered = (int(s * self.unit) for s in (_BACK, _NEAR, _REORDERED))
        # Where the clock may jump, durations are FFmpeg's guesses from timestamp to timestamp; sound is never so long.
        self._longest = {True: int((_LEAP if may_jump else LONGEST_FRAME) * self.unit), False: int(_LEAP * self.unit)}
        self._parts = [_Part(0, 0)]
        self._front: int | None = None  # the furthest time that is due in any stream

    def add(self, stream: int, pts: int | None, dts: int | None, duration: int | None, counts: bool) -> None:
        """Take in the next packet; times are in the stream's own units.

        Args:
            stream: its index.
            pts: when it is presented; None where the file does not say.
            dts: when it is decoded; likewise.
            duration: how long it lasts; None or 0 where the file does not say.
            counts: False for packets that hold nothing or are not shown: they are numbered alone.

        Raises:
            MediaError: the timestamps jump too often to mean anything.
        """
        track = self._tracks[stream]
        number, track.count = track.count, track.count + 1
        if not counts:
            return
        lasts = (duration or 0) * track.scale
        lasts = lasts if 0 < lasts <= self._longest[track.video] else track.step
        decoded, shown = dts if dts is not None else pts, pts if pts is not None else dts
        if decoded is None or shown is None:
            offset = self._parts[track.visits[-1].part].offset if track.visits else 0
            time = start = (track.due or 0) - offset
        else:
            time, start = decoded * track.scale, (shown if believable(pts, dts, track.tick) else decoded) * track.scale
        part = self._part_of(track, time, self._back if dts is not None else self._reordered)
        if not track.visits or track.visits[-1].part != part:
            track.visits.append(_Visit(number, part, start, start))
        visit = track.visits[-1]
        visit.low, visit.high = min(visit.low, start), max(visit.high, start + lasts)
        track.due = time + self._parts[visit.part].offset + lasts
        self._front = track.due if self._front is None else max(self._front, track.due)

    def clock(self, trims: bool) -> Clock:
        """The clock of the file.

        Args:
            trims: the container means what lies before its raw zero to be left out.
        """
        self._meet()
        tracks = [track for track in self._tracks.values() if track.visits]
        if not any(self._parts[visit.part].offset for track in tracks for visit in track.visits):
            return STEADY
        start = min(self._start(track.visits[0]) for track in tracks)
        zero = max(start, Fraction(0)) if trims else start
        return Clock(
            tuple(self._jump(k, zero) for k, part in enumerate(self._parts) if k and not part.wrap),
            zero,
            tuple((track.index, tuple(map(self._shift, track.visits))) for track in tracks),
        )

    def span(self, stream: int) -> tuple[Fraction, Fraction] | None:
        """Start of a stream's first packet and end of its last, in seconds of continuous timestamps, after `clock`."""
        visits = self._tracks[stream].visits
        if not visits:
            return None
        offsets = [self._parts[visit.part].offset for visit in visits]
        low = min(visit.low + offset for visit, offset in zip(visits, offsets, strict=True))
        high = max(visit.high + offset for visit, offset in zip(visits, offsets, strict=True))
        return self._seconds(low), self._seconds(high)

    def _seconds(self, units: int) -> Fraction:
        return Fraction(units, self.unit)

    def _start(self, visit: _Visit) -> Fraction:
        return self._seconds(visit.low + self._parts[visit.part].offset)

    def _shift(self, visit: _Visit) -> tuple[int, Fraction]:
        return visit.number, self._seconds(self._parts[visit.part].offset)

    def _jump(self, k: int, zero: Fraction) -> Jump:
        visits = [next((v for v in track.visits if v.part == k), None) for track in self._tracks.values()]
        part = self._parts[k]
        leap = self._parts[part.before].offset - part.offset
        if all(track.tick == _WRAP_TICK for track in self._tracks.values()):
            turn = _WRAP * next(iter(self._tracks.values())).scale
            leap = (leap + turn // 2) % turn - turn // 2  # FFmpeg takes a leap back by hours for a wrap
        return Jump(min(self._start(visit) for visit in visits if visit is not None) - zero, self._seconds(leap))

    def _part_of(self, track: _Track, time: int, back: int) -> int:
        """The part of the clock to which a packet belongs; a new one where it fits none."""
        latest = len(self._parts) - 1
        if track.due is None:
            return self._first_part(track, time)
        mine = track.visits[-1].part
        early = time + self._parts[mine].offset - track.due
        if -back <= early <= self._near:
            return mine
        fits = early >= -back and (self._front is None or time + self._parts[mine].offset <= self._front + self._leap)
        if latest == 0 and fits:
            return mine
        near = self._nearest(time, track.due, back)
        if near is not None:
            return near
        return mine if fits else self._new_part(track, time, mine)

    def _first_part(self, track: _Track, time: int) -> int:
        """Where a stream begins: with the part that is read, if it continues that, else at its own time."""
        latest = len(self._parts) - 1
        if self._front is None:
            return latest
        for k in range(len(self._parts))[: -_RECENT - 1 : -1]:
            if abs(time + self._parts[k].offset - self._front) <= self._leap:
                return k
        beyond = time + self._parts[latest].offset > self._front
        return self._new_part(track, time, latest) if beyond else latest

    def _nearest(self, time: int, due: int, back: int) -> int | None:
        """Of the latest parts, the one that a packet continues best; None where it continues none."""
        early = {k: time + self._parts[k].offset - due for k in range(len(self._parts))[-_RECENT:]}
        close = [k for k, distance in early.items() if -max(back, self._near) <= distance <= self._near]
        return min(close, key=lambda k: abs(early[k]), default=None)

    def _new_part(self, track: _Track, time: int, before: int) -> int:
        if len(self._parts) > CLOCK_JUMPS:
            raise MediaError(f"The file's timestamps make no sense: they jump more than {CLOCK_JUMPS} times.")
        front, wrapped = self._front or 0, self._wrapped(track, time, self._parts[before].offset)
        self._parts.append(_Part(front - time, before) if wrapped is None else _Part(wrapped, before, wrap=True))
        return len(self._parts) - 1

    def _wrapped(self, track: _Track, time: int, offset: int) -> int | None:
        """The offset after MPEG's clock has wrapped, forwards or back, where that lets a packet go on; else None."""
        if track.tick != _WRAP_TICK:
            return None
        turn, front = _WRAP * track.scale, self._front or 0
        offsets = (offset + turn, offset - turn)
        return next((new for new in offsets if -self._near <= time + new - front <= self._near), None)

    def _meet(self) -> None:
        """Let each part begin where the one before it ends: the picture without a gap, the sound nearly so."""
        moved = [0] * len(self._parts)
        for k, part in enumerate(self._parts[1:], 1):
            moved[k] = moved[part.before]
            picture, sound = self._gaps(k, moved[k]) if not part.wrap else (None, None)
            if picture is None:
                moved[k] += sound or 0
            else:
                moved[k] += picture if sound is None else max(picture, sound - int(_OVERLAP * self.unit))
            part.offset += moved[k]

    def _gaps(self, k: int, moved: int) -> tuple[int | None, int | None]:
        """How much later part `k` would have to begin for the picture, and for the sound, to go on without a gap."""
        gaps: dict[bool, int] = {}
        for track in self._tracks.values():
            n = next((n for n, visit in enumerate(track.visits) if visit.part == k), 0)
            if n:
                end = max(visit.high + self._parts[visit.part].offset for visit in track.visits[:n])
                gap = end - track.visits[n].low - self._parts[k].offset - moved
                if abs(gap) <= self._near:
                    gaps[track.video] = gap
        return gaps.get(True), gaps.get(False)
