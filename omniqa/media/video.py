"""The frames shown at given times, upright and at the model's size, one after the other."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from omniqa.media.colour import mapped, needs_mapping, rgb
from omniqa.media.colour_tags import ColourTags
from omniqa.media.container import Damage, Timed, is_damage, timed_frames
from omniqa.media.deinterlace import deinterlaced, is_interlaced
from omniqa.media.geometry import Size, fitted_size, is_turned, padded, shown_size, upright
from omniqa.media.probe import MediaInfo, opening
from omniqa.media.resize import resize
from omniqa.media.seeking import frames_for

# Containers that store B-frames may show their first frame a few frames late; nobody sees a gap there.
_FIRST_FRAME_GRACE = Fraction(1, 10)


def read_frames(
    source: MediaInfo | str | Path,
    times: Iterable[Fraction],
    size: Size,
    damage: Damage | None = None,
    counts: "PictureCounts | None" = None,
) -> Iterator[tuple[Fraction, np.ndarray]]:
    """The frame shown at each time: the last one that begins at or before it.

    A time before the first frame is left out, unless that frame begins within 0.1 s; so is a time after the end of
    the last frame. The caller sees by the times which are missing. Frames are decoded as they are asked for, what no
    time needs is not, two are held (of interlaced video four), and only those asked for are converted and resized.

    Args:
        source: the media file.
        times: in seconds on the file's clock, rising.
        size: (height, width) to resize to. The file's first frame fills it; frames of another shape are fitted in.
        damage: takes down what could not be decoded.
        counts: takes down what was done to the frames.

    Yields:
        (time, frame): one of `times`, and uint8 RGB of shape (height, width, 3), upright.

    Raises:
        MediaError: the file can't be opened, or has no video stream.
    """
    path, access, clock = opening(source)
    waiting = deque(times)
    if not waiting:
        return
    damage = damage if damage is not None else Damage()
    canvas = _Canvas(size, _box(source), counts if counts is not None else PictureCounts())
    shown: _Shown | None = None
    before: Timed | None = None
    with closing(frames_for(path, tuple(waiting), damage, access, clock)) as frames:
        for timed in _in_order(frames):
            last, before = before, timed if is_interlaced(timed.frame) else None
            if shown is None:
                _drop_before(timed.start, waiting)
            if shown is not None:
                yield from _until(timed.start, waiting, shown.followed_by(timed), canvas, damage)
            if not waiting:
                return
            shown = _Shown(timed, last)
    if shown is not None:
        yield from _until(shown.timed.end, waiting, shown, canvas, damage)


def shown_frames(
    source: MediaInfo, start: Fraction, end: Fraction, size: Size, damage: Damage | None = None
) -> Iterator[tuple[Fraction, Fraction, np.ndarray]]:
    """All frames that are shown from `start` to `end`, each once.

    Args:
        source: the media file.
        start: in seconds on the file's clock.
        end: likewise.
        size: as for `read_frames`.
        damage: takes down what could not be decoded.

    Yields:
        (since, until, frame): when it is shown, within the range, and uint8 RGB of shape (height, width, 3), upright.

    Raises:
        MediaError: the file can't be opened, or has no video stream.
    """
    damage = damage if damage is not None else Damage()
    canvas, waiting = _Canvas(size, _box(source), PictureCounts()), deque([start])
    shown: _Shown | None = None
    before: Timed | None = None
    frames = timed_frames(source.path, "video", start, damage, source.access, source.clock)
    with closing(frames):
        for timed in _in_order(frames):
            last, before = before, timed if is_interlaced(timed.frame) else None
            if shown is not None:
                for since, picture in _until(timed.start, waiting, shown.followed_by(timed), canvas, damage):
                    yield since, min(timed.start, end), picture
            if timed.start >= end:
                return
            shown, waiting = _Shown(timed, last), deque([max(timed.start, start)])
    if shown is not None:
        for since, picture in _until(shown.timed.end, waiting, shown, canvas, damage):
            yield since, min(shown.timed.end, end), picture


def _in_order(frames: Iterable[Timed]) -> Iterator[Timed]:
    """The frames in the order of their times. One is held back, so a frame that comes too early waits for its time.

    A frame from before those that were handed on is left out.
    """
    before, held = None, None
    for timed in frames:
        if held is None or timed.start == held.start:
            held = timed
        elif timed.start > held.start:
            yield held
            before, held = held, timed
        elif before is None or timed.start > before.start:
            yield timed
            before = timed
    if held is not None:
        yield held


def _until(
    end: Fraction, waiting: deque[Fraction], shown: "_Shown", canvas: "_Canvas", damage: Damage
) -> Iterator[tuple[Fraction, np.ndarray]]:
    """The times before `end`, each with the frame on screen; a frame that can't be converted counts as damage."""
    while waiting and waiting[0] < end:
        time = waiting.popleft()
        try:
            picture = shown.picture(canvas)
            canvas.count(shown.timed)
        except (av.error.FFmpegError, ValueError) as error:
            if not is_damage(error):
                raise
            damage.packets += 1
        else:
            yield time, picture


