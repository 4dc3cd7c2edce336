"""What a question saw and heard of a file, as its answer tells."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClockJump:
    """A place where the file's timestamps jump.

    Attributes:
        at_s: on the file's clock, which goes on without a jump.
        by_s: how far they leap; negative where they go back.
    """

    at_s: float
    by_s: float


@dataclass(frozen=True)
class MediaSummary:
    """What was taken from the file; width and height are those the model saw.

    Attributes:
        grids: temporal patches of two frames.
        grids_reused: those that equal an earlier one, which were encoded once.
        tokens_reused: the share of all video tokens that reuse_static took from an earlier grid.
        jumps: of the whole file's timestamps, in order; every time that is shown or accepted is on a clock without
            them.
        hdr: "pq", "hlg" or "bt2020", if the file's colours were converted to ordinary ones.
        pixel_aspect: the stored pixels' width by their height, as 64:45; None without a picture.
        deinterlaced: frames that were stored as two fields.
        padded: those of another shape than the file's first frame.
        picture_width, picture_height: of the file's picture as it is shown, upright and with square pixels; 0 without.
    """

    duration_s: float
    frames: int
    fps: float | None
    width: int
    height: int
    audio_s: float
    warnings: tuple[str, ...]
    grids: int = 0
    grids_reused: int = 0
    tokens_reused: float = 0.0
    jumps: tuple[ClockJump, ...] = ()
    hdr: str | None = None
    pixel_aspect: str | None = None
    deinterlaced: int = 0
    padded: int = 0
    picture_width: int = 0
    picture_height: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return vars(self) | {"warnings": list(self.warnings), "jumps": [dict(vars(jump)) for jump in self.jumps]}
