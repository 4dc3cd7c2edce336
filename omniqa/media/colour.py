"""What colours a decoded frame shows: 8-bit R'G'B' of ordinary (SDR, BT.709) video, whatever the file stores.

Ordinary frames are converted by swscale. Three kinds it can't convert are done here, on the frame at its final size:

- HDR, by PQ (SMPTE ST 2084) or HLG (ARIB STD-B67): tone-mapped.
- BT.2020 without HDR: its primaries are converted to BT.709.
- YCgCo, which some screen recorders store: its matrix.

Tone mapping: light is counted in units of SDR reference white (203 nits, ITU-R BT.2408), in BT.709's primaries. A
pixel's brightest channel, x = max(R, G, B), stays as it is up to 0.8. Above, a Möbius curve bends it so that 10,000
nits become 1. All three channels change by the same factor, which keeps the hue. Colours outside BT.709 are cut off,
and the sRGB curve gives the codes.
"""

from functools import cache
from typing import NamedTuple

import av
import numpy as np

from omniqa.media.colour_tags import BT2020, ColourTags

_BT709, _YCGCO, _BT601 = 1, 8, 5  # as in ITU-T H.273
_FULL_RANGE = 2
_SD_HEIGHT, _SD_WIDTH = 576, 1024  # untagged video above either is taken as BT.709
_SWSCALE_MATRICES = {1, 4, 5, 6, 7, 9}
_LUMA_WEIGHTS = {  # of red and of blue, by the tag of the matrix
    1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}  # fmt: skip
