"""The frames shown at given times, upright and at the model's size, one after the other."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from omniqa.media.colour import ColourTags, mapped, needs_mapping, rgb
from omniqa.media.container import Damage, Timed, is_damage
from omniqa.media.probe import MediaInfo, opening
from omniqa.media.resize import resize
from omniqa.media.seeking import frames_for

# Containers that store B-frames may show their first frame a few frames late; nobody sees a gap there.
_FIRST_FRAME_GRACE = Fraction(1, 10)


def read_frames(
    source: MediaInfo | str | Path, times: Iterable[Fraction], size: tuple[int, int], damage: Damage | None = None
) -> Iterator[tuple[Fraction, np.ndarray]]:
    """The frame shown at each time: the last one that begins at or before it.

    A time before the first frame is left out, unless that frame begins within 0.1 s; so is a time after the end of
    the last frame. The caller sees by the times which are missing. Frames are decoded as they are asked for, what no
    time needs is not, one is held, and only those asked for are converted and resized.

    Args:
        source: the media file.
        times: in seconds on the file's clock, rising.
        size: (height, width) to resize to.
        damage: takes down what could not be decoded.

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
    shown: _Shown | None = None
    with closing(frames_for(path, tuple(waiting), damage, access, clock)) as frames:
        for timed in frames:
            if shown is None:
                _drop_before(timed.start, waiting)
            elif timed.start < shown.timed.start:  # a stray frame, from before what is on screen
                continue
            if shown is not None:
                yield from _until(timed.start, waiting, shown, size, damage)
            if not waiting:
                return
            shown = _Shown(timed)
    if shown is not None:
        yield from _until(shown.timed.end, waiting, shown, size, damage)


def _until(
    end: Fraction, waiting: deque[Fraction], shown: "_Shown", size: tuple[int, int], damage: Damage
) -> Iterator[tuple[Fraction, np.ndarray]]:
    """The times before `end`, each with the frame on screen; a frame that can't be converted counts as damage."""
    while waiting and waiting[0] < end:
        time = waiting.popleft()
        try:
            picture = shown.picture(size)
        except (av.error.FFmpegError, ValueError) as error:
            if not is_damage(error):
                raise
            damage.packets += 1
        else:
            yield time, picture


def upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turn, and mirror, a picture (H, W, 3) as the frame's display matrix asks; quarter turns only."""
    a, b, c, d = _display_matrix(frame)
    if is_turned(frame):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def is_turned(frame: av.VideoFrame) -> bool:
    """Whether a frame is shown on its side: its height as stored is its width as shown."""
    a, b, _, _ = _display_matrix(frame)
    return abs(b) > abs(a)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Where the stored point (x, y) is shown: (a, b, c, d) of x' = a x + c y, y' = b x + d y, in fixed point."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
    return a, b, c, d


class _Shown:
    """The frame on screen; converted once, however many times ask for it."""

    def __init__(self, timed: Timed) -> None:
        self.timed = timed
        self._picture: np.ndarray | None = None

    def picture(self, size: tuple[int, int]) -> np.ndarray:
        if self._picture is None:
            self._picture = _drawn(self.timed.frame, self.timed.colour, size)
        return self._picture


def _drawn(frame: av.VideoFrame, colour: ColourTags, size: tuple[int, int]) -> np.ndarray:
    """The picture of a frame, upright and at a size: uint8 RGB (height, width, 3)."""
    if not needs_mapping(frame, colour):
        return resize(upright(rgb(frame, colour), frame), size)
    stored = size[::-1] if is_turned(frame) else size
    return np.ascontiguousarray(upright(mapped(frame, colour, stored), frame))


def _drop_before(start: Fraction, waiting: deque[Fraction]) -> None:
    """Drop the times at which nothing is shown yet."""
    while waiting and waiting[0] < start - _FIRST_FRAME_GRACE:
        waiting.popleft()
