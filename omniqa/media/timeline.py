"""What is sampled when: the times, in exact seconds, at which a clip is looked at.

Everything here is a `Fraction`, so that no border depends on how a float was rounded: at 2.6 frames a second the
thirteenth frame after the start is at 5 s, not a hair before it.
"""

from fractions import Fraction
from math import ceil

from omniqa.errors import UsageError

Number = int | float | str | Fraction


def exact(value: Number, what: str = "value") -> Fraction:
    """Read a number as the decimal or ratio it is written as: 2.6 (or "2.6") is 13/5.

    Args:
        value: an int, a float, a Fraction, or a string such as "0.1", "1e-3" or "30000/1001".
        what: what the number is, for the message.

    Raises:
        UsageError: it is not a finite number.
    """
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"The {what} must be a number, not {value}.", field=what) from error


def frame_spacing(fps: Number) -> Fraction:
    """Seconds from one frame to the next at a frame rate.

    Raises:
        UsageError: the rate is not above 0.
    """
    fps = exact(fps, "frame rate")
    if fps <= 0:
        raise UsageError(f"The frame rate must be above 0, not {float(fps):g}.", field="fps")
    return 1 / fps


def sample_times(start: Number, end: Number, fps: Number, max_frames: int) -> tuple[Fraction, ...]:
    """The times to take frames at: `start + k / fps` for every k that stays before `end`.

    Where that would be more than `max_frames`, there are exactly `max_frames`, spread evenly over the range.

    Args:
        start: first time, in seconds.
        end: end of the range, in seconds, itself not in it.
        fps: frames per second.
        max_frames: most times to return.

    Returns:
        Times in seconds, evenly spaced and rising; at least one.

    Raises:
        UsageError: fps is not above 0, max_frames is below 1, or end is not after start.
    """
    start, end, step = exact(start, "start"), exact(end, "end"), frame_spacing(fps)
    if max_frames < 1:
        raise UsageError(f"At least 1 frame must be allowed, not {max_frames}.", field="max_frames")
    if end <= start:
        raise UsageError(f"The end ({float(end):g} s) must come after the start ({float(start):g} s).", field="end")
    count = ceil((end - start) / step)
    if count > max_frames:
        count, step = max_frames, (end - start) / max_frames
    return tuple(start + k * step for k in range(count))