_D65 = (0.3127, 0.3290)
_PRIMARIES = {  # chromaticities of red, green and blue, by the tag
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020's primaries
_WHITE_NITS, _PQ_NITS, _HLG_NITS, _HLG_GAMMA = 203.0, 10_000.0, 1000.0, 1.2
_KNEE = 0.8
_CODES = np.arange(65536) / 65535
_ROWS = 64  # are converted at a time, to stay in the processor's cache


class _Light(NamedTuple):
    """How code values become light, and light becomes codes of 8 bits.

    Attributes:
        decode: float32 (65536,), light by 16-bit code value, where 1 is reference white.
        encode: uint8 (65536,), code values by light from 0 to 1 in 65536 steps.
        primaries: float32 (3, 3), from those of the file to BT.709's.
        hlg: light is the scene's, and a display's gamma is to come.
        bright: light may be above 1.
    """

    decode: np.ndarray
    encode: np.ndarray
    primaries: np.ndarray
    hlg: bool = False
    bright: bool = False


def needs_mapping(frame: av.VideoFrame, tags: ColourTags) -> bool:
    """Whether `mapped` is to convert a frame; else `rgb` does."""
    return tags.hdr is not None or (tags.matrix == _YCGCO and not frame.format.is_rgb)


def rgb(frame: av.VideoFrame, tags: ColourTags) -> np.ndarray:
    """The picture of an ordinary frame: uint8 (H, W, 3), as it is stored."""
    return frame.to_ndarray(format="rgb24", src_colorspace=_matrix_to_read(frame, tags))


def mapped(frame: av.VideoFrame, tags: ColourTags, size: tuple[int, int]) -> np.ndarray:
    """The picture of an HDR or BT.2020 frame at a size (height, width) in ordinary colours: uint8 (height, width, 3).

    It is resized first, bicubic, in its own code values.
    """
    codes, matrix, offset = _codes(frame, tags, size)
    light = _light(tags) if tags.hdr else None
    picture = np.empty((*size, 3), np.uint8)
    for row in range(0, size[0], _ROWS):
        planes = codes[row : row + _ROWS].transpose(2, 0, 1).astype(np.float32)  # numpy is slow on a last axis of 3
        signal = _times(matrix, planes) + offset[:, None, None]
        signal = np.clip(signal, 0, 65535, out=signal)
        shown = signal * np.float32(255 / 65535) + 0.5 if light is None else _displayed(signal, light)
        picture[row : row + _ROWS] = shown.transpose(1, 2, 0)
    return picture


def _times(matrix: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """(3, 3) times (3, H, W)."""
    return (matrix @ planes.reshape(3, -1)).reshape(planes.shape)


def _matrix_to_read(frame: av.VideoFrame, tags: ColourTags) -> int | None:
    """The matrix by which swscale is to read a frame; None leaves it to the frame's own tag, if swscale knows that."""
    if frame.format.is_rgb or int(frame.colorspace) in _SWSCALE_MATRICES:
        return None
    return tags.matrix if tags.matrix in _SWSCALE_MATRICES else _guessed_matrix(frame, tags)


def _guessed_matrix(frame: av.VideoFrame, tags: ColourTags) -> int:
    if tags.hdr is not None:
        return BT2020
    return _BT709 if frame.height > _SD_HEIGHT or frame.width > _SD_WIDTH else _BT601


def _codes(frame: av.VideoFrame, tags: ColourTags, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame at a size: uint16 (H, W, 3), and the matrix (3, 3) and offset (3,) that make it R'G'B' up to 65535."""
    height, width = size
    if frame.format.is_rgb:
        sized = frame.reformat(width, height, "gbrp16le", interpolation="BICUBIC")
        return sized.to_ndarray(), np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
    # swscale takes formats of the first two kinds as full range, whatever the tag says. Its range in is its range out
    # here, and its matrix, too, so that it hands on the codes.
    name = frame.format.name
    is_full = tags.range == _FULL_RANGE or name.startswith("yuvj") or (name.startswith("gray") and not tags.range)
    kept = _FULL_RANGE if is_full or name.startswith("gray") else 1
    frame.colorspace, frame.color_range = _BT709, kept
    sized = frame.reformat(width, height, "yuv444p16le", interpolation="BICUBIC", dst_color_range=kept)
    matrix = tags.matrix if tags.matrix in (*_LUMA_WEIGHTS, _YCGCO) else _guessed_matrix(frame, tags)
    return sized.to_ndarray(channel_last=True), *_to_rgb(matrix, is_full)


@cache
def _to_rgb(matrix: int, is_full: bool) -> tuple[np.ndarray, np.ndarray]:
    if matrix == _YCGCO:
        weights = np.array([[1.0, -1, 1], [1, 1, 0], [1, -1, -1]])
    else:
        red, blue = _LUMA_WEIGHTS[matrix]
        green = 1 - red - blue
        to_red, to_blue = 2 * (1 - red), 2 * (1 - blue)
        weights = np.array([[1, 0, to_red], [1, -to_blue * blue / green, -to_red * red / green], [1, to_blue, 0]])
    if is_full:
        scale, zero = np.ones(3), np.array([0, 32768, 32768])
    else:
        scale, zero = 65535 / 256 / np.array([219, 224, 224]), 256 * np.array([16, 128, 128])
    weights = weights * scale
    return weights.astype(np.float32), (-weights @ zero).astype(np.float32)


def _displayed(signal: np.ndarray, light: _Light) -> np.ndarray:
    """Codes of 8 bits for R'G'B' up to 65535: float32 (3, H, W) to uint8."""
    shown = np.take(light.decode, (signal + 0.5).astype(np.uint16))
    if light.hlg:
        luminance = (_LUMINANCE @ shown.reshape(3, -1)).reshape(shown.shape[1:])
        shown *= luminance ** np.float32(_HLG_GAMMA - 1) * np.float32(_HLG_NITS / _WHITE_NITS)
    shown = _times(light.primaries, shown)
    if light.bright:
        shown *= _dimming(np.maximum(np.maximum(shown[0], shown[1]), shown[2]))
    shown = np.clip(shown, 0, 1, out=shown)
    return np.take(light.encode, (shown * 65535 + 0.5).astype(np.uint16))


def _dimming(brightness: np.ndarray) -> np.ndarray:
    """By what light is multiplied, where 1 is reference white: float32 in and out, the same shape."""
    peak = _PQ_NITS / _WHITE_NITS
    a = -(_KNEE**2) * (peak - 1) / (_KNEE**2 - 2 * _KNEE + peak)
    b = (_KNEE**2 - 2 * _KNEE * peak + peak) / (peak - 1)
    x = np.maximum(brightness, np.float32(_KNEE))
    bent = np.float32((b + _KNEE) ** 2 / (b - a)) * (x + np.float32(a)) / (x + np.float32(b))
    return bent / x


@cache
def _light(tags: ColourTags) -> _Light:
    primaries = tags.primaries if tags.primaries in _PRIMARIES or tags.hdr == "bt2020" else BT2020
    to_bt709 = _primaries_matrix(primaries if primaries in _PRIMARIES else BT2020)
    if tags.hdr == "bt2020":
        # A display's gamma of 2.4, both ways: grey stays as it is.
        return _Light((_CODES**2.4).astype(np.float32), _rounded(_CODES ** (1 / 2.4)), to_bt709)
    curve = np.where(_CODES <= 0.0031308, 12.92 * _CODES, 1.055 * _CODES ** (1 / 2.4) - 0.055)  # sRGB's
    decode = _hlg_scene(_CODES) if tags.hdr == "hlg" else _pq_nits(_CODES) / _WHITE_NITS
    return _Light(decode.astype(np.float32), _rounded(curve), to_bt709, tags.hdr == "hlg", bright=True)


def _rounded(levels: np.ndarray) -> np.ndarray:
    return (255 * levels + 0.5).astype(np.uint8)


def _pq_nits(signal: np.ndarray) -> np.ndarray:
    """ST 2084's EOTF."""
    root = signal ** (32 / 2523)
    return _PQ_NITS * (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305)


def _hlg_scene(signal: np.ndarray) -> np.ndarray:
    """BT.2100's inverse OETF of HLG: light of the scene, 0 to 1."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def _primaries_matrix(tag: int) -> np.ndarray:
    """float32 (3, 3): linear R, G, B in these primaries to those in BT.709's."""
    to_xyz, from_xyz = _xyz(_PRIMARIES[tag]), np.linalg.inv(_xyz(_PRIMARIES[_BT709]))
    return (from_xyz @ to_xyz).astype(np.float32)


def _xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """(3, 3): linear R, G, B to X, Y, Z, for D65 white."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*primaries, _D65)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
