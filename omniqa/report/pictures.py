"""Small pictures for a page: frames as JPEG, a log-mel as a heat map."""

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

QUALITY = 5  # of 1 (best) to 31
_WIDEST, _NARROWEST = 480, 64
_MEL_COLUMNS = 1600
# From quiet to loud: dark enough and light enough for marks in orange and blue to stand out.
_PALETTE = np.array([(18, 20, 44), (58, 46, 110), (120, 82, 150), (188, 150, 178), (244, 236, 226)], np.float32)


def jpeg(pixels: NDArray[np.uint8], width: int, height: int) -> bytes:
    """A picture as JPEG.

    Args:
        pixels: RGB, shape (H, W, 3).
        width, height: what it is resized to.
    """
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
        width=width,
        height=height,
        format="yuvj420p",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG,
    )
    codec = av.CodecContext.create("mjpeg", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuvj420p", Fraction(1)
    codec.qmin = codec.qmax = QUALITY
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def jpeg_within(pixels: NDArray[np.uint8], most_bytes: int) -> bytes:
    """A picture as JPEG, as wide as its bytes allow, at most as wide as it is; the narrowest if none is small enough.

    Args:
        pixels: RGB, shape (H, W, 3).
        most_bytes: what it should take at most.
    """
    height, width = pixels.shape[:2]
    across = min(width, _WIDEST)
    while True:
        data = jpeg(pixels, across, max(1, round(height * across / width)))
        if len(data) <= most_bytes or across <= _NARROWEST:
            return data
        shrunk = int(across * min(0.9, 0.95 * (most_bytes / len(data)) ** 0.5))
        across = max(min(_NARROWEST, width), shrunk)


def mel_picture(mel: NDArray[np.float32]) -> bytes:
    """A log-mel as JPEG, low frequencies at the bottom, loud parts light.

    Args:
        mel: (bins, frames), as `omniqa.media.mel.log_mel` gives it.
    """
    columns = min(_MEL_COLUMNS, mel.shape[1])
    starts = np.arange(columns) * mel.shape[1] // columns
    loudest = np.maximum.reduceat(mel, starts, axis=1)[::-1]
    low, high = float(loudest.min()), float(loudest.max())
    scaled = (loudest - low) / (high - low or 1.0) * (len(_PALETTE) - 1)
    steps = np.arange(len(_PALETTE))
    colours = [np.interp(scaled, steps, _PALETTE[:, channel]) for channel in range(3)]
    return jpeg(np.stack(colours, axis=-1).round().astype(np.uint8), columns, len(mel))
