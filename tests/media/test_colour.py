"""HDR becomes ordinary colours by a stated curve; ordinary video stays as it was."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from omniqa.media.clip import ClipOptions, sample
from omniqa.media.probe import probe

BT709, UNSPECIFIED, BT601, YCGCO, BT2020, PQ, HLG = 1, 2, 5, 8, 9, 16, 18
LUMA = {BT709: (0.2126, 0.0722), BT601: (0.299, 0.114), BT2020: (0.2627, 0.0593)}
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # from BT.709
WHITE = np.ones(3)
COLOURS = [(30, 180, 60), (200, 40, 40), (40, 70, 200), (128, 128, 128), (20, 20, 20), (190, 160, 120)]


def linear(rgb):
    """Light, 0 to 1, of sRGB codes of 8 bits."""
    codes = np.array(rgb) / 255
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def pq(nits):
    power = (np.asarray(nits) / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(nits):
    """For a display of 1,000 nits, by BT.2100's inverse OOTF and OETF."""
    shown = np.asarray(nits) / 1000
    luminance = shown @ (0.2627, 0.678, 0.0593)
    scene = shown * luminance ** (1 / 1.2 - 1)
    a = 0.17883277
    c = 0.5 - a * np.log(4 * a)
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - 1 + 4 * a, 1e-9)) + c)


def codes(signal, matrix=BT2020, bits=10, full=False):
    """Y'CbCr code values of R'G'B', by the formulas of BT.2100."""
    red, blue = LUMA[matrix]
    y = np.dot((red, 1 - red - blue, blue), signal)
    chroma = (signal[2] - y) / (2 - 2 * blue), (signal[0] - y) / (2 - 2 * red)
    unit, top = 2 ** (bits - 8), 2**bits - 1
    if full:
        values = y * top, *(c * top + 128 * unit for c in chroma)
    else:
        values = unit * (16 + 219 * y), *(unit * (128 + 224 * c) for c in chroma)
    return [min(max(round(value), 0), top) for value in values]


def plain(values, pix_fmt, height=64, width=64):
    """A frame of one colour, by its code values; tests that ask for a gradient give planes."""
    frame = av.VideoFrame(width, height, pix_fmt)
    deep = frame.format.components[0].bits > 8
    for plane, value in zip(frame.planes, values, strict=False):
        size = plane.buffer_size // (2 if deep else 1)
        plane.update(np.full(size, value, np.uint16 if deep else np.uint8).tobytes())
    return frame


