"""Where the pixels of a frame are shown: pixels that are not square, turned pictures, sizes that change on the way.

A picture with pixels of another shape is enlarged along one side, as players do: wide pixels widen it, tall ones make
it taller. That comes before it is turned. A frame whose shape differs from the first one's is fitted into the first
one's, centred on black.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from av.sidedata.sidedata import SideDataContainer

if TYPE_CHECKING:
    import av
    import numpy as np
    from av.video.stream import VideoStream

_ODDEST = 10  # a pixel's sides differ 10-fold at most; what a file says beyond that is not believed
_NEARLY = Fraction(99, 100)  # a frame that fills so much of both sides is not padded

Size = tuple[int, int]  # height, width


def believed(aspect: Any) -> Fraction:
    """A pixel's width by its height; 1 if the file says nothing, or nothing believable."""
    ratio = Fraction(aspect) if aspect else Fraction(1)  # PyAV 19 has its own type
    return ratio if Fraction(1, _ODDEST) <= ratio <= _ODDEST else Fraction(1)


class PixelAspect:
    """The shape of a stream's pixels, which may change from frame to frame.

    The container's word holds, if it has one. Else the decoder tells, whose last word may be about frames to come.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._context: Any = stream.codec_context
        in_stream, said = believed(self._context.sample_aspect_ratio), believed(stream.sample_aspect_ratio)
        self._in_container = said if said != in_stream else None
        self._opened = {(stream.height, stream.width): said}  # holds as long as the decoder says nothing
        self._by_size: dict[Size, Fraction] = {}

    def of(self, frame: av.VideoFrame) -> Fraction:
        """That of a frame which the stream's decoder has just given."""
        if self._in_container is not None:
            return self._in_container
        size, decoding = (frame.height, frame.width), (self._context.height, self._context.width)
        if size == decoding or size not in self._by_size:
            self._by_size[size] = believed(self._context.sample_aspect_ratio or self._opened.get(size))
        return self._by_size[size]


def display_size(height: int, width: int, aspect: Fraction) -> Size:
    """The size at which a stored picture is shown with square pixels, before it is turned."""
    return (height, round(width * aspect)) if aspect >= 1 else (round(height / aspect), width)


def shown_size(frame: av.VideoFrame, aspect: Fraction) -> Size:
    """The size at which a frame is shown with square pixels, upright."""
    height, width = display_size(frame.height, frame.width, aspect)
    return (width, height) if is_turned(frame) else (height, width)


def fitted_size(shown: Size, box: Size, size: Size) -> Size:
    """What a frame takes of a picture.

    Args:
        shown: the size at which it is shown.
        box: that of the first frame, which takes the whole picture.
        size: the picture's.
    """
    scale = min(Fraction(whole, side) for side, whole in zip(shown, box, strict=True))
    shares = [side * scale / whole for side, whole in zip(shown, box, strict=True)]
    if min(shares) > _NEARLY:
        return size
    height, width = (max(1, round(share * side)) for share, side in zip(shares, size, strict=True))
    return height, width


def padded(picture: np.ndarray, size: Size) -> np.ndarray:
    """A picture (H, W, 3) in the middle of a black one of a size, at least as large."""
    if picture.shape[:2] == size:
        return picture
    import numpy as np

    (height, width), canvas = picture.shape[:2], np.zeros((*size, 3), picture.dtype)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas[top : top + height, left : left + width] = picture
    return canvas


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
    # `frame.side_data` would tie the frame to itself: it, and its converter's threads, would stay until collected.
    side_data: Any = SideDataContainer
    matrix = side_data(frame).get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    return a, b, c, d
