"""What is taken from a clip, and the size its pictures get. Free of torch, so that arguments are checked at once."""

from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from math import ceil, floor, sqrt
from typing import TYPE_CHECKING, Any

from omniqa.errors import MediaError, UsageError
from omniqa.media.access import MAX_DOWNLOAD, Access
from omniqa.media.timeline import Number, exact, sample_times
from omniqa.models.base import STANDARD, Geometry

if TYPE_CHECKING:
    from omniqa.media.probe import MediaInfo

_MAX_ASPECT = 200

Bounds = tuple[int, int]


def smart_resize(
    height: int,
    width: int,
    min_pixels: int = STANDARD.min_pixels,
    max_pixels: int = STANDARD.max_pixels,
    factor: int = STANDARD.token_pixels,
) -> tuple[int, int]:
    """The size nearest to (height, width) whose sides are multiples of `factor` and whose area is within bounds.

    The bounds hold for one frame, and the shape is kept as well as the multiples allow. Halves are rounded to even.

    Raises:
        MediaError: one side is more than 200 times the other.
    """
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise MediaError(f"A picture of {width}x{height} is too long and thin: its sides may differ 200-fold at most.")
    rows, cols = round(height / factor) * factor, round(width / factor) * factor
    if rows * cols > max_pixels:
        shrink = sqrt(height * width / max_pixels)
        rows, cols = (max(factor, floor(side / shrink / factor) * factor) for side in (height, width))
    elif rows * cols < min_pixels:
        grow = sqrt(min_pixels / (height * width))
        rows, cols = (ceil(side * grow / factor) * factor for side in (height, width))
    return rows, cols


@dataclass(frozen=True)
class ClipOptions:
    """What is taken from a clip.

    Attributes:
        fps: frames per second.
        max_frames: most frames; where `fps` would give more, they are spread evenly. An odd count gets one more.
        start: seconds on the file's clock, where the range begins.
        end: where it ends, itself not in it; None is the end of the clip.
        min_pixels: fewest per frame; smaller frames are enlarged. None is the model's own bound.
        max_pixels: most per frame; larger frames are shrunk. None is the model's own bound.
        total_pixels: most of all frames, where the frames of one temporal grid count once. A frame still gets 1.05
            times the fewest, so that a long clip may exceed it. None bounds each frame alone.
        video: False leaves out the picture.
        audio: False leaves out the sound.
        audio_track: which of several, counted from 1; None takes the one that a player would.
        allow_network: the file may be an address, or a playlist of addresses.
        max_download: most bytes of an address that has to be copied first (`omniqa.media.download`).

    Raises:
        UsageError: a number is out of its range, or both picture and sound are left out.
    """

    fps: Number = 2.0
    max_frames: int = 128
    start: Number = 0.0
    end: Number | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None
    video: bool = True
    audio: bool = True
    audio_track: int | None = None
    allow_network: bool = False
    max_download: int = MAX_DOWNLOAD

    @property
    def access(self) -> Access:
        """How the file is opened."""
        return Access(self.audio_track, self.allow_network, self.max_download)

    @property
    def settings(self) -> dict[str, Any]:
        """All that changes what is taken, by name: what tells results and cached clips apart."""
        values = {name: value for name, value in asdict(self).items() if name != "max_download"}
        return values if self.total_pixels is not None else {n: v for n, v in values.items() if n != "total_pixels"}

    def __post_init__(self) -> None:
        start = exact(self.start, "start")
        if start < 0:
            raise UsageError(f"The start must not be below 0, not {self.start} s.", field="start")
        sample_times(start, start + 1 if self.end is None else exact(self.end, "end"), self.fps, self.max_frames)
        low, high = self.pixels(STANDARD.pixel_bounds)
        if not 0 < low <= high:
            raise UsageError(
                f"Pixel bounds must be above 0 and in order, not {low}, {high}.",
                field="min_pixels" if self.max_pixels is None else "max_pixels",
            )
        if self.total_pixels is not None and self.total_pixels < 1:
            raise UsageError(f"total_pixels must be above 0, not {self.total_pixels}.", field="total_pixels")
        if not (self.video or self.audio):
            raise UsageError("Picture and sound are both switched off; leave at least one on.")
        _ = self.access  # which refuses a track that can't be

    def pixels(self, bounds: tuple[int, int]) -> tuple[int, int]:
        """Fewest and most pixels of a frame, where `bounds` are the model's own.

        Where only one is given and the model's other one contradicts it, that gives way.
        """
        low, high = bounds
        if self.max_pixels is not None:
            low, high = (
                low if low <= self.max_pixels else min(STANDARD.token_pixels**2, self.max_pixels),
                self.max_pixels,
            )
        if self.min_pixels is not None:
            low, high = self.min_pixels, high if self.max_pixels is not None else max(high, self.min_pixels)
        return low, high

    def within(self, bounds: tuple[int, int]) -> "ClipOptions":
        """The same with both bounds given."""
        low, high = self.pixels(bounds)
        return replace(self, min_pixels=low, max_pixels=high)

    def pixels_of(self, frames: int, bounds: tuple[int, int], temporal_patch: int = STANDARD.temporal_patch) -> Bounds:
        """Fewest and most pixels of each of so many frames, where `bounds` are the model's own."""
        low, high = self.pixels(bounds)
        if self.total_pixels is None or not frames:
            return low, high
        share = self.total_pixels // ceil(frames / temporal_patch)
        return low, min(high, max(min(bounds[1], share), floor(1.05 * low)))

    def frame_size(self, height: int, width: int, geometry: Geometry = STANDARD, frames: int = 0) -> tuple[int, int]:
        """Height and width that each of a clip's frames gets for a model of this geometry. Raises MediaError.

        Args:
            frames: how many are taken; it only matters where `total_pixels` bounds them together.
        """
        bounds = self.pixels_of(frames, geometry.pixel_bounds, geometry.temporal_patch)
        return smart_resize(height, width, *bounds, geometry.token_pixels)


def selected_range(info: "MediaInfo", sampling: ClipOptions) -> tuple[Fraction, Fraction]:
    """Start and end of the range asked for, in seconds, cut at the end of the longest stream that is used.

    Raises:
        MediaError: no stream that is wanted is there, or the range begins after its end.
    """
    used = [info.video if sampling.video else None, info.audio if sampling.audio else None]
    ends = [stream.end for stream in used if stream is not None]
    if not ends:
        raise MediaError(
            f"{info.path} has no {'video' if sampling.video else 'audio'} stream, and only that is wanted."
        )
    start, end = exact(sampling.start, "start"), max(ends)
    if start >= end:
        raise MediaError(f"{info.path} is only {float(end):.6g} s long; there is nothing at {float(start):.6g} s.")
    return start, end if sampling.end is None else min(end, exact(sampling.end, "end"))