def write(
    path, frames, codec, *, primaries=BT2020, transfer=PQ, matrix=BT2020, full=False, container_only=False, **more
):
    """Frames as they are, tagged; `container_only` keeps the tags out of the stream, as far as the codec allows."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=more)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        context = stream.codec_context
        tags = {"color_primaries": primaries, "color_trc": transfer, "colorspace": matrix, "color_range": 1 + full}
        for name, value in tags.items():
            setattr(context, name, value)
        for number, frame in enumerate(frames):
            for name, value in tags.items():
                if not container_only and not frame.format.name.startswith("yuvj"):
                    setattr(frame, name, value)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def seen(path: Path):
    """The colour in the middle of the first frame."""
    frame = sample(path, ClipOptions(audio=False)).frames[0]
    return frame[frame.shape[0] // 2, frame.shape[1] // 2].astype(int)


X265 = {"preset": "ultrafast", "x265-params": "log-level=0:crf=1"}
# Of each codec that stores HDR: the file's name, its pixel format and options.
HDR_CODECS = {
    "HEVC in MP4": ("a.mp4", "libx265", "yuv420p10le", X265),
    "HEVC in Matroska": ("a.mkv", "libx265", "yuv420p10le", X265),
    "HEVC in MPEG-TS": ("a.ts", "libx265", "yuv422p10le", X265),
    "AV1 in MP4": ("a.mp4", "libsvtav1", "yuv420p10le", {"preset": "12", "crf": "5"}),
    "AV1 in Matroska": ("a.mkv", "libsvtav1", "yuv420p10le", {"preset": "12", "crf": "5"}),
    "H.264, 10 bits": ("a.mp4", "libx264", "yuv420p10le", {"crf": "1"}),
    "VP9 in WebM, 8 bits": ("a.webm", "libvpx-vp9", "yuv420p", {"lossless": "1", "cpu-used": "8"}),
    "ProRes": ("a.mov", "prores_ks", "yuv422p10le", {}),
    "FFV1, 16 bits": ("a.mkv", "ffv1", "yuv444p16le", {}),
}


def hdr_clip(folder, kind, signal, transfer, **more):
    name, codec, pix_fmt, options = HDR_CODECS[kind]
    values = codes(signal, bits=av.VideoFormat(pix_fmt).components[0].bits, full=more.get("full", False))
    return write(folder / name, [plain(values, pix_fmt)] * 3, codec, transfer=transfer, **options, **more)


@pytest.mark.parametrize("kind", HDR_CODECS)
@pytest.mark.parametrize(("transfer", "curve"), [(PQ, pq), (HLG, hlg)], ids=["PQ", "HLG"])
def test_reference_white_is_white_in_every_hdr_codec(tmp_path, kind, transfer, curve):
    assert all(seen(hdr_clip(tmp_path, kind, curve(203 * WHITE), transfer)) >= 240)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(("transfer", "curve"), [(PQ, pq), (HLG, hlg)], ids=["PQ", "HLG"])
def test_ordinary_colours_come_back_from_hdr(tmp_path, colour, full, transfer, curve):
    signal = curve(203 * TO_BT2020 @ linear(colour))
    got = seen(hdr_clip(tmp_path, "HEVC in MP4", signal, transfer, full=full))
    assert np.abs(got - colour).max() <= 4
    clip = probe(tmp_path / "a.mp4").video
    assert clip.hdr == {PQ: "pq", HLG: "hlg"}[transfer]


@pytest.mark.parametrize("kind", ["HEVC in MP4", "AV1 in Matroska", "FFV1, 16 bits"])
def test_what_is_brighter_than_white_stays_brighter(tmp_path, kind):
    """Run with -s to see the levels."""
    greys = [int(seen(hdr_clip(tmp_path, kind, pq(nits * WHITE), PQ))[1]) for nits in (50, 100, 203, 400, 1000, 10000)]
    print(f"\n{kind}: {greys}")
    assert greys == sorted(set(greys))
    assert greys[4] - greys[2] >= 8
    assert greys[-1] == 255


def test_hlg_tells_its_peak_from_white(tmp_path):
    white, peak = (int(seen(hdr_clip(tmp_path, "HEVC in MP4", hlg(nits * WHITE), HLG))[1]) for nits in (203, 1000))
    assert (white, peak) == (pytest.approx(243, abs=2), pytest.approx(254, abs=1))


def test_a_bright_colour_keeps_its_hue(tmp_path):
    colour = TO_BT2020 @ linear((255, 128, 64))
    got = seen(hdr_clip(tmp_path, "FFV1, 16 bits", pq(1000 * colour), PQ))
    ratios = linear(got) / linear(got)[0]
    assert ratios == pytest.approx(linear((255, 128, 64)), abs=0.02)


@pytest.mark.parametrize("kind", ["ProRes", "HEVC in MP4"])
def test_tags_of_the_container_count_where_the_stream_has_none(tmp_path, kind):
    name, codec, pix_fmt, options = HDR_CODECS[kind]
    if codec == "libx265":
        options = options | {"x265-params": "log-level=0:crf=1:colorprim=undef:transfer=undef:colormatrix=undef"}
    values = codes(pq(203 * WHITE))
    path = write(tmp_path / name, [plain(values, pix_fmt)] * 3, codec, container_only=True, **options)
    assert all(seen(path) >= 240)


def test_wide_colours_without_hdr_are_converted(tmp_path):
    """By BT.1886's gamma of 2.4, both ways."""
    colour = np.array((30, 180, 60))
    signal = (TO_BT2020 @ (colour / 255) ** 2.4) ** (1 / 2.4)
    for transfer in (14, BT709, UNSPECIFIED):
        path = hdr_clip(tmp_path, "HEVC in MP4", signal, transfer)
        assert np.abs(seen(path) - colour).max() <= 3
        assert probe(path).video.hdr == "bt2020"