def _box(source: MediaInfo | str | Path) -> Size | None:
    video = source.video if isinstance(source, MediaInfo) else None
    return (video.height, video.width) if video else None


@dataclass
class PictureCounts:
    """What was done to the frames taken.

    Attributes:
        deinterlaced: how many were stored as two fields.
        padded: how many have another shape than the file's first frame.
    """

    deinterlaced: int = 0
    padded: int = 0


@dataclass
class _Canvas:
    """What all pictures are drawn on.

    Attributes:
        size: (height, width).
        box: the size at which the file's first frame is shown, which fills it; of a file that was not probed, that of
            the first frame drawn.
        counts: what was done to them.
    """

    size: Size
    box: Size | None
    counts: PictureCounts

    def drawn(self, timed: Timed) -> np.ndarray:
        """A frame's picture, uint8 (height, width, 3)."""
        return padded(_drawn(timed.frame, timed.colour, self._taken(timed)), self.size)

    def count(self, timed: Timed) -> None:
        """Take down that a frame was taken."""
        self.counts.deinterlaced += is_interlaced(timed.frame)
        self.counts.padded += self._taken(timed) != self.size

    def _taken(self, timed: Timed) -> Size:
        shown = shown_size(timed.frame, timed.pixel_aspect)
        self.box = self.box or shown
        return fitted_size(shown, self.box, self.size)


class _Shown:
    """The frame on screen; converted once, however many times ask for it."""

    def __init__(self, timed: Timed, before: Timed | None) -> None:
        self.timed = timed
        self._before = before
        self._after: Timed | None = None
        self._picture: np.ndarray | None = None

    def followed_by(self, after: Timed) -> "_Shown":
        self._after = after
        return self

    def picture(self, canvas: _Canvas) -> np.ndarray:
        if self._picture is None:
            whole = self.timed
            if is_interlaced(whole.frame):
                whole = deinterlaced(self._before, whole, self._after)
            self._picture = canvas.drawn(whole)
        return self._picture


def _drawn(frame: av.VideoFrame, colour: ColourTags, size: Size) -> np.ndarray:
    """The picture of a frame, upright and at a size: uint8 RGB (height, width, 3)."""
    if not needs_mapping(frame, colour):
        return resize(upright(rgb(frame, colour), frame), size)
    height, width = size
    stored = (width, height) if is_turned(frame) else size
    return np.ascontiguousarray(upright(mapped(frame, colour, stored), frame))


def _drop_before(start: Fraction, waiting: deque[Fraction]) -> None:
    """Drop the times at which nothing is shown yet."""
    while waiting and waiting[0] < start - _FIRST_FRAME_GRACE:
        waiting.popleft()
