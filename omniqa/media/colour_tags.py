"""What a file says of its colours. Free of numpy, as is all that reads a header alone."""

from dataclasses import dataclass, replace
from typing import Any

BT2020 = 9  # as in ITU-T H.273
_UNSPECIFIED = 2
_HDR = {16: "pq", 18: "hlg"}


@dataclass(frozen=True)
class ColourTags:
    """What a file says of its colours: H.273's code points, 2 if it does not.

    Attributes:
        primaries: of the colour space.
        transfer: how light becomes code values.
        matrix: how R'G'B' becomes Y'CbCr.
        range: FFmpeg's: 1 limited, 2 full, 0 unknown.
    """

    primaries: int = _UNSPECIFIED
    transfer: int = _UNSPECIFIED
    matrix: int = _UNSPECIFIED
    range: int = 0

    @classmethod
    def of(cls, source: Any) -> "ColourTags":
        """Those of a codec's context or a frame."""
        primaries = getattr(source, "color_primaries", _UNSPECIFIED)  # frames of older PyAV don't show all
        transfer = getattr(source, "color_trc", _UNSPECIFIED)
        # Some decoders say 0, which is reserved, or, as a matrix, R'G'B'.
        primaries, transfer, matrix = (int(tag) or _UNSPECIFIED for tag in (primaries, transfer, source.colorspace))
        return cls(primaries, transfer, matrix, int(source.color_range))

    def within(self, container: "ColourTags") -> "ColourTags":
        """These, and the container's where they are not specified: some decoders forget what it says."""
        given = {name: tag for name, tag in vars(self).items() if tag != getattr(_NO_TAGS, name)}
        return replace(container, **given)

    @property
    def hdr(self) -> str | None:
        """What is converted to ordinary colours: "pq", "hlg", or "bt2020" (wide colours, ordinary brightness)."""
        return _HDR.get(self.transfer) or ("bt2020" if BT2020 in (self.primaries, self.matrix) else None)


_NO_TAGS = ColourTags()