@pytest.mark.parametrize("level", [0, 64, 128, 255])
def test_grey_stays_grey_in_wide_colours(tmp_path, level):
    got = seen(hdr_clip(tmp_path, "HEVC in MP4", WHITE * level / 255, 14))
    assert np.abs(got - level).max() <= 2


def test_hdr_pictures_stored_as_rgb_are_mapped(tmp_path):
    signal = [round(value * 65535) for value in pq(203 * TO_BT2020 @ linear((30, 180, 60)))]
    pixels = np.ascontiguousarray(np.broadcast_to(np.array(signal, np.uint16), (64, 64, 3)))
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb48le").reformat(format="rgb48be")
    path = write(tmp_path / "a.mov", [frame], "png", matrix=0, full=True)
    assert np.abs(seen(path) - (30, 180, 60)).max() <= 3


@pytest.mark.parametrize("size", [(63, 57), (33, 101), (270, 480)])
def test_hdr_of_odd_sizes_has_no_seams(tmp_path, size):
    frame = plain(codes(pq(203 * WHITE)), "yuv444p10le", *size)
    path = write(tmp_path / "a.mkv", [frame], "ffv1")
    got = sample(path, ClipOptions(audio=False)).frames[0]
    assert got.min() >= 240
    assert got.max() - got.min() <= 1


def stored(tmp_path, size, tag, matrix):
    """A clip of one colour, written by a matrix and tagged with another."""
    height, width = size
    signal = np.array((30, 180, 60)) / 255
    frame = plain(codes(signal, matrix, bits=8), "yuv420p", height, width)
    return write(tmp_path / "a.mkv", [frame], "ffv1", primaries=tag, transfer=tag, matrix=tag)


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((720, 1280), BT709), ((1080, 1920), BT709), ((578, 720), BT709), ((480, 1026), BT709),
     ((576, 720), BT601), ((480, 1024), BT601), ((240, 320), BT601)],
)  # fmt: skip
def test_untagged_video_is_read_by_its_size(tmp_path, size, matrix):
    path = stored(tmp_path, size, UNSPECIFIED, matrix)
    assert np.abs(seen(path) - (30, 180, 60)).max() <= 2


@pytest.mark.parametrize("size", [(240, 320), (720, 1280)])
@pytest.mark.parametrize("matrix", [BT709, BT601])
def test_tagged_video_is_read_by_its_tag(tmp_path, size, matrix):
    path = stored(tmp_path, size, matrix, matrix)
    assert np.abs(seen(path) - (30, 180, 60)).max() <= 2
    assert probe(path).video.hdr is None


def test_tagged_ordinary_video_is_what_swscale_makes_of_it(tmp_path):
    """Bit by bit; a size that needs no resizing."""
    noise = np.random.default_rng(0).integers(0, 256, (280, 364, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p", dst_colorspace="itu709")
    path = write(tmp_path / "a.mkv", [frame], "ffv1", primaries=BT709, transfer=BT709, matrix=BT709)
    with av.open(str(path)) as container:
        expected = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.array_equal(sample(path, ClipOptions(audio=False)).frames[0], expected)


def test_full_range_is_honoured(tmp_path):
    frame = plain(codes(np.array((30, 180, 60)) / 255, BT709, bits=8, full=True), "yuv420p")
    path = write(tmp_path / "a.mkv", [frame], "ffv1", primaries=1, transfer=1, matrix=1, full=True)
    assert np.abs(seen(path) - (30, 180, 60)).max() <= 2


def test_a_matrix_that_swscale_lacks_is_no_damage(tmp_path):
    red, green, blue = np.array((30, 180, 60)) / 255 * 219 + 16
    y, cg, co = (red + blue) / 4 + green / 2, green / 2 - (red + blue) / 4 + 128, (red - blue) / 2 + 128
    frame = plain([round(y), round(cg), round(co)], "yuv444p")
    path = write(tmp_path / "a.mkv", [frame] * 2, "libx264", primaries=1, transfer=1, matrix=YCGCO, crf="1")
    clip = sample(path, ClipOptions(audio=False))
    assert clip.warnings == ()
    assert np.abs(seen(path) - (30, 180, 60)).max() <= 3
